"""--eps sets what methods ask for, and --minutes the epochs; where neither is given, all is as it was."""

import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import TightlipError
from tightlip.data import Part
from tightlip.data.dataset import Splits
from tightlip.experiments import certified_run
from tightlip.experiments.classification_options import Config, Recipe, check
from tightlip.experiments.methods import METHODS
from tightlip.experiments.pace import PACE, STEPS, paced
from tightlip.training.checkpoint import State

ASKED = {"k": 1.0, "temperature": 0.2, "loss": "cross_entropy"}
SMALL = {"hidden": (8,), "attack_images": 4, "attack_steps": 2, "attack_restarts": 1}


@pytest.mark.parametrize(("eps", "offset"), [(0.0, 0.73), (0.3, 1.2), (1.58, 3.19)])
@pytest.mark.parametrize("method", ["orthonormal", "spectral", "parseval"])
def test_the_offset_goes_through_what_was_measured_on_mnist(method, eps, offset):
    own = {"last_layer": "orthonormal"} if method == "orthonormal" else {}
    assert Config(method=method, eps=eps).settings == ASKED | own | {"offset": offset}


@pytest.mark.parametrize("method", ["row_l1", "distances"])
@pytest.mark.parametrize("eps", [1e-3, 4 / 255, 0.05, 0.3, 2.0])
def test_the_hinge_asks_for_more_than_the_radius_needs(method, eps):
    config = Config(norm="inf", method=method, eps=eps)
    assert 2.6 * eps < config.settings["a"] < 2.7 * eps and config.radius == eps
    assert Config(norm="inf", method=method, eps=0.3).settings["a"] == 0.8


def test_what_is_given_goes_before_what_follows():
    given = Config(eps=0.3, offset=0.0)
    assert given.settings == ASKED | {"last_layer": "orthonormal", "offset": 0.0} and given.resolved["offset"] == 0.0
    assert Config(norm="inf", eps=0.3, a=0.1).settings["a"] == 0.1
    assert Config(eps=0.3).resolved["offset"] == 1.2


@pytest.mark.parametrize("method", METHODS)
def test_without_a_radius_in_its_norm_a_method_has_its_defaults(method):
    for norm in ("2", "inf"):
        assert Config(norm=norm, method=method).settings == METHODS[method].defaults
    other = "inf" if METHODS[method].norm == 2 else "2"
    assert Config(norm=other, method=method, eps=0.3).settings == METHODS[method].defaults


def test_epochs_are_fifty_where_nothing_says_how_long():
    assert (Recipe().epochs, Recipe().passes, Config().passes, Config().resolved["epochs"]) == (50, 50, 50, 50)
    assert Config(minutes=1.0).resolved["epochs"] is None


@pytest.mark.parametrize("wrong", [{"minutes": 1.0, "epochs": 50}, {"minutes": 0.0}, {"minutes": float("nan")}])
def test_impossible_times_are_refused(wrong):
    with pytest.raises(TightlipError, match="minutes=.* (both say how long: leave one out|is impossible)"):
        check(Config(**wrong))


def parts(count=400):
    part = Part(torch.rand(count, 3), torch.arange(count) % 3)
    return Splits(part, Part(torch.rand(40, 3), torch.arange(40) % 3), part)


def learner(seconds, calls):
    """Takes so long for each example, and longer in the first epoch."""

    def learn(config, train, validation, classes):
        calls.append((config, len(train), len(validation), classes))
        row = {"seconds": seconds * len(train)}
        return nn.Linear(3, 3), [{"seconds": 100.0}, *[row] * (config.epochs - 1)]

    return learn


@pytest.mark.parametrize(("minutes", "epochs"), [(1.0, 15), (0.07, 1), (1e-6, 1), (10.0, 150)])
@pytest.mark.parametrize("batch_size", [8, 64])
def test_as_many_epochs_as_fit_are_chosen_and_the_first_that_was_timed_does_not_count(minutes, epochs, batch_size):
    calls = []  # an epoch of 400 examples takes 4 s
    found = paced(Config(minutes=minutes, batch_size=batch_size), parts(), 3, learner(0.01 * (1 - 1e-9), calls))
    ((config, train, validation, classes),) = calls
    assert (found.epochs, found.minutes) == (epochs, None)
    assert (train, classes) == (min(400, STEPS * batch_size), 3) and validation == -(-40 * train // 400)
    assert config.minutes is None and found.batch_size == batch_size


def test_a_run_that_goes_on_keeps_its_number(tmp_path):
    calls, checkpoint, asked = [], tmp_path / "checkpoint.pt", Config(minutes=1.0)
    first = paced(asked, parts(), 3, learner(0.01, calls), checkpoint)
    assert json.loads((tmp_path / PACE).read_text()) == {"epochs": first.epochs}
    assert paced(asked, parts(), 3, learner(1.0, calls), checkpoint, resume=True) == first and len(calls) == 1
    assert paced(asked, parts(), 3, learner(1.0, calls), checkpoint).epochs == 1  # a new run
    (tmp_path / PACE).write_text("[]")
    assert paced(asked, parts(), 3, learner(1.0, calls), checkpoint, resume=True).epochs == 1 and len(calls) == 3


@pytest.fixture
def data(tmp_path):
    y = np.arange(90) % 3
    np.savez(tmp_path / "d.npz", x=(np.eye(3)[y] + np.random.default_rng(0).random((90, 3))).astype("f4"), y=y)
    return str(tmp_path / "d.npz")


def test_a_run_of_minutes_is_that_of_its_epochs(data, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    runs = []
    for name, long in (("a", {"minutes": 0.005}), ("b", {})):
        (tmp_path / name).mkdir()
        long = long or {"epochs": runs[0].row.config["epochs"]}
        runs.append(certified_run.run(Config(data, **SMALL, **long), tmp_path / name, progress=False))
    timed, counted = (run.row.config for run in runs)
    assert (timed["minutes"], counted["minutes"]) == (0.005, None) and len(runs[0].row.history) == timed["epochs"] >= 1
    assert timed | {"minutes": None} == counted
    assert runs[0].certificate.radius.tolist() == runs[1].certificate.radius.tolist()
    assert not (tmp_path / "a" / PACE).exists()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert sum("epochs for 0.005 minutes" in line for line in told) == 1
    assert (
        sum(line.startswith("epoch ") for line in told) == 2
    )  # the last of each run; those that are timed are not told


def test_a_run_of_minutes_is_stopped_and_goes_on(data, tmp_path, monkeypatch):
    config, folder = Config(data, minutes=0.01, **SMALL), tmp_path / "r"
    folder.mkdir()
    write, left = State.record, []

    def record(state, row, judged):
        write(state, row, judged)
        if state.path is not None:
            left.append(row)
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "record", record)
    with pytest.raises(KeyboardInterrupt):
        certified_run.run(config, folder, progress=False)
    monkeypatch.undo()
    epochs = json.loads((folder / PACE).read_text())["epochs"]
    found = certified_run.run(config, folder, resume=True, progress=False)
    assert len(left) == 1 and found.row.config["epochs"] == epochs == len(found.row.history)
