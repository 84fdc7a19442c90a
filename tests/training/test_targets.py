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
from tightlip.training import accuracy

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


PAIRS = {
    "outputs without their column": (False, lambda o, y: (o.squeeze(1) - y).abs().mean()),
    "outputs as a column": (True, lambda o, y: functional.mse_loss(o[:, None], y)),
    "both ways": (True, lambda o, y: torch.where(o[:, None] > y, o[:, None], y).mean()),
    "products": (True, lambda o, y: -(o[:, None] * y).mean()),
}


@pytest.mark.parametrize(("vectors", "loss"), PAIRS.values(), ids=PAIRS)
def test_where_shapes_agree_and_the_loss_changes_one_the_targets_follow(vectors, loss):
    network, y = (Flat(), Y) if vectors else (seeded(4, 8, 1), Y[:, None])
    seen = []

    def watched(outputs, targets):
        seen.append(targets.shape)
        return loss(outputs, targets)

    regress(1, network, loss=watched, train=(X, y), validation=(X, y))
    assert seen[-1] == ((200, 1) if vectors else (200,))


@pytest.mark.parametrize(
    ("network", "y", "loss"),
    [
        (lambda: seeded(4, 8, 1), Y[:, None], lambda o, y: (o - y.squeeze(1)).square().mean()),
        (Flat, Y, lambda o, y: (o - y[:, None]).square().mean()),
        (lambda: seeded(4, 8, 1), Y, lambda o, y: functional.mse_loss(o, y) + (o.reshape(-1, 1) - y.flatten()).mean()),
        (lambda: seeded(4, 8, 3), LABELS, lambda o, y: functional.cross_entropy(o, y) + (o[:, :1] - y).mean()),
    ],
    ids=["columns", "vectors", "a part", "labels"],
)
def test_shapes_that_agree_hide_no_table_of_all_pairs(network, y, loss):
    with pytest.raises(TightlipError, match="the loss cannot compare .* every output with every target"):
        regress(1, network(), loss=loss, train=(X, y), validation=None)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: ((y[:, None] == y).float() * (o @ o.T)).mean(),
        lambda o, y: torch.cdist(o, o)[y.expand(len(y), len(y)) == y.expand(len(y), len(y)).T].mean(),
        lambda o, y: functional.cross_entropy(o @ o.detach().T, torch.arange(len(y))),
        lambda o, y: functional.softplus(o[:, 0] - o[:, :1])[y < y[:, None]].mean(),
    ],
    ids=["contrastive", "triplets", "its own rows", "ranks"],
)
def test_losses_of_pairs_of_outputs_are_let_through(loss):
    assert "loss" in regress(1, seeded(4, 8, 2), loss=loss, train=(X, LABELS), validation=None)[1][0]


@pytest.mark.parametrize("classes", [2, 5, 8])
@pytest.mark.parametrize("labels", [torch.arange(200), torch.arange(200)[:, None], torch.arange(200).to(torch.uint8)])
@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), functional.l1_loss, functional.binary_cross_entropy_with_logits, LOSSES["by hand"]]
)
def test_classes_are_not_compared_with_every_output(classes, labels, loss):
    """Batches of as many rows as classes, where torch would broadcast without an error."""
    with pytest.raises(TightlipError, match="the loss cannot compare outputs .*classes need a loss such as cross_ent"):
        regress(1, seeded(4, 8, classes), loss=loss, train=(X, labels % classes), validation=None, batch_size=classes)


@pytest.mark.parametrize("loss", [nn.MSELoss(reduction="none"), lambda o, y: (o - y).square().mean(1)])
@pytest.mark.parametrize("batch_size", [1, 200])
def test_a_loss_of_each_example_is_refused_whatever_the_batch(loss, batch_size):
    with pytest.raises(TightlipError, match=r"a loss is one number, got shape \(\d"):
        regress(1, seeded(4, 8, 3), loss=loss, batch_size=batch_size, train=(X, X[:, :3]), validation=None)


def test_metrics_get_targets_in_the_form_in_which_they_compare_row_with_row():
    metrics = {
        "columns": lambda o, y: (o - y).square().mean(),
        "vectors": lambda o, y: (o.squeeze(1) - y).square().mean(),
        "by themselves": lambda o, y: (o[:, 0] - y[:, 0]).square().mean(),
        "numpy": lambda o, y: ((o.numpy().ravel() - y.numpy().ravel()) ** 2).mean(),
    }
    network, history = regress(1, metrics=metrics)
    x, y = half_sum(50, 1)
    # a mean of sizes would be the same over all pairs, where no output is as large as any target
    expected = pytest.approx((network(x)[:, 0] - y).square().mean().item(), rel=1e-5)
    assert [history[0][f"validation_{name}"] for name in metrics] == 4 * [expected]


@pytest.mark.parametrize("metric", [functional.mse_loss, lambda o, y: (o[:, 0] - y[:, None]).abs().mean()])
def test_metrics_that_compare_all_pairs_are_refused_before_anything_is_trained(metric):
    network = seeded(4, 8, 3)
    with pytest.raises(TightlipError, match="the metric own cannot be measured on outputs .*: let it reshape"):
        regress(
            1,
            network,
            loss=functional.cross_entropy,
            train=(X, LABELS),
            validation=(X, LABELS),
            metrics={"own": metric},
        )
    assert same_weights(network, seeded(4, 8, 3))


@pytest.mark.parametrize(
    "score", [lambda f, x, y: -(f(x) - y).abs().mean(), lambda f, x, y: -functional.mse_loss(f(x), y)]
)
def test_a_score_that_compares_all_pairs_is_refused(score):
    with pytest.raises(TightlipError, match=r"the score does not fit .*, since targets are \(50,\): let it bring"):
        regress(1, score=score)


def test_later_batches_have_the_form_of_the_first():
    """A loader may give targets (N, 1) first and (N,) then, which a loss by hand would make N×N of."""
    batches = [(X[:8], Y[:8, None]), (X[:8], Y[:8])]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    with pytest.raises(TightlipError, match=r"a batch has targets \(N\) of .*, and the first ones were \(N, 1\)"):
        regress(1, train=loader, batch_size=None, loss=LOSSES["by hand"], validation=None)


@pytest.mark.parametrize(
    ("outputs", "labels"), [(1, LABELS), (1, Y), (2, Y), (2, LABELS[:5]), (2, torch.eye(2)[LABELS]), (3, X[:, :3])]
)
def test_accuracy_is_of_logits_and_labels(outputs, labels):
    with pytest.raises(TightlipError, match="accuracy compares logits .*: measure numbers by a loss"):
        accuracy(seeded(4, 8, outputs), X, labels)


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
