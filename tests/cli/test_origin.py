"""`tightlip certify` of a run on own data: its own test part, and what it has seen of other examples."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import Scale, save
from tightlip.cli import main

QUICK = ["--hidden", "8", "--epochs", "1", "--attack-images", "4", "--attack-steps", "2", "--attack-restarts", "1"]
X = np.random.default_rng(0).random((30, 1, 4, 4)).astype(np.float32)
Y = np.arange(30) % 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    np.savez(folder / "d.npz", x=X, y=Y)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--data", "d.npz", "--name", "mine", "--seed", "4", *QUICK]) == 0
    return folder


@pytest.fixture(autouse=True)
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def said(capsys, *command, code=0):
    capsys.readouterr()
    assert main(["certify", *map(str, command)]) == code
    out, err = capsys.readouterr()
    return err if code else out


def images(folder, names, count=1):
    image = pytest.importorskip("PIL.Image")
    for name in names:
        (Path(folder) / name).mkdir(parents=True)
        for number in range(count):
            image.new("L", (4, 4), 60 * number).save(Path(folder) / name / f"{number}.png")


def test_a_run_on_own_data_is_certified_on_its_own_test_part(capsys, monkeypatch, tmp_path):
    stored = json.loads(Path("runs/mine/certificate.json").read_text())
    out = said(capsys, "runs/mine", "--output", "radii.json")
    assert f"on {len(stored['radius'])} test examples of this run (d.npz, seed 4)" in out
    assert json.loads(Path("radii.json").read_text())["radius"] == stored["radius"]
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "copy/runs/mine") == out


def test_a_run_is_certified_in_its_own_norm_unless_another_is_asked_for(capsys):
    assert main(["train", "--data", "d.npz", "--norm", "inf", "--name", "cubes", *QUICK]) == 0
    stored = json.loads(Path("runs/cubes/certificate.json").read_text())
    out = said(capsys, "runs/cubes", "--output", "radii.json")
    found = json.loads(Path("radii.json").read_text())
    assert found["input_norm"] == stored["input_norm"] == "inf" and found["radius"] == stored["radius"]
    assert "certified at 0.15: " in out and "certified at 1: " not in out
    assert "certified at 1: " in said(capsys, "runs/cubes", "--norm", "2", "--output", "radii.json")
    assert json.loads(Path("radii.json").read_text())["input_norm"] == "2"


def test_without_metrics_the_options_suffice(capsys):
    expected = said(capsys, "runs/mine")
    Path("runs/mine/metrics.json").unlink()
    Path("runs/mine/certificate.json").unlink()
    assert said(capsys, "runs/mine") == expected


def test_data_that_are_gone_or_changed_are_refused(capsys):
    np.savez("d.npz", x=X[::-1], y=Y)
    assert "d.npz has changed since runs/mine was trained on it" in said(capsys, "runs/mine", code=2)
    Path("d.npz").unlink()
    assert "runs/mine was trained on d.npz: d.npz does not exist" in said(capsys, "runs/mine", code=2)
    np.savez("e.npz", x=X, y=Y)
    assert "note: whether runs/mine was trained on some of these is not known" in said(
        capsys, "runs/mine", "--data", "e.npz"
    )


def test_another_seed_is_refused(capsys):
    assert "--seed 0 would take training examples" in said(capsys, "runs/mine", "--seed", 0, code=2)


def test_training_examples_among_the_certified_are_counted(capsys):
    out = said(capsys, "runs/mine", "--data", "d.npz", "--output", "radii.json")
    count = json.loads(Path("runs/mine/metrics.json").read_text())["data"]["split"]
    assert json.loads(Path("radii.json").read_text())["seen"] == {
        "training": count["train"],
        "validation": count["validation"],
    }
    assert f"note: {count['train']} of these are training examples of runs/mine, {count['validation']} valid" in out
    np.savez("new.npz", x=X + 1, y=Y)
    assert "note" not in said(capsys, "runs/mine", "--data", "new.npz")
    np.savez("mixed.npz", x=np.concatenate([X[::-1], X + 1]), y=np.concatenate([Y[::-1], Y]))
    assert f"note: {count['train']} of these are training examples" in said(capsys, "runs/mine", "--data", "mixed.npz")


@pytest.mark.parametrize("drop", [5, "id", True, {"a": 1}, [None]])
def test_a_config_that_drops_no_columns_is_of_no_harm(capsys, drop):
    config = Path("runs/mine/config.json")
    changed = [(file, json.loads(file.read_text())) for file in (config, config.with_name("metrics.json"))]
    for file, held in changed:
        part = held if file == config else held["config"]
        part["drop"] = drop
        file.write_text(json.dumps(held))
    main(["certify", "runs/mine"])
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_config_is_refused_and_one_of_something_else_left_alone(capsys):
    Path("runs/mine/config.json").write_text("{")
    assert "config.json is damaged, so it does not say what" in said(capsys, "runs/mine", code=2)
    Path("own").mkdir()
    save(nn.Sequential(nn.Flatten()), "own/model.safetensors")
    Path("own/config.json").write_text('{"architectures": []}')
    np.savez("d3.npz", x=np.eye(3, dtype=np.float32), y=np.arange(3))
    assert "on all 3 examples" in said(capsys, "own", "--data", "d3.npz")


def test_class_folders_that_are_not_the_networks_classes_are_refused_with_their_numbers(capsys):
    save(nn.Sequential(nn.Flatten(), Scale(2.0)), "m.safetensors")
    images("digits", ["3", "7"], 4)
    sentence = said(capsys, "m.safetensors", "--data", "digits", code=2)
    assert "digits has 2 class folders, which would be classes 0 = 3, 1 = 7, and the network has 16 outputs" in sentence


def test_one_image_of_one_class_and_one_row_are_enough(capsys):
    save(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), "one.safetensors")
    images("pair", ["cat", "dog"])
    assert "on all 2 examples of pair" in said(capsys, "one.safetensors", "--data", "pair")
    np.savez("row.npz", x=X[:1], y=np.array([2]))
    assert "on all 1 examples of row.npz" in said(capsys, "runs/mine", "--data", "row.npz")
    torch.manual_seed(0)
    save(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "three.safetensors")
    images("single", ["cat"])
    sentence = said(capsys, "three.safetensors", "--data", "single", code=2)
    assert "single has 1 class folder, which would be classes 0 = cat" in sentence and "at least three" not in sentence


def test_folders_have_the_numbers_that_the_run_gave_their_names(capsys):
    images("animals", ["ant", "bee", "cat"], 4)
    assert main(["train", "--data", "animals", "--name", "a", *QUICK]) == 0
    images("new", ["cat"])
    said(capsys, "runs/a", "--data", "new", "--output", "radii.json")
    assert json.loads(Path("radii.json").read_text())["label"] == [2]
    images("odd", ["cow"])
    assert "classes are 0 = ant, 1 = bee, 2 = cat: name the folders" in said(capsys, "runs/a", "--data", "odd", code=2)
