"""A run's folder is taken for its model, and a file in it for the folder; what means nothing says what to type."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import save
from tightlip.cli import main

QUICK = ["--hidden", "8", "--epochs", "1", "--attack-images", "4", "--attack-steps", "2", "--attack-restarts", "1"]
RUN, STUDY = Path("runs/mine"), Path("runs/folding-smoke")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished run and an experiment's rows."""
    folder, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(folder)
    try:
        generator = np.random.default_rng(0)
        np.savez("d.npz", x=generator.random((30, 1, 4, 4)).astype(np.float32), y=np.arange(30) % 3)
        assert main(["train", "--data", "d.npz", "--name", "mine", *QUICK]) == 0
        assert main(["run", "folding"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)


def said(capsys, *command, code=0):
    capsys.readouterr()
    assert main(list(map(str, command))) == code
    out, err = capsys.readouterr()
    assert code == 0 or (out == "" and err.count("\n") == 1)
    return err if code else out


@pytest.mark.parametrize("given", ["", "metrics.json", "certificate.json", "config.json", "report.html"])
def test_certify_takes_the_folder_of_a_run_or_what_is_in_it_for_its_model(capsys, given):
    expected = said(capsys, "certify", RUN / "model.safetensors", "--data", "d.npz")
    assert said(capsys, "certify", RUN / given, "--data", "d.npz") == expected


def test_the_radii_name_the_model(capsys, tmp_path):
    said(capsys, "certify", RUN, "--data", "d.npz", "--output", tmp_path / "radii.json")
    assert '"model": "model.safetensors"' in (tmp_path / "radii.json").read_text()


@pytest.mark.parametrize("given", ["model.safetensors", "metrics.json", "certificate.json", "config.json"])
def test_report_takes_a_file_of_a_run_for_the_folder(capsys, given):
    assert said(capsys, "report", RUN / given) == said(capsys, "report", RUN)


def test_report_takes_a_row_for_the_experiment(capsys):
    row = next(STUDY.glob("*seed*.json"))
    assert said(capsys, "report", row) == said(capsys, "report", STUDY)
    assert said(capsys, "report", STUDY / "report.html") == said(capsys, "report", STUDY)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["certify", "runs"], "runs holds no model.safetensors: there is runs/mine"),
        (["certify", "runs/mnie"], "there is no file runs/mnie (did you mean runs/mine?)"),
        (["certify", "runs/mine/modl.safetensors"], "(did you mean runs/mine/model.safetensors?)"),
        (
            ["report", "runs"],
            "neither a run nor an experiment, but there is runs/mine, runs/folding-smoke in it: ",
        ),
        (["report", "runs/mnie"], "there is no folder runs/mnie (did you mean runs/mine?): name one that"),
        (["report", "d.npz"], "d.npz is a file of neither a run nor an experiment: name the folder of one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_means_nothing_says_what_to_type(capsys, command, says):
    assert says in said(capsys, *command, code=2)


def test_an_unfinished_run_says_how_to_go_on(capsys, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.json").write_text("{}")
    assert "not finished: tightlip train --resume --name half" in said(capsys, "certify", tmp_path / "half", code=2)


def test_a_model_of_another_name_is_itself(capsys, tmp_path):
    torch.manual_seed(0)
    save(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), tmp_path / "own.safetensors")
    assert "the whole network" in said(capsys, "certify", tmp_path / "own.safetensors", "--data", "d.npz")
