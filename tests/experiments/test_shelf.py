"""What cells share is made once for a folder, read as it was written, and taken away when all is done."""

from functools import partial

import pytest
import torch

from tightlip.experiments import rows, shelf
from tightlip.experiments.protocol import Outcome, Preset
from tightlip.experiments.shelf import kept


def counting(calls, value=1.0):
    def make(progress):
        calls.append(progress.path)
        return {"weights": torch.full((3,), value), "number": value, "list": [1, {"a": None}]}

    return make


def test_what_is_kept_is_made_once_for_a_key_and_a_folder(tmp_path):
    calls = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        with shelf.shelf(folder):
            for key in ({"x": 1}, {"x": 2}, {"x": 1}):
                found = kept(key, counting(calls))
                assert torch.equal(found["weights"], torch.ones(3)) and found["list"] == [1, {"a": None}]
    assert len(calls) == 4


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []
    for _ in range(2):
        kept({"x": 1}, counting(calls))
    assert calls == [None, None] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_as_good_as_none(tmp_path, harm):
    calls = []
    with shelf.shelf(tmp_path):
        kept({"x": 1}, counting(calls))
        (path,) = (tmp_path / shelf.NAME).iterdir()
        content = path.read_bytes()
        place = content.index(torch.ones(3).numpy().tobytes())
        harmed = {
            "cut": content[: len(content) // 2],
            "flipped": content[:place] + b"\x01" + content[place + 1 :],
            "foreign": b"not a file of torch",
            "empty": b"",
        }
        path.write_bytes(harmed[harm])
        assert torch.equal(kept({"x": 1}, counting(calls, 2.0))["weights"], torch.full((3,), 2.0))
        kept({"x": 1}, counting(calls))
    assert len(calls) == 2


def test_what_another_commit_made_is_made_again(tmp_path, monkeypatch):
    calls = []
    with shelf.shelf(tmp_path):
        for commit in ("a" * 40, "b" * 40, "b" * 40):
            monkeypatch.setattr(shelf, "commit", lambda commit=commit: (commit, False))
            kept({"x": 1}, counting(calls))
    assert len(calls) == 2


def test_an_interrupted_computation_goes_on_where_it_was(tmp_path):
    def make(progress, stop):
        found = progress.read() or {"done": 0}
        begun = found["done"]
        for done in range(begun, 5):
            if done == stop:
                raise KeyboardInterrupt
            progress.write({"done": done + 1})
        return {"begun": begun}

    with shelf.shelf(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            kept({"x": 1}, partial(make, stop=3))
        assert kept({"x": 2}, partial(make, stop=9)) == {"begun": 0}  # another key
        assert kept({"x": 1}, partial(make, stop=9)) == {"begun": 3}
    assert sorted(path.suffixes for path in (tmp_path / shelf.NAME).iterdir()) == [[".pt"], [".pt"]]


def test_cells_of_a_run_share_and_leave_nothing_when_all_are_there(tmp_path, module):
    with pytest.raises(Exception, match="1 of 3 cells failed"):
        rows.run_cells(module, Preset(), tmp_path)
    assert module.made == [0] and (tmp_path / shelf.NAME).is_dir()
    module.fails = False
    rows.run_cells(module, Preset(), tmp_path)
    assert module.made == [0] and not (tmp_path / shelf.NAME).exists()


@pytest.fixture
def module():
    import types
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        place: int = 0

    found = types.ModuleType("study.sharing", "Sharing.")
    found.Config, found.GRID, found.SMOKE, found.PAPER = Config, {"place": (0, 1, 2)}, Preset(), Preset(seeds=2)
    found.made, found.fails = [], True

    def make(progress):
        found.made.append(0)
        return {"value": 7.0}

    def run(config, seed):
        value = kept({"of": "all"}, make)["value"]
        if found.fails and config.place == 1:
            raise ZeroDivisionError
        return Outcome({"value": value})

    found.run = run
    return found
