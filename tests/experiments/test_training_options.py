"""What options of training change in a run, and that a run that stopped goes on under them as if it had not."""

from dataclasses import replace

import numpy as np
import pytest

from tightlip.experiments import certified_run
from tightlip.experiments.classification_options import Config
from tightlip.experiments.margin_losses import LOSSES
from tightlip.training.checkpoint import State

SMALL = {"hidden": (16,), "epochs": 4, "batch_size": 16, "attack_images": 4, "attack_steps": 2, "attack_restarts": 1}


@pytest.fixture
def options(tmp_path):
    """Of a run on images of two classes: an edge that is bright on the left, or on the right, and noise."""
    y = np.arange(120) % 2
    x = np.random.default_rng(0).integers(0, 60, (120, 1, 4, 4), dtype=np.uint8)
    x[y == 0, :, :, 0] += 180
    x[y == 1, :, :, 3] += 180
    np.savez(tmp_path / "sides.npz", x=x, y=y)
    return Config(data=str(tmp_path / "sides.npz"), shift=0, learning_rate=0.02, **SMALL)


def run(options, folder, resume=False):
    folder.mkdir(exist_ok=True)
    return certified_run.run(options, folder, resume=resume, progress=False)


def stopped(options, folder, monkeypatch):
    """A run that was stopped after its second epoch."""
    record = State.record

    def stopping(state, *row):
        record(state, *row)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(State, "record", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(options, folder)
    return folder


def told(result):
    """All that two runs must agree on."""
    rows = [
        {name: value for name, value in row.items() if name != "seconds"} for row in result.row.to_json()["history"]
    ]
    return rows, result.row.best_epoch, result.certificate.radius.tolist()


def test_mirrored_images_of_sides_cannot_be_told_apart(options, tmp_path):
    plain, mirrored = (run(replace(options, flip=flip), tmp_path / str(flip)) for flip in (False, True))
    assert plain.row.history[-1].loss < 0.5 * mirrored.row.history[-1].loss
    assert (plain.row.config["flip"], mirrored.row.config["flip"]) == (False, True)


@pytest.mark.parametrize("method", ["orthonormal", "row_l1_margin"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_and_is_recorded(loss, method, options, tmp_path):
    own = {"orthonormal": {}, "row_l1_margin": {"norm": "inf", "learning_rate": None}}[method]
    result = run(replace(options, loss=loss, method=method, offset=0.4, epochs=6, **own), tmp_path / "run")
    assert result.row.test.accuracy > 0.9 and result.row.config["loss"] == loss
    assert result.row.history[-1].loss < result.row.history[0].loss or loss == "emma"


@pytest.mark.parametrize("changed", [{"flip": True, "shift": 1}, {"loss": "emma"}, {"average": 0.9}], ids=str)
def test_a_run_that_stopped_goes_on_under_every_option(changed, options, tmp_path, monkeypatch):
    options = replace(options, **changed)
    whole, folder = run(options, tmp_path / "whole"), stopped(options, tmp_path / "stopped", monkeypatch)
    assert told(run(options, folder, resume=True)) == told(whole)


def test_an_average_is_judged_kept_and_certified(options, tmp_path):
    plain, averaged = (run(replace(options, average=decay), tmp_path / str(decay)) for decay in (0.0, 0.95))
    losses = [[(row.loss, row.train_accuracy) for row in result.row.history] for result in (plain, averaged)]
    assert losses[0] == losses[1]  # what trains is the same
    assert plain.row.history[0].validation_loss < averaged.row.history[0].validation_loss  # the average lags behind
    assert plain.certificate.radius.tolist() != averaged.certificate.radius.tolist()
    assert averaged.row.config["average"] == 0.95 and averaged.certificate.bound.constant <= 1.0
