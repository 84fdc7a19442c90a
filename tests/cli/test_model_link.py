"""What is said of a model is said of the file that is there: every reader compares, and every writer says which."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from tightlip import TightlipError
from tightlip.cli import main
from tightlip.linkage import check_model
from tightlip.report.runs import read_run

QUICK = ["--hidden", "8", "--epochs", "1", "--attack-images", "4", "--attack-steps", "2", "--attack-restarts", "1"]
MODEL, CERTIFICATE, METRICS = (Path("runs/r") / n for n in ("model.safetensors", "certificate.json", "metrics.json"))
TRAIN = ["train", "--data", "d.npz", "--name", "r", *QUICK]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run."""
    folder, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    os.chdir(folder)
    try:
        generator = np.random.default_rng(0)
        np.savez("d.npz", x=generator.random((30, 1, 4, 4)).astype(np.float32), y=np.arange(30) % 3)
        assert main(TRAIN) == 0
    finally:
        os.chdir(before)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def run(finished, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    monkeypatch.chdir(tmp_path)
    MODEL.parent.mkdir(parents=True)
    for path, content in finished.items():
        path.write_bytes(content)


READERS = {
    "report": ["report", "runs/r"],
    "resume": [*TRAIN, "--resume"],
    "certify": ["certify", str(MODEL), "--data", "d.npz"],
}


def negated():
    """The last matrix of the model with the other sign."""
    with safe_open(MODEL, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    last = max(name for name in tensors if name.endswith("weight"))
    save_file(tensors | {last: -tensors[last]}, MODEL, metadata=metadata)


def changed(path, **fields):
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


@pytest.mark.parametrize("reader", READERS)
def test_a_run_is_read_where_its_model_is_the_one_it_speaks_of(reader, capsys):
    assert main(READERS[reader]) == 0
    assert "is not there" not in capsys.readouterr().out
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert [json.loads(path.read_text())["model_sha256"] for path in (CERTIFICATE, METRICS)] == [digest] * 2


@pytest.mark.parametrize("reader", READERS)
def test_another_model_in_its_place_is_refused(reader, capsys):
    page = Path("runs/r/report.html").read_bytes()
    negated()
    assert main(READERS[reader]) == 2
    error = capsys.readouterr().err
    assert "model.safetensors is not the model that certificate.json speaks of" in error and error.count("\n") == 1
    assert Path("runs/r/report.html").read_bytes() == page


@pytest.mark.parametrize("path", [CERTIFICATE, METRICS], ids=lambda path: path.name)
@pytest.mark.parametrize("other", ["ab" * 32, "absent"])
@pytest.mark.parametrize("reader", READERS)
def test_files_of_different_runs_are_refused(reader, path, other, capsys):
    changed(path, model_sha256=other)
    assert main(READERS[reader]) == 2
    assert "speak of different models" in capsys.readouterr().err


@pytest.mark.parametrize("value", [7, "ab", "AB" * 32, ["x"], True, "", None])
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_hash_is_one_sentence(reader, value, capsys):
    for path in (CERTIFICATE, METRICS):
        changed(path, model_sha256=value)
    assert main(READERS[reader]) == 2
    assert "certificate.json has a damaged model_sha256" in capsys.readouterr().err


@pytest.mark.parametrize("reader", READERS)
def test_runs_of_earlier_versions_which_carry_no_hash_are_read(reader):
    for path in (CERTIFICATE, METRICS):
        changed(path, model_sha256="absent")
    assert main(READERS[reader]) == 0


def test_without_its_model_a_page_is_made_and_says_that_nothing_was_compared(capsys):
    MODEL.unlink()
    assert main(READERS["report"]) == 0
    assert "note  runs/r/model.safetensors is not there" in capsys.readouterr().out
    for path in (CERTIFICATE, METRICS):
        changed(path, model_sha256="absent")
    assert main(READERS["report"]) == 0
    assert "note" not in capsys.readouterr().out  # the committed rows: nothing was promised


def test_a_run_without_its_model_is_not_called_complete(capsys):
    MODEL.unlink()
    assert main(READERS["resume"]) == 2
    assert "is gone: restore it" in capsys.readouterr().err


def test_a_model_elsewhere_or_of_another_name_is_certified_by_itself():
    negated()
    MODEL.rename("runs/r/other.safetensors")
    assert main(["certify", "runs/r/other.safetensors", "--data", "d.npz"]) == 0


@pytest.mark.parametrize("content", ["", "{", "{}", "null", "[" * 100_000, "\xff"], ids=repr)
@pytest.mark.parametrize("paths", [[CERTIFICATE], [METRICS], [CERTIFICATE, METRICS]], ids=len)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_or_emptied_file_does_not_spare_the_comparison(reader, paths, content, capsys):
    for path in paths:
        path.write_text(content, encoding="latin-1")
    negated()
    assert main(READERS[reader]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and any(path.name in error for path in paths)


def test_files_of_other_tools_beside_a_model_do_not_matter():
    CERTIFICATE.unlink()
    METRICS.write_text('{"loss": 0.1}')
    assert main(READERS["certify"]) == 0


def test_resuming_does_not_train_anew_over_a_model(capsys):
    before = MODEL.read_bytes()
    METRICS.unlink()
    assert main(READERS["resume"]) == 2
    assert "no metrics.json and no checkpoint" in capsys.readouterr().err and MODEL.read_bytes() == before


def test_radii_that_are_written_say_whose_they_are():
    assert main([*READERS["certify"], "--output", "radii.json"]) == 0
    radii = json.loads(Path("radii.json").read_text())
    assert radii["model_sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()


def test_reading_a_run_from_python_compares_too():
    assert read_run(MODEL.parent).row.name == "r"
    negated()
    with pytest.raises(TightlipError, match="is not the model"):
        read_run(MODEL.parent)


def test_nothing_to_compare_is_told_from_equal():
    said = {"certificate.json": json.loads(CERTIFICATE.read_text())}
    assert check_model(MODEL.parent, said)
    assert not check_model(MODEL.parent, {"certificate.json": {}}) and not check_model(MODEL.parent, {})
    MODEL.unlink()
    assert not check_model(MODEL.parent, said)
