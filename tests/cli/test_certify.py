"""`tightlip certify` says of a saved model what its run said, and no more."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import python
from torch import nn

from tightlip import Scale, lipschitz
from tightlip.cli import main
from tightlip.decimals import bracketed, floored, round_up
from tightlip.robustness import wilson
from tightlip.serialization import load, save

FAST = ["--hidden", "32", "--epochs", "1", "--attack-images", "20", "--attack-steps", "5", "--attack-restarts", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run on mnist5k, for some seconds."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "--runs", str(folder), "--name", "r", "--seed", "2", *FAST]) == 0
    return folder / "r"


def certified(capsys, *command):
    assert main(["certify", *map(str, command)]) == 0
    return capsys.readouterr().out


def test_it_reproduces_the_certificate_of_the_run_exactly(run, capsys, tmp_path):
    out = certified(capsys, run / "model.safetensors", "--seed", 2, "--eps", "0.3", "--output", tmp_path / "radii.json")
    metrics, stored = (json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "certificate"))
    radii = json.loads((tmp_path / "radii.json").read_text())
    for key in ("radius", "margin", "label", "prediction", "input_norm"):
        assert radii[key] == stored[key]
    assert radii["constant"] == stored["bound"]["constant"] and os.listdir(tmp_path) == ["radii.json"]
    clean, sure = metrics["test"]["accuracy"], metrics["test"]["certified"]["0.3"]
    intervals = [bracketed(wilson(round(1000 * share), 1000)) for share in (clean, sure)]
    assert f"accuracy {floored(clean)}% {intervals[0]} on 1000 test examples of this run" in out
    assert f"certified at 0.3: {floored(sure)}% {intervals[1]}; worst class" in out
    assert out.endswith("in brackets: 95% Wilson intervals\n")
    assert metrics["test"]["accuracy"] > 0.6 and metrics["test"]["certified"]["0.3"] > 0.3


def test_another_seed_is_refused_since_it_would_take_training_examples(run, capsys):
    for given in (run, run / "model.safetensors"):
        for data in ([], ["--data", "mnist5k"]):
            assert main(["certify", str(given), "--seed", "3", *data]) == 2
            assert f"--seed 3 would take training examples of {run} for test examples" in capsys.readouterr().err


def test_a_run_brings_its_data_and_its_seed(run, capsys, tmp_path):
    stored = json.loads((run / "certificate.json").read_text())
    for given in (run, run / "model.safetensors", run / "config.json"):
        out = certified(capsys, given, "--output", tmp_path / "radii.json")
        assert "on 1000 test examples of this run (mnist5k, seed 2)" in out and "note" not in out
        radii = json.loads((tmp_path / "radii.json").read_text())
        assert (radii["radius"], radii["seed"], radii["data"]) == (stored["radius"], 2, "mnist5k")


def test_of_a_model_without_a_run_it_says_that_the_seed_is_not_known(run, capsys, tmp_path):
    shutil.copy(run / "model.safetensors", tmp_path / "m.safetensors")
    out = certified(capsys, tmp_path / "m.safetensors")
    assert "1000 test examples of mnist5k, split with seed 0" in out and "note: no config.json beside this" in out
    assert "note" not in certified(capsys, tmp_path / "m.safetensors", "--seed", 2)


def test_what_is_read_is_not_written_over(run, capsys, tmp_path):
    folder = shutil.copytree(run, tmp_path / "r")
    np.savez(tmp_path / "own.npz", x=np.zeros((6, 1, 28, 28), np.uint8), y=np.arange(6) % 2)
    before = {path: path.read_bytes() for path in [*folder.iterdir(), tmp_path / "own.npz"] if path.is_file()}
    for option, place in (
        ("--output", folder / "model.safetensors"),
        ("--inputs", folder / "certificate.json"),
        ("--output", folder / "config.json"),
        ("--inputs", tmp_path / "own.npz"),
        ("--output", tmp_path / "same"),
    ):
        both = ["--inputs", tmp_path / "same"] * (place.name == "same") + ["--data", tmp_path / "own.npz"]
        assert main([*map(str, ("certify", folder, option, place, *both))]) == 2
        assert "is read or written by this command already" in capsys.readouterr().err
    assert main(["report", str(folder), "--output", str(folder / "metrics.json")]) == 2
    assert all(path.read_bytes() == content for path, content in before.items()) and not (tmp_path / "same").exists()


def test_the_audit_is_printed_layer_by_layer(run, capsys):
    lines = certified(capsys, run / "model.safetensors").splitlines()
    network = load(run / "model.safetensors")
    assert len(lines) == len(lipschitz(network, 2).layers) + 1 + 1 + 5 + 1
    whole = next(line for line in lines if "the whole network" in line)
    assert round_up(lipschitz(network, 2).constant, 9) in whole and whole.strip().startswith("2→2")


@pytest.mark.parametrize(("norm", "expected"), [("1", 100.0), ("2", 50.0), ("inf", 0.0)])
def test_the_norm_decides(norm, expected, capsys, tmp_path, monkeypatch):
    """Points at (1, 0) and (2, 0): 2·(their first coordinate) flips at distance 1, 1/√2·…, 1/2·… in the three norms."""
    monkeypatch.chdir(tmp_path)
    save(nn.Sequential(Scale(2.0)), "m.safetensors")
    points = np.array([[1.0, 0.0], [2.0, 0.0]] * 3 + [[0.0, 1.0], [0.0, 2.0]] * 3, np.float32)
    np.savez("d.npz", x=points, y=np.repeat([0, 1], 6))
    out = certified(
        capsys, "m.safetensors", "--data", "d.npz", "--norm", norm, "--eps", {"1": 0.99, "2": 1.0}.get(norm, 1.0)
    )
    assert "accuracy 100.00% [75.75%, 100.00%] on all 12 examples of d.npz, which has no test part" in out
    assert f": {expected:.2f}% [" in out.splitlines()[-2].partition(";")[0]


def test_the_whole_of_an_own_file_is_certified_and_bytes_become_unit_floats(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(nn.Sequential(nn.Flatten()), "m.safetensors")
    x = np.zeros((9, 1, 1, 3), np.uint8)
    x[np.arange(9), 0, 0, np.arange(9) % 3] = 255
    np.savez("d.npz", x=x, y=np.arange(9) % 3)
    out = certified(capsys, "m.safetensors", "--data", "d.npz", "--eps", 0.7, 0.71, "--output", "radii.json")
    assert "on all 9 examples" in out and "certified at 0.7: 100.00%" in out and "certified at 0.71: 0.00%" in out
    assert json.loads(Path("radii.json").read_text())["radius"] == pytest.approx([0.5**0.5] * 9, rel=1e-12)


def test_a_test_part_in_the_file_is_the_one_that_is_certified(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(nn.Sequential(nn.Flatten()), "m.safetensors")
    x, y = np.eye(3, dtype=np.float32)[np.arange(9) % 3], np.arange(9) % 3
    np.savez("d.npz", x=x, y=y, x_test=x[:3], y_test=(y[:3] + 1) % 3)
    out = certified(capsys, "m.safetensors", "--data", "d.npz")
    assert "accuracy 0.00% [0.00%, 56.15%] on 3 test examples" in out


def test_the_worst_class_is_told_by_its_name_where_the_data_have_some(capsys, tmp_path, monkeypatch):
    """Of the bright images one in four is dark, and all dark ones are right; a radius is (x − ½)·√2."""
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network[1].bias.copy_(torch.tensor([-0.5, 0.5]))
    save(network, "m.safetensors")
    for name, values in (("bright", (255, 255, 204, 0)), ("dark", (0, 0, 0, 0))):
        Path("images", name).mkdir(parents=True)
        for number, value in enumerate(values):
            Image.new("L", (1, 1), value).save(Path("images", name, f"{number}.png"))
    lines = certified(capsys, "m.safetensors", "--data", "images", "--eps", "0.4").splitlines()
    assert lines[-3].endswith("; worst class bright: 75.00% [30.06%, 95.45%]") and "accuracy 87.50%" in lines[-3]
    assert lines[-2].endswith("; worst class bright: 50.00% [15.00%, 85.00%]")


def test_as_a_process(run):
    """Without the tests' shape checks, and with the exit code of the process."""
    program = "import sys; from tightlip.cli import main; sys.exit(main())"
    done = python("-c", program, "certify", run / "model.safetensors", "--seed", "2", "--threads", "1")
    metrics = json.loads((run / "metrics.json").read_text())
    assert (done.returncode, done.stderr) == (0, "")
    assert f"certified at 0.3: {floored(metrics['test']['certified']['0.3'])}%" in done.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same_accuracy(run, capsys):
    here = certified(capsys, run / "model.safetensors", "--device", "cpu")
    assert certified(capsys, run / "model.safetensors", "--device", "cuda") == here


@pytest.mark.parametrize("zipped", [False, True])
def test_a_torch_file_is_called_one(zipped, capsys, tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    assert main(["certify", str(tmp_path / "weights.pt")]) == 2
    sentence = capsys.readouterr().err
    assert "weights.pt is a torch file (torch.save)" in sentence and "tightlip.save(freeze(network), path)" in sentence
