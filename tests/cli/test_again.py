"""A run that was stopped goes on when the same command is given again; nothing is mixed, and nothing collides."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tightlip.cli import folders, main, running, train
from tightlip.experiments import certified_run
from tightlip.locking import sole_writer

QUICK = ["--hidden", "8", "--epochs", "3", "--attack-images", "4", "--attack-steps", "2", "--attack-restarts", "1"]
DEMO = ["train", "--data", "d.npz", *QUICK]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data()


def write_data(seed=0):
    x = np.random.default_rng(seed).random((60, 4)).astype(np.float32)
    np.savez("d.npz", x=x, y=np.arange(60) % 3)


def runs():
    return sorted(os.listdir("runs"))


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """Where a demo was stopped after its training."""

    def stop(network):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("halted"))
        patch.setattr(certified_run, "freeze", stop)
        write_data()
        assert main(DEMO) == 130
        return Path.cwd()


@pytest.fixture
def stopped(halted):
    """The folder of that demo, copied to where the test is."""
    shutil.copytree(halted, ".", dirs_exist_ok=True)
    (name,) = runs()
    return Path("runs") / name


def epochs_trained(caplog):
    """The last epoch that was told of; those before may pass in silence."""
    told = (re.match(r"epoch (\d+)/", record.getMessage()) for record in caplog.records)
    return max((int(found[1]) for found in told if found), default=0)


def test_the_same_command_goes_on_and_says_so(stopped, caplog):
    caplog.set_level(logging.INFO, "tightlip")
    assert main(DEMO) == 0
    assert runs() == [stopped.name] and (stopped / "report.html").exists()
    assert f"{stopped}: going on with this stopped run of the same options" in caplog.text
    assert epochs_trained(caplog) == 0  # they were there


def test_it_ends_with_what_an_uninterrupted_run_has(stopped):
    assert main(DEMO) == 0 and main([*DEMO, "--name", "whole"]) == 0
    for file in ("model.safetensors", "certificate.json"):
        assert (stopped / file).read_bytes() == Path("runs/whole", file).read_bytes()


def test_after_a_complete_run_the_same_command_is_a_new_one(stopped, caplog):
    assert main(DEMO) == 0
    caplog.clear()
    caplog.set_level(logging.INFO, "tightlip")
    assert main(DEMO) == 0
    assert len(runs()) == 2 and epochs_trained(caplog) == 3


@pytest.mark.parametrize("options", [["--seed", "1"], ["--name", "own"], ["--runs", "others"], ["--epochs", "4"]])
def test_other_options_are_another_run(stopped, options):
    before = (stopped / "checkpoint.pt").read_bytes()
    assert main([*DEMO, *options]) == 0
    assert (stopped / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("made_with", [None, {}, {"commit": "f" * 40}, "x"], ids=repr)
def test_a_run_of_another_version_does_not_go_on_unasked(stopped, made_with):
    stored = json.loads((stopped / "config.json").read_text())
    assert set(stored["made_with"]) == {"commit", "dirty", "python", "torch", "numpy", "tightlip"}
    (stopped / "config.json").write_text(json.dumps(stored | {"made_with": made_with}))
    assert main(DEMO) == 0 and len(runs()) == 2 and (stopped / "checkpoint.pt").exists()


NEWER = ("flip", "loss", "average")
"""Options that runs of earlier versions know nothing of."""


def test_a_run_that_began_before_there_was_an_option_has_its_default(stopped, capsys):
    stored = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({name: stored[name] for name in stored if name not in NEWER}))
    resume = [*DEMO, "--resume", "--name", stopped.name]
    assert main([*resume, "--loss", "emma"]) == 2
    assert "began with loss=cross_entropy: resume it with the same options" in capsys.readouterr().err
    assert main(DEMO) == 0 and runs() == [stopped.name]


def test_where_it_is_asked_for_a_line_says_so(stopped, caplog):
    stored = json.loads((stopped / "config.json").read_text())
    stored["made_with"]["torch"] = "1.0"
    (stopped / "config.json").write_text(json.dumps(stored))
    caplog.set_level(logging.INFO, "tightlip")
    assert main([*DEMO, "--resume", "--name", stopped.name]) == 0
    assert f"{stopped} began with another version (torch 1.0)" in caplog.text


@pytest.mark.parametrize("damage", ["data", "checkpoint"])
def test_what_cannot_go_on_is_said_and_a_new_run_begins(stopped, damage, caplog):
    if damage == "data":
        write_data(seed=1)
    else:
        (stopped / "checkpoint.pt").write_bytes(b"garbage")
    caplog.set_level(logging.INFO, "tightlip")
    assert main(DEMO) == 0
    assert len(runs()) == 2 and epochs_trained(caplog) == 3 and "so a new run begins" in caplog.text


def test_a_run_that_another_process_is_at_work_on_is_left_to_it(stopped):
    with sole_writer(stopped):
        assert main(DEMO) == 0
    assert len(runs()) == 2 and not (stopped / "metrics.json").exists()


def test_a_damaged_config_is_not_gone_on_with(stopped):
    (stopped / "config.json").write_text("{")
    assert main(DEMO) == 0 and len(runs()) == 2


def test_two_runs_in_one_second_have_two_folders(monkeypatch):
    monkeypatch.setattr(folders.time, "strftime", lambda _: "20260101-000000")
    assert main(DEMO) == 0 and main(DEMO) == 0
    assert runs() == ["d-l2-maxmin-20260101-000000", "d-l2-maxmin-20260101-000000-2"]


def test_the_latest_of_several_goes_on(monkeypatch):
    def stop(config, folder, *_):
        (folder / "checkpoint.pt").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", stop)
        patch.setattr(running, "unfinished", lambda *_: iter(()))
        assert main(DEMO) == main(DEMO) == 130
    first, second = (Path("runs") / name for name in runs())
    os.utime(second / "checkpoint.pt", (0, 0))
    config = train.Config("d.npz", hidden=(8,), epochs=3, attack_images=4, attack_steps=2, attack_restarts=1)
    assert list(folders.unfinished(Path("runs"), "d-l2-maxmin", config)) == [first, second]
