"""What each command advises when it is interrupted: never an option that it lacks, nor a run that is not there."""

import os
from pathlib import Path

import pytest

from tightlip.cli import main, train
from tightlip.cli.certify import Certify
from tightlip.experiments import EXPERIMENTS


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def interrupted(capsys, *command):
    """The advice."""
    assert main(list(command)) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("tightlip: interrupted; ")
    return error.removeprefix("tightlip: interrupted; ")


def stop(*_):
    raise KeyboardInterrupt


def stop_after_a_checkpoint(config, folder, *_):
    (folder / "checkpoint.pt").touch()
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [["--name", "r"], []])
def test_training_that_kept_nothing_says_so(capsys, monkeypatch, name):
    monkeypatch.setattr(train, "run", stop)
    assert interrupted(capsys, "train", *name) == "nothing was kept"
    assert os.listdir("runs") == []


def test_training_that_has_a_checkpoint_is_resumed_by_its_name(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    advice = interrupted(capsys, "train", "--name", "mine", "--runs", "here")
    assert advice == "continue with the same options and --resume --name mine"
    assert interrupted(capsys, "train", "--name", "mine", "--runs", "here", "--resume") == advice


def test_training_without_a_name_is_resumed_by_the_one_that_it_got(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    old = Path("runs/old/config.json")
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (0, 0))
    advice = interrupted(capsys, "train")
    (name,) = set(os.listdir("runs")) - {"old"}
    assert advice == f"continue with the same options and --resume --name {name}"


def test_an_experiment_goes_on_by_the_same_command(capsys, monkeypatch):
    monkeypatch.setattr(EXPERIMENTS["bjorck_convergence"], "run", stop)
    advice = interrupted(capsys, "run", "bjorck_convergence")
    assert "give the same command again" in advice and "--resume" not in advice


def test_other_commands_have_kept_nothing(capsys, monkeypatch):
    monkeypatch.setattr(Certify, "__call__", stop)
    assert interrupted(capsys, "certify", "model.safetensors") == "nothing was kept"
