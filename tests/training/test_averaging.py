"""`fit(…, average=)`: the moving average by hand, on its sets, resumed as if nothing had happened."""

import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from blobs import blobs, same_weights, seeded, train, without_seconds
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tightlip import (
    Cayley,
    MaxMin,
    Orthonormal,
    Parseval,
    RowL1Ball,
    SpectralBall,
    TightlipError,
    constrain,
    freeze,
    lipschitz,
    mlp,
)
from tightlip.constraints import put_back

DECAY = 0.8
WITHOUT_CHOICE = {"validation": None, "schedule": None, "optimizer": partial(torch.optim.SGD, lr=0.05)}


class StopError(Exception):
    """What kills a run of these tests."""


def _warnings(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def watched(network, **options):
    """`fit` with an average: the weights as they were after each step, the average by hand, and what was kept."""
    seen = []

    def look(optimizer, steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: seen.append(weights()) or 1.0)

    def weights():
        return [weight.detach().clone() for weight in network.parameters()]

    train(2, network, average=DECAY, **WITHOUT_CHOICE | {"schedule": look} | options)
    _, first, *rest = seen  # before any step, and after each
    assert len(rest) == 2 * math.ceil(200 / 32) - 1
    for each in rest:
        first = [DECAY * old + (1 - DECAY) * new for old, new in zip(first, each, strict=True)]
    return rest[-1], first, weights()


def test_it_is_the_exponential_moving_average_of_the_weights_after_each_step():
    last, average, kept = watched(plain())
    for found, expected in zip(kept, average, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert max(float((found - w).abs().max()) for found, w in zip(kept, last, strict=True)) > 1e-3


def test_buffers_are_those_of_the_network_that_trains():
    average, _ = train(2, plain(), average=DECAY, **WITHOUT_CHOICE)
    network, _ = train(2, plain(), **WITHOUT_CHOICE)
    assert all(torch.equal(a, b) for a, b in zip(average.buffers(), network.buffers(), strict=True))
    assert not average.training


@pytest.mark.parametrize("make", [plain, seeded, lambda: seeded(hold="forward")], ids=["free", "step", "forward"])
def test_what_trains_is_not_touched_and_epochs_are_judged_in_the_average(make):
    _, usual = train(3, make())
    network, history = train(3, make(), average=DECAY)
    for ours, theirs in zip(history, usual, strict=True):
        assert all(ours[name] == theirs[name] for name in ("loss", "train_accuracy", "learning_rate"))
        assert ours["validation_loss"] != theirs["validation_loss"]
    best = max(history, key=lambda row: (row["validation_score"], row["epoch"]))
    x, y = blobs(50, seed=1)
    loss = float(functional.cross_entropy(network(x), y).detach())
    assert loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_without_an_average_nothing_is_copied(monkeypatch):
    expected, usual = train(2, average=0)
    monkeypatch.setattr("tightlip.training.averaging.AveragedModel", None)
    network, history = train(2)
    assert without_seconds(history) == without_seconds(usual) and same_weights(network, expected)


def convolutions():
    torch.manual_seed(0)
    kernel = constrain(nn.Conv2d(4, 4, 3, padding=1), Orthonormal())
    return nn.Sequential(nn.Unflatten(1, (4, 1, 1)), kernel, MaxMin(1), nn.Flatten(), mlp([4, 2]))


NETWORKS = {
    "orthonormal": seeded,
    "whole": lambda: seeded(4, 8, 8, 2, constraint=Orthonormal(blocks=1)),
    "ambient": lambda: seeded(4, 8, 8, 2, constraint=Orthonormal(blocks=0)),
    "forward": lambda: seeded(hold="forward"),
    "cayley": lambda: seeded(4, 4, 2, constraint=Cayley(), hold="forward"),
    "spectral": lambda: seeded(constraint=SpectralBall()),
    "row_l1": lambda: seeded(constraint=RowL1Ball()),
    "parseval": lambda: seeded(constraint=Parseval()),
    "convolution": convolutions,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_that_is_kept_is_on_its_sets_and_trains_on(name, caplog):
    """A large rate turns weights far between two steps, so that their plain average is off the set."""
    network = NETWORKS[name]()
    options = {"optimizer": partial(torch.optim.Adam, lr=0.05), "schedule": None}
    _, history = train(3, network, average=0.95, **options)
    outputs = network(blobs()[0])  # a weight off its set would be refused
    assert torch.isfinite(outputs).all() and not _warnings(caplog)
    assert put_back(network) == []
    frozen = freeze(network)
    assert not _warnings(caplog)  # nothing was moved by more than rounding
    p = math.inf if name == "row_l1" else 2
    if name != "parseval":
        assert lipschitz(frozen, p).constant <= 1 + 1e-6
    assert train(1, network, **options)[1][0]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("blocks", [None, 0, 1])
def test_an_orthonormal_average_is_the_member_nearest_to_the_average(blocks):
    network = nn.Sequential(constrain(nn.Linear(4, 2, bias=False), Orthonormal(blocks=blocks)))
    _, (average,), (kept,) = watched(network, optimizer=partial(torch.optim.SGD, lr=0.5))
    u, sizes, vh = torch.linalg.svd(average.double(), full_matrices=False)
    assert float(sizes.min()) < 1 - 1e-3  # the average itself is no member
    torch.testing.assert_close(kept.double(), u @ vh, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [plain, seeded, convolutions, lambda: seeded(hold="forward")])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_run_that_stopped_goes_on_as_if_nothing_had_happened(make, loaded, tmp_path):
    def run(stop=None, **options):
        steps = []

        def augment(x, generator):
            steps.append(1)
            if len(steps) == stop:
                raise StopError
            return x + 0.1 * torch.randn(x.shape, generator=generator)

        if loaded:
            generator = torch.Generator().manual_seed(3)
            options |= {"train": DataLoader(TensorDataset(*blobs()), 32, shuffle=True, generator=generator)}
            options |= {"batch_size": None}
        return train(4, make(), augment=augment, tag="a", average=DECAY, **options)

    path = tmp_path / "c.pt"
    with pytest.raises(StopError):
        run(2 * 7 + 3, checkpoint=path)
    network, history = run(checkpoint=path, resume=True)
    whole, expected = run()
    assert without_seconds(history) == without_seconds(expected) and same_weights(network, whole)
    again, same = run(checkpoint=path, resume=True)
    assert same == history and same_weights(again, whole)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.5), (0.5, 0.0), (0.5, 0.6)])
