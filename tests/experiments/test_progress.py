"""Whatever takes long is seen to go on: training, certificates and attacks, in a bar or line by line in the log."""

import io
import logging
import re

import numpy as np
import pytest
import torch
from tqdm import tqdm

from tightlip import certify, freeze, mlp, pgd
from tightlip.experiments import certified_run
from tightlip.experiments.evidence import Attack, attack_curve
from tightlip.robustness.attacks import projected_gradient


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """From here on, in the test itself: before it, pytest puts its own in this place."""
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    return shown


@pytest.fixture
def problem(seed):
    network, x = freeze(mlp([6, 8, 3])), torch.rand(20, 6)
    return network, x, network(x).argmax(1)


def curve(network, x, y, **options):
    return attack_curve(Attack(20, 3, 2), 2.0, 0.1, network, x, y, certify(network, x, y), **options)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


def test_without_a_terminal_each_radius_of_the_attack_has_a_line(problem, caplog):
    caplog.set_level(logging.INFO, "tightlip")
    accuracy = curve(*problem).accuracy.tolist()
    told = [re.fullmatch(r"attack (\d)/8: eps \S+, (\S+) stand, \d+\.\d s", line) for line in lines(caplog)]
    assert all(told) and [int(match[1]) for match in told] == list(range(1, 9))
    assert [float(match[2]) for match in told] == pytest.approx(accuracy, abs=1e-4)


def test_a_terminal_shows_a_bar_and_no_lines(problem, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "tightlip")
    shown = terminal(monkeypatch)
    curve(*problem)
    assert "attacks: 100%" in shown.getvalue() and "stand=" in shown.getvalue() and lines(caplog) == []


def test_progress_that_is_not_wanted_is_not_shown(problem, monkeypatch):
    shown = terminal(monkeypatch)
    curve(*problem, progress=False)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False)])
def test_one_attack_counts_its_steps(problem, monkeypatch, progress, shown):
    screen = terminal(monkeypatch)
    monkeypatch.setattr(projected_gradient, "tqdm", lambda **options: tqdm(**options | {"delay": 0, "leave": True}))
    pgd(*problem, 1e-6, steps=4, restarts=3, progress=progress)
    assert ("attack: 100%" in screen.getvalue() and "15/15" in screen.getvalue()) == shown


def test_a_run_hands_on_whether_progress_is_wanted(tmp_path, monkeypatch):
    heard, shown = {}, terminal(monkeypatch)

    def hearing(name, original):
        def function(*arguments, **options):
            heard[name] = options.get("progress", arguments[-1])
            return original(*arguments, **options)

        return function

    for name in ("fit", "certify", "attack_curve"):
        monkeypatch.setattr(certified_run, name, hearing(name, getattr(certified_run, name)))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((60, 4)).astype(np.float32), y=np.arange(60) % 3)
    small = {"hidden": (8,), "epochs": 1, "attack_images": 4, "attack_steps": 1, "attack_restarts": 1}
    certified_run.run(certified_run.Config(str(tmp_path / "d.npz"), **small), tmp_path, progress=False)
    assert heard == {"fit": False, "certify": False, "attack_curve": False} and shown.getvalue() == ""
