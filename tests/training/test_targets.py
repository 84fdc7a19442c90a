"""Outputs and targets meet row by row: (N,) and (N, 1) alike, never each with every other."""

import subprocess
import sys
import warnings

import pytest
import torch
from blobs import half_sum, regress, same_weights, seeded, without_seconds
from torch import nn
from torch.nn import functional

from tightlip import TightlipError, hinge_kantorovich

X, Y = half_sum()
LABELS = (Y > 1).long()


class Flat(nn.Module):
    """A network with outputs (N,)."""

    def __init__(self):
        super().__init__()
        self.inner = seeded(4, 8, 1)

    def forward(self, x):
        return self.inner(x).squeeze(1)


LOSSES = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
    "module": nn.SmoothL1Loss(),
    "by hand": lambda o, y: (o - y).square().mean(),
    "by hand, reversed": lambda o, y: (y - o).abs().mean(),
    "einsum": lambda o, y: torch.einsum("n...,n...->", o - y, o - y) / len(o),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("network", [Flat, lambda: seeded(4, 8, 1)])
def test_vectors_and_columns_are_the_same_training(loss, column, network):
    def once(network, column):
        part = (X, Y[:, None] if column else Y)
        return regress(2, network, loss=LOSSES[loss], train=part, validation=part)

    _, history = once(seeded(4, 8, 1), True)
    _, same = once(network(), column)
    assert [row["loss"] for row in same] == pytest.approx([row["loss"] for row in history], rel=1e-6)
    assert same[-1]["validation_loss"] == pytest.approx(history[-1]["validation_loss"], rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: functional.mse_loss(o.squeeze(1), y),
        lambda o, y: functional.mse_loss(o[:, 0], y),
        lambda o, y: functional.mse_loss(o, y[:, None]),
        lambda o, y: functional.mse_loss(o, y.unsqueeze(-1)),
        lambda o, y: functional.mse_loss(o.flatten(), y.flatten()),
        lambda o, y: (o.squeeze() - y).square().mean(),
    ],
)
def test_losses_that_reshape_by_themselves_are_left_to_it(loss):
    """Targets (N, 1) would make N×N differences of these."""
    _, history = regress(2, loss=loss)
    _, same = regress(2)
    assert [row["validation_loss"] for row in history] == pytest.approx([row["validation_loss"] for row in same])


@pytest.mark.parametrize("labels", [LABELS, 2 * LABELS - 1], ids=["0 and 1", "-1 and 1"])
def test_scores_of_two_classes_may_be_vectors_and_columns(labels):
    histories = [
        regress(2, network(), loss=hinge_kantorovich, train=part, validation=part)[1]
        for network in (Flat, lambda: seeded(4, 8, 1))
        for part in ((X, labels), (X, labels[:, None]))
    ]
    losses = [[row["validation_loss"] for row in history] for history in histories]
    assert all(each == pytest.approx(losses[0], rel=1e-6) for each in losses)


@pytest.mark.parametrize("loss", [functional.binary_cross_entropy_with_logits, functional.huber_loss])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.bool(), LABELS.to(torch.uint8)])
def test_integers_become_numbers_where_a_loss_takes_numbers_alone(loss, labels):
    network, history = regress(2, loss=loss, train=(X, labels), validation=None)
    expected, same = regress(2, loss=loss, train=(X, LABELS.float()[:, None]), validation=None)
    assert same_weights(network, expected)
    assert [row["loss"] for row in history] == [row["loss"] for row in same]


def test_training_and_validation_targets_may_differ_in_a_column():
    history = regress(2, train=(X, Y[:, None]), validation=half_sum(50, 1))[1]
    assert without_seconds(history) == without_seconds(regress(2)[1])


def test_a_loss_of_several_outputs_per_target_is_let_through():
    """Quantiles (N, 3) against numbers (N,); mean and variance (N, 2) against numbers (N,)."""
    levels = torch.tensor([0.1, 0.5, 0.9])

    def quantiles(o, y):
        gap = y[:, None] - o
        return torch.maximum(levels * gap, (levels - 1) * gap).mean()

    def likelihood(o, y):
        return functional.gaussian_nll_loss(o[:, 0], y, o[:, 1].exp())

    assert regress(3, seeded(4, 8, 3), loss=quantiles)[1][-1]["loss"] < 0.5
    assert "validation_loss" in regress(1, seeded(4, 8, 2), loss=likelihood)[1][-1]


@pytest.mark.parametrize(
    ("outputs", "targets", "loss"),
    [
        (3, Y, functional.mse_loss),
        (3, Y[:, None], functional.mse_loss),
        (3, X[:, :2], functional.mse_loss),
        (3, X[:, :2], lambda o, y: (o - y).square().mean()),
        (3, Y, lambda o, y: (o - y).square().mean()),
        (5, Y, lambda o, y: (o - y).square().mean()),
        (1, X, functional.mse_loss),
        (2, Y, functional.cross_entropy),
        (1, LABELS, functional.cross_entropy),
        (1, Y, lambda o, y: (o.reshape(-1, 1) - y.reshape(-1)).square().mean()),
    ],
)
def test_shapes_that_do_not_fit_are_one_sentence(outputs, targets, loss):
    with pytest.raises(TightlipError, match=r"the loss cannot compare outputs \(N, \d\) of .* with targets") as caught:
        regress(1, seeded(4, 8, outputs), loss=loss, train=(X, targets), validation=None)
    assert "\n" not in str(caught.value) and "give numbers of the outputs' shape" in str(caught.value)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_as_many_rows_as_outputs_hide_nothing(rows):
    with pytest.raises(TightlipError, match="the loss cannot compare"):
        regress(
            1, seeded(4, 8, 3), loss=lambda o, y: (o - y).square().mean(), train=(X[:rows], Y[:rows]), validation=None
        )


def test_a_batch_of_one_does_not_hide_the_shape_from_validation():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 1)
    network, history = regress(1, train=loader, batch_size=None, loss=LOSSES["by hand"])
    x, y = half_sum(50, 1)
    assert history[0]["validation_loss"] == pytest.approx((network(x)[:, 0] - y).square().mean().item(), rel=1e-5)


def test_no_warning_of_torchs_about_sizes_reaches_the_caller():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regress(1)


MEMORY = """
import resource, torch, tightlip
torch.set_num_threads(1)
x = torch.rand(20_000, 4)
y = x.sum(1) / 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for loss in (torch.nn.functional.mse_loss, lambda o, t: (o - t).abs().mean()):
    network = tightlip.mlp([4, 8, 1])
    options = {"score": lambda f, x, y: -float((f(x)[:, 0] - y).abs().mean()), "progress": False}
    tightlip.fit(network, loss, (x, y), (x, y), epochs=1, batch_size=20_000, **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource")
def test_twenty_thousand_rows_make_no_table_of_all_pairs():
    """20,000² float32 numbers are 1.6 GB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2e8
