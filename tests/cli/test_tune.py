"""`tightlip tune` judges on validation data, marks what no other setting beats, and ends with the command to type."""

import json
import logging
import shlex
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch

from tightlip import TightlipError
from tightlip.cli import main
from tightlip.cli.commands import COMMANDS
from tightlip.cli.parsing import parse
from tightlip.cli.tune import _command
from tightlip.data import Part, load, split
from tightlip.data.dataset import Splits
from tightlip.experiments import tuning
from tightlip.experiments.classification_options import Config as Options
from tightlip.experiments.classification_options import Training
from tightlip.experiments.front import on_front
from tightlip.experiments.methods import METHODS
from tightlip.robustness import wilson

SMALL = ["--data", "d.npz", "--hidden", "8", "--epochs", "1"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with rows of three classes."""
    y = np.arange(300) % 3
    x = (np.eye(3)[y] + 0.4 * np.random.default_rng(0).standard_normal((300, 3))).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    threads, level = torch.get_num_threads(), logging.getLogger("tightlip").level
    yield tmp_path
    torch.set_num_threads(threads)
    logging.getLogger("tightlip").setLevel(level)


def tuned(capsys, *words):
    assert main(["tune", *SMALL, *words]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    assert main(["tune", *words]) == 2
    return capsys.readouterr().err


def rows(place):
    found = [json.loads(path.read_text()) for path in place.glob("runs/tune-*/*seed0*.json")]
    return sorted(found, key=lambda row: row["place"])


def test_the_front_is_what_no_other_point_beats():
    assert on_front([(0.9, 0.5), (0.8, 0.7), (0.7, 0.6), (0.9, 0.4)]) == [True, True, False, False]
    assert on_front([(0.9, 0.5), (0.9, 0.5)]) == [True, True] and on_front([]) == []
    points = [(a / 4, b / 4) for a, b in product(range(4), range(4))]
    assert [p for p, kept in zip(points, on_front(points), strict=True) if kept] == [(0.75, 0.75)]
    with pytest.raises(TightlipError, match="an accuracy is NaN"):
        on_front([(0.5, float("nan"))])


def test_the_table_is_that_of_the_rows_with_wilson_intervals(place, capsys):
    out = tuned(capsys, "--eps", "0.1", "0.3", "--offsets", "0.2", "1.5")
    first, second = rows(place)
    inputs = len(split(load("d.npz"), 0).validation)
    assert first["metrics"]["inputs"] == inputs and f"{inputs} validation inputs, 95% Wilson intervals" in out
    for row in (first, second):
        line = next(line for line in out.splitlines() if line.startswith(f"{row['config']['offset']} "))
        accuracies = [row["metrics"][name] for name in ("accuracy", "certified_0.1", "certified_0.3")]
        assert [float(word[:-1]) for word in line.split() if word[-1] == "%" and word[0] != "["] == pytest.approx(
            [100 * value for value in accuracies], abs=0.01
        )
        low, _ = wilson(round(accuracies[0] * inputs), inputs)
        assert f"[{int(low * 1e4) / 100:.2f}%" in line
        assert row["metrics"]["constant"] <= 1.001


@pytest.mark.parametrize(("radius", "eps"), [("0.2", 0.2), ("36/255", 36 / 255)])
def test_it_ends_with_the_command_that_trains_the_best_at_the_first_radius(radius, eps, place, capsys):
    out = tuned(capsys, "--eps", radius, "--offsets", "0.2", "0.5", "1.5", "--activation", "abs")
    assert f"certified at {radius}" in out and f"best at {radius}, " in out and f" --eps {radius}" in out
    best = max(rows(place), key=lambda row: (row["metrics"][tuning.named(eps)], row["metrics"]["accuracy"]))
    command = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["tightlip", "train"]
    config = parse(command[1:], COMMANDS).config
    assert config == Options("d.npz", hidden=(8,), epochs=1, activation="abs", eps=eps, offset=best["config"]["offset"])


def test_the_front_is_drawn_from_the_settings_that_were_asked_for(place, capsys):
    out = tuned(capsys, "--offsets", "0.2", "1.5")
    (row,) = [json.loads(path.read_text()) for path in place.glob("runs/tune-*/front/eps=0.3_seed0.json")]
    points = sorted((r["metrics"]["accuracy"], r["metrics"]["certified_0.3"]) for r in rows(place))
    curve = row["drawings"]["curve"]
    assert list(zip(curve["accuracy"], curve["certified"], strict=True)) == points
    assert curve["front"] == [max(points)[1] if x == max(points)[0] else max(p[1] for p in points) for x, _ in points]
    page = next(place.glob("runs/tune-*/report.html"))
    assert f"page  {page}" in out and "front" in page.read_text() and row["command"] == "tune"


def test_rows_that_are_there_are_not_computed_again_and_the_test_part_is_never_looked_at(place, capsys, monkeypatch):
    whole, calls = tuning.split, []

    def without_test(dataset, seed):
        calls.append(seed)
        parts = whole(dataset, seed)
        return Splits(
            parts.train, parts.validation, Part(torch.full((1, 3), torch.nan), torch.zeros(1, dtype=torch.int64))
        )

    tuned(capsys, "--offsets", "0.2", "1.5")
    usual = [row["metrics"] | {"cpu_seconds": 0} for row in rows(place)]
    for path in place.glob("runs/tune-*/offset*"):
        path.unlink()
    monkeypatch.setattr(tuning, "split", without_test)
    tuned(capsys, "--offsets", "0.2", "1.5")
    assert [row["metrics"] | {"cpu_seconds": 0} for row in rows(place)] == usual and len(calls) == 2
    tuned(capsys, "--offsets", "0.2", "1.5", "3")
    assert len(calls) == 3 and len(rows(place)) == 3


def test_of_the_inf_norm_a_is_tuned(place, capsys):
    out = tuned(capsys, "--norm", "inf", "--eps", "0.1")
    assert out.startswith("a ") and [row["config"]["a"] for row in rows(place)] == [0.2, 0.267, 0.4]
    assert "--norm inf" in out.splitlines()[-1] and " --a 0." in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--offset", "1"], "tune tries several values of offset: leave out --offset, and give them as --offsets"),
        (["--norm", "inf", "--a", "1"], "tune tries several values of a: leave out --a"),
        (["--offsets", "1", "1.0"], "a front needs two settings: give --offsets several values, got 1"),
        (["--offsets", "1", "-1"], "offset=-1.0 (--offset) is impossible"),
        (["--eps", "0.1", "-1"], "--eps must be numbers ≥ 0, got 0.1 -1"),
        (["--eps", "nan"], "--eps must be numbers ≥ 0"),
        (["--method", "standard"], "standard asks for no margin, so there is nothing to tune: choose one of "),
        (["--method", "nonsense"], "no method is called 'nonsense'"),
        (["--data", "absent.npz"], "absent.npz"),
        (["--data", "d.npz", "--shift", "1"], "moves images"),
        (["--data", "d.npz", "--flip"], "mirrors images"),
        (["--jobs", "0"], "jobs"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_computed(place, capsys, words, sentence):
    assert sentence in refused(capsys, *words)
    assert not list(place.glob("runs/*/*seed*"))


def test_what_is_given_reaches_training():
    changed = {
        "data": "d",
        "norm": "inf",
        "method": "distances",
        "network": "convnet",
        "hidden": (3,),
        "channels": (4,),
    }
    changed |= {"depth": 3, "activation": "abs", "k": 2.0, "offset": 0.1, "temperature": 0.1, "a": 0.4, "dropout": 0.1}
    changed |= {"weight_decay": 0.1, "penalty": 2.0, "train_eps": 0.1, "train_steps": 3, "patch": 2, "epochs": 4}
    changed |= {"batch_size": 7, "learning_rate": 0.1, "shift": 2, "flip": True, "loss": "emma", "average": 0.5}
    changed |= {
        "last_layer": "rows",
        "autocast": True,
        "label": "kind",
        "drop": ("id",),
        "standardize": "no",
        "center": "inputs",
    }
    assert set(changed) == {field.name for field in fields(Training)}
    for name, value in changed.items():
        assert getattr(tuning.options_of(replace(tuning.Config(eps=(0.1,)), **{name: value})), name) == value
    assert tuning.options_of(tuning.Config(eps=(0.2, 0.1)), 3) == Options(eps=0.2, seed=3, epochs=10)


def test_options_that_are_on_or_off_are_words_without_a_value():
    command = _command(Options(flip=True, eps=0.1))
    assert command == "tightlip train --flip --eps 0.1"
    assert parse(shlex.split(command)[1:], COMMANDS).config == Options(flip=True, eps=0.1)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if {"offset", "a"} & set(method.defaults)])
def test_every_method_that_asks_for_margin_is_tuned_around_what_suits_it(method):
    config = tuning.Config(method=method, norm="inf" if METHODS[method].norm != 2 else "2", eps=(0.1,))
    middle = tuning.options_of(config).settings[tuning.axis(config)]
    assert tuning.usual(config)[1] == pytest.approx(middle, rel=5e-3) and len(set(tuning.usual(config))) == 3


def test_an_interruption_ends_with_the_same_command(place, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "trained", stop)
    assert main(["tune", *SMALL]) == 130
    assert "complete rows are kept: give the same command again to go on, " in capsys.readouterr().err