def test_another_average_is_another_run(before, after, tmp_path):
    train(2, checkpoint=tmp_path / "c.pt", average=before)
    with pytest.raises(TightlipError, match="another run, whose average differed"):
        train(2, checkpoint=tmp_path / "c.pt", average=after, resume=True)


def test_checkpoints_without_an_average_hold_nothing_of_one(tmp_path):
    train(2, checkpoint=tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert "average" not in state and "average" not in state["key"]


@pytest.mark.parametrize("wrong", [1.0, -0.1, 1.5, math.nan, math.inf, "0.9", None, True])
def test_what_is_no_decay_is_refused_before_anything_is_trained(wrong):
    network = seeded()
    with pytest.raises(TightlipError, match="average"):
        train(1, network, average=wrong)
    assert same_weights(network, seeded())


def test_a_network_that_cannot_be_copied_is_one_sentence():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies\nof me")

    with pytest.raises(TightlipError, match=r"an average needs a copy .* \(no copies\): leave average out"):
        train(1, nn.Sequential(Stubborn(4, 2)), average=0.5)


def test_numbers_of_numpy_are_numbers():
    network, history = train(2, average=np.float64(DECAY))
    expected, same = train(2, average=DECAY)
    assert without_seconds(history) == without_seconds(same) and same_weights(network, expected)
