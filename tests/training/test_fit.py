"""`fit`: learns with any loss, repeats itself bit for bit, keeps the best epoch, and refuses what it cannot train."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from blobs import blobs, half_sum, regress, same_weights, seeded, train, without_seconds
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tightlip import (
    Orthonormal,
    TightlipError,
    fit,
    freeze,
    hinge_kantorovich,
    lipschitz,
    mlp,
    multiclass_hinge,
    multiclass_hinge_kantorovich,
    pgd,
)
from tightlip.training import accuracy, predict

OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=1e-2),
    "AdamW": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=0.2, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=3e-3),
}
STILL = partial(torch.optim.SGD, lr=0.0)


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(network, weights):
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("hold", ["step", "forward"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_learns_with_any_optimizer_and_either_hold(optimizer, hold):
    network, history = train(5, seeded(hold=hold), optimizer=OPTIMIZERS[optimizer])
    assert accuracy(network, *blobs(500, seed=2)) > 0.95
    assert history[-1]["loss"] < history[0]["loss"]
    assert lipschitz(freeze(network), 2).constant <= 1.0
    for layer in network[::2]:
        assert Orthonormal().contains(layer.weight.detach())


def test_unconstrained_networks_train_too():
    torch.manual_seed(0)
    network, _ = train(5, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert accuracy(network, *blobs(500, seed=2)) > 0.95


# ---------------------------------------------------------------------------------------------------------- history


def test_history_has_a_complete_row_per_epoch():
    _, history = train(3)
    keys = {"epoch", "loss", "train_accuracy", "validation_accuracy", "validation_loss", "validation_score"}
    assert all(set(row) == keys | {"learning_rate", "seconds"} for row in history)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    rates = [row["learning_rate"] for row in history]
    assert rates[0] > rates[1] > rates[2] == pytest.approx(0.0, abs=1e-9)
    assert all(0 <= row["train_accuracy"] <= 1 and row["seconds"] > 0 for row in history)


def test_loss_and_accuracy_in_the_history_are_means_over_examples():
    """With a learning rate of zero they must be those of the network as it was, also with a smaller last batch."""
    torch.manual_seed(0)
    network, (row,) = train(1, nn.Linear(4, 2), optimizer=STILL, batch_size=64)
    x, y = blobs()
    assert row["loss"] == pytest.approx(functional.cross_entropy(network(x), y).item(), rel=1e-5)
    assert row["train_accuracy"] == accuracy(network, x, y)
    held_out = blobs(50, seed=1)
    assert row["validation_accuracy"] == row["validation_score"] == accuracy(network, *held_out)
    assert row["validation_loss"] == functional.cross_entropy(network(held_out[0]), held_out[1]).item()


@pytest.mark.parametrize("column", [False, True])
def test_regression_is_scored_by_its_loss_and_ends_with_the_best_epoch(column):
    """On the commit before, the accuracy of floats was 0 in every epoch, and the first one stayed."""
    x, y = half_sum(600)
    part = (x, y[:, None] if column else y)
    network, history = regress(12, train=part, validation=part, optimizer=OPTIMIZERS["SGD"])
    losses = [row["validation_loss"] for row in history]
    assert functional.mse_loss(network(x)[:, 0], y).item() == pytest.approx(min(losses), rel=1e-6)
    assert min(losses) < losses[0] / 5
    assert all(row["validation_score"] == -row["validation_loss"] for row in history)
    assert not any("accuracy" in name for name in history[0])


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "applies"),
    [
        (functional.cross_entropy, 3, torch.arange(60) % 3, True),
        (functional.cross_entropy, 3, (torch.arange(60) % 3)[:, None], True),
        (functional.cross_entropy, 3, torch.eye(3)[torch.arange(60) % 3], False),
        (multiclass_hinge_kantorovich, 3, torch.arange(60) % 3, True),
        (partial(multiclass_hinge, kappa=0.1), 3, torch.arange(60) % 2, True),
        (hinge_kantorovich, 1, torch.arange(60) % 2, False),
        (functional.binary_cross_entropy_with_logits, 1, torch.arange(60) % 2, False),
        (functional.binary_cross_entropy_with_logits, 3, torch.ones(60, 3, dtype=torch.int64), False),
        (lambda o, y: functional.poisson_nll_loss(o.sum(1), y), 2, torch.arange(60), False),
        (functional.mse_loss, 3, torch.rand(60, 3), False),
    ],
    ids=["labels", "column", "soft", "hkr", "hinge", "one score", "bce", "several labels", "counts", "numbers"],
)
def test_accuracy_is_measured_where_targets_are_labels_of_logits_and_nowhere_else(loss, outputs, targets, applies):
    part = torch.rand(60, 4), targets
    _, (row,) = train(1, seeded(4, 8, outputs), loss=loss, train=part, validation=part)
    assert ("train_accuracy" in row, "validation_accuracy" in row) == (applies, applies)
    assert row["validation_score"] == (row["validation_accuracy"] if applies else -row["validation_loss"])


def test_accuracy_counts_every_place_of_an_image():
    torch.manual_seed(0)
    x, y = torch.rand(10, 1, 3, 3), torch.randint(0, 2, (10, 3, 3))
    network, (row,) = train(1, nn.Conv2d(1, 2, 1), train=(x, y), validation=(x, y), optimizer=STILL)
    expected = (network(x).argmax(1) == y).double().mean().item()
    assert row["train_accuracy"] == pytest.approx(expected) and row["validation_accuracy"] == expected


def test_metrics_of_ones_own_see_outputs_and_targets_in_one_shape():
    seen = []

    def error(outputs, targets):
        seen.append((outputs.shape, targets.shape, torch.is_grad_enabled()))
        return (outputs - targets).abs().max()

    network, history = regress(2, metrics={"worst": error})
    x, y = half_sum(50, 1)
    assert history[-1]["validation_worst"] == pytest.approx((network(x)[:, 0] - y).abs().max().item(), rel=1e-5)
    assert seen[1:] == 2 * [((50, 1), (50, 1), False)]  # after a try on a few rows


# --------------------------------------------------------------------------------------------------- the best epoch


@pytest.mark.parametrize("scores", [[0.1, 0.9, 0.5, 0.9, 0.2], [0.5, 0.5, 0.4, 0.5, 0.1], [-math.inf] * 5])
def test_the_best_epoch_by_validation_remains_and_of_equals_the_later(scores):
    weights = []

    def score(network, x, y):
        assert not torch.is_grad_enabled() and not network.training
        weights.append(weights_of(network))
        return scores[len(weights) - 1]

    network, history = train(5, score=score)
    assert [row["validation_score"] for row in history] == scores
    best = max(range(5), key=lambda i: (scores[i], i))
    assert equal(network, weights[best]) and not equal(network, weights[best - 1])
    assert not network.training


@pytest.mark.parametrize("bad", [math.nan, torch.tensor(math.nan), None, "high", torch.ones(2)])
def test_a_score_that_is_not_a_number_is_an_error(bad, tmp_path):
    calls = []

    def score(network, x, y):
        calls.append(1)
        return bad if len(calls) == 3 else 0.5

    with pytest.raises(TightlipError, match="score is NaN|score must be a number"):
        train(5, score=score, checkpoint=tmp_path / "c.pt", tag="score")
    assert len(torch.load(tmp_path / "c.pt")["history"]) == 2


def test_without_validation_data_the_last_epoch_stays():
    network, history = train(4, validation=None, optimizer=OPTIMIZERS["SGD"])
    assert {"validation_loss", "validation_score"}.isdisjoint(history[0]) and "train_accuracy" in history[0]
    other, _ = train(4, optimizer=OPTIMIZERS["SGD"], score=lambda *_: 0.0)  # ties: the last one
    assert same_weights(network, other)


# ------------------------------------------------------------------------------------------------------- randomness


def test_the_same_seed_repeats_itself_bit_for_bit_whatever_the_global_state():
    first, history = train(3, seed=5)
    network = seeded()
    torch.manual_seed(99)
    second, again = train(3, network, seed=5)
    assert without_seconds(history) == without_seconds(again) and same_weights(first, second)
    assert without_seconds(train(3, seed=6)[1]) != without_seconds(history)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(7)
    network = mlp([4, 8, 2])
    before = torch.random.get_rng_state()
    train(2, network, score=lambda *_: torch.rand(()).item())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_networks_own_randomness_is_seeded():
    def once(global_seed):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.manual_seed(global_seed)
        return train(2, network)[1]

    assert without_seconds(once(1)) == without_seconds(once(2))


# ------------------------------------------------------------------------------------------ augmentation, adversary


def test_augment_sees_every_training_batch_and_no_validation_data():
    seen = []

    def augment(x, generator):
        seen.append(len(x))
        return x + torch.randn(x.shape, generator=generator)

    first = train(2, augment=augment)[1]
    assert seen == 2 * [32, 32, 32, 32, 32, 32, 8]
    assert without_seconds(first) == without_seconds(train(2, augment=augment)[1])
    assert without_seconds(first) != without_seconds(train(2)[1])


def test_an_adversary_sees_the_network_in_eval_mode_and_what_it_returns_is_trained_on():
    seen, trained_on = [], []

    class Remembers(nn.Linear):
        def forward(self, x):
            if self.training:
                trained_on.append(x.clone())
            return super().forward(x)

    def adversary(network, x, y):
        seen.append((network, network.training, torch.is_grad_enabled(), x.shape, y.shape))
        return x + 100

    torch.manual_seed(0)
    network = Remembers(4, 2)
    train(1, network, adversary=adversary, augment=lambda x, g: torch.zeros_like(x))
    assert [(n is network, *rest) for n, *rest in seen[:2]] == 2 * [(True, False, True, (32, 4), (32,))]
    assert all(bool((x == 100).all()) for x in trained_on) and len(trained_on) == 7


@pytest.mark.parametrize("network", [partial(seeded), partial(seeded, hold="forward"), partial(nn.Linear, 4, 2)])
def test_gradients_that_an_adversary_leaves_do_not_count(network):
    def dirty(network, x, y):
        x.requires_grad_()
        functional.cross_entropy(network(x), y).backward()
        return x

    def once(adversary):
        torch.manual_seed(0)
        return train(2, network(), adversary=adversary)[0]

    plain = once(None)
    assert same_weights(plain, once(dirty))
    assert same_weights(plain, once(partial(pgd, eps=0.0, steps=2, restarts=2, clamp=None)))


def test_training_on_attacks_is_another_training():
    attack = partial(pgd, eps=1.0, steps=3, restarts=1, clamp=None)
    robust, plain = (train(5, adversary=adversary, optimizer=OPTIMIZERS["Adam"])[0] for adversary in (attack, None))
    x, y = blobs(200, seed=3)
    loss = [functional.cross_entropy(n(attack(n, x, y)), y).item() for n in (robust, plain)]
    assert loss[0] < loss[1]


@pytest.mark.parametrize("name", ["augment", "adversary"])
@pytest.mark.parametrize("made", [None, torch.ones(3, 4)])
def test_inputs_that_no_batch_has_are_refused(name, made):
    with pytest.raises(TightlipError, match=f"{name} must return inputs for all 32 examples"):
        train(1, **{name: lambda *_: made})


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_before_the_step_and_keeps_the_earlier_checkpoint(bad, constrained, tmp_path):
    steps, weights = [], []

    def loss(outputs, y):
        steps.append(outputs.requires_grad)
        if sum(steps) <= 2 * 7 + 3:  # until step 3 of epoch 3
            return functional.cross_entropy(outputs, y)
        weights.append(weights_of(network))
        return functional.cross_entropy(outputs, y) * bad

    network = seeded() if constrained else nn.Linear(4, 2)
    with pytest.raises(TightlipError, match=rf"{bad} .*NaN.* at step 3 of epoch 3"):
        train(5, network, loss=loss, checkpoint=tmp_path / "c.pt", tag="loss")
    assert len(torch.load(tmp_path / "c.pt")["history"]) == 2
    assert equal(network, weights[0])


@pytest.mark.parametrize("epochs", [0, -1, 2.5, True])
def test_epochs_that_train_nothing_are_refused(epochs):
    with pytest.raises(TightlipError, match="epochs must be an integer ≥ 1, got"):
        train(**{"epochs": epochs})


@pytest.mark.parametrize("batch_size", [0, -5])
def test_batches_that_train_nothing_are_refused(batch_size):
    with pytest.raises(TightlipError, match="batch_size must be an integer ≥ 1, got"):
        train(batch_size=batch_size)


class Says(nn.Module):
    """A network that returns what it is told to."""

    def __init__(self, says):
        super().__init__()
        self.linear, self.says = nn.Linear(4, 2), says

    def forward(self, x):
        return self.says(self.linear(x))


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (lambda y: {"logits": y}, "must return one tensor .*got a dict"),
        (lambda y: (y, y), "must return one tensor .*got a tuple"),
        (lambda y: y.sum(), "must return one tensor .*got a number"),
        (lambda y: y.mean(0, keepdim=True), "makes 1 outputs of 8 inputs"),
    ],
)
def test_networks_that_do_not_return_a_row_per_example_are_refused(says, sentence):
    with pytest.raises(TightlipError, match=sentence):
        train(1, Says(says))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optimizer": torch.optim.Adam([torch.zeros(1, requires_grad=True)])}, "optimizer is made by fit"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS evaluates between its own steps"),
        ({"schedule": lambda o, n: torch.optim.lr_scheduler.ReduceLROnPlateau(o)}, "ReduceLROnPlateau waits"),
        ({"loss": nn.MSELoss}, "the class MSELoss: give these first, made"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, r"a loss is one number, got shape \(5,\)"),
        ({"loss": lambda o, y: o.detach().mean()}, "the loss has no gradient"),
        ({"loss": lambda o, y: 1.0}, "a loss is one number, got type float"),
        ({"network": nn.Linear(4, 2).requires_grad_(False)}, "no weight of the network trains"),
        ({"metrics": {"loss": lambda o, y: 1.0}}, "metrics may not be called"),
        ({"metrics": {"own": lambda o, y: "good"}}, "the metric own must be a number"),
        ({"validation": None, "score": accuracy}, "score is measured on validation data"),
        ({"validation": None, "metrics": {"own": max}}, "metrics is measured on validation data"),
    ],
)
def test_options_that_fit_nothing_are_one_sentence(options, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        train(**({"epochs": 1} | options))
    assert "\n" not in str(caught.value)


MADE = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "cdua"}, r"device 'cdua' is not available here \(did you mean cuda\?\): give 'cpu', or"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available here"),
        ({"device": "meta"}, "device 'meta' is not available here"),
        ({"device": None}, "device None is not available here"),
        ({"seed": 1.5}, "seed must be an integer from 0 to 4294967295, got 1.5"),
        ({"seed": "1"}, "seed must be an integer from 0"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"seed": 2**70}, "seed must be an integer from 0"),
        ({"seed": True}, "seed must be an integer from 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer ≥ 1"),
        ({"resume": "no"}, "resume must be True or False, got 'no'"),
        ({"progress": "off"}, "progress must be True or False, got 'off'"),
        ({"tag": 5}, "tag must be a str, .* got 5"),
        ({"checkpoint": 5}, "checkpoint must be a path, got a int"),
        ({"optimizer": "adam"}, "optimizer is made by fit from the parameters, got a str"),
        ({"optimizer": lambda p: None}, "optimizer must make one of torch's optimizers .*, and made a NoneType"),
        ({"optimizer": lambda p: MADE}, "the optimizer that was made has no weight of this network"),
        ({"optimizer": partial(torch.optim.Adam, lr=-1)}, "optimizer cannot be made .*Invalid learning rate: -1"),
        ({"optimizer": lambda: 1}, "optimizer cannot be made from the parameters"),
        ({"schedule": 5}, "schedule is made by fit .* got a int"),
        ({"schedule": lambda o, n: None}, "schedule must make a scheduler of torch's .* and made a NoneType"),
        ({"schedule": lambda o, n: torch.optim.lr_scheduler.StepLR(MADE, n)}, "for the optimizer that it is given"),
        ({"schedule": torch.optim.lr_scheduler.MultiStepLR}, "schedule cannot be made from the optimizer and 7 steps"),
        ({"metrics": 5}, "metrics must be a dictionary"),
        ({"metrics": {1: max}}, "metrics must be a dictionary"),
        ({"loss": lambda o: o.mean()}, r"loss must be a function of \(outputs, targets\)"),
    ],
)
def test_settings_of_other_kinds_are_one_sentence_before_anything_is_trained(options, sentence):
    network = seeded().train()
    with pytest.raises(TightlipError, match=sentence) as caught:
        train(**({"epochs": 1, "network": network} | options))
    assert "\n" not in str(caught.value) and same_weights(network, seeded()) and network.training


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence():
    with pytest.raises(TightlipError, match="device 'cuda' is not available here: give 'cpu', or 'cuda' where there"):
        train(1, device="cuda")


def test_integers_of_numpy_are_integers():
    history = train(np.int64(2), seed=np.int32(5), batch_size=np.int64(32))[1]
    assert without_seconds(history) == without_seconds(train(2, seed=5)[1])


def test_weights_that_no_checkpoint_would_keep_are_refused(tmp_path):
    more = nn.Parameter(torch.zeros(1))

    def make(weights):
        return torch.optim.SGD([*weights, more], lr=0.1)

    train(1, optimizer=make)
    with pytest.raises(TightlipError, match="weights that are not the network's, which no checkpoint would keep"):
        train(1, optimizer=make, checkpoint=tmp_path / "c.pt")


FEATURES = blobs()[0]


IMAGES = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("where", ["training", "validation"])
@pytest.mark.parametrize(
    ("network", "fitting", "x", "sentence"),
    [
        (seeded(), (4,), FEATURES[:, :3], "it was made for 4 values per input, these have 3"),
        (seeded(), (4,), FEATURES[:, 0], r".* where each is one number, give x\[:, None\]"),
        (nn.Linear(8, 8), (8,), FEATURES[:, 0], r".* where each is one number, give x\[:, None\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), (1,), FEATURES[:, 0], r".* give x\[:, None\]"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), (4,), FEATURES[:, :3], "running_mean should"),
        (IMAGES, (3, 2, 2), FEATURES.reshape(200, 1, 2, 2), r".*3 channels.* \(of 8 of them\)"),
    ],
)
@pytest.mark.parametrize("form", [tuple, lambda part: DataLoader(TensorDataset(*part), 16)], ids=["tensors", "loader"])
def test_inputs_that_do_not_fit_are_named_with_all_their_rows(where, network, fitting, x, sentence, form):
    labels = blobs()[1]
    right, wrong = form((torch.rand(200, *fitting), labels)), form((x, labels))
    parts = {"train": wrong} if where == "training" else {"train": right, "validation": wrong}
    shape = re.escape(str(tuple(x.shape)))
    with pytest.raises(TightlipError, match=f"the {where} inputs of shape {shape} do not fit the network: {sentence}"):
        train(1, network, batch_size=None, **parts)


def test_networks_that_take_one_number_each_are_let_through():
    class Column(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 2)

        def forward(self, x):
            return self.inner(x[:, None])

    part = FEATURES[:, 0], blobs()[1]
    assert "loss" in train(1, Column(), train=part, validation=part)[1][0]


@pytest.mark.parametrize("name", ["augment", "adversary"])
@pytest.mark.parametrize("change", [lambda x: x[:, :3], lambda x: x.double()])
def test_inputs_that_were_changed_and_do_not_fit_are_one_sentence(name, change):
    changes = {"augment": lambda x, g: change(x), "adversary": lambda n, x, y: change(x)}
    with pytest.raises(TightlipError, match=r"inputs of shape \(32, \d\) do not fit the network"):
        train(1, **{name: changes[name]})


def test_no_schedule_keeps_the_rate():
    _, history = train(2, schedule=None)
    assert [row["learning_rate"] for row in history] == [2e-3, 2e-3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": (blobs()[0], blobs()[1] + 7)},
        {"validation": (blobs()[0], blobs()[1] + 7)},
        {"validation": (blobs()[0][:, :3], blobs()[1])},
        {"validation": (blobs()[0].fill_(math.nan), blobs()[1])},
        {"validation": half_sum()},
    ],
    ids=["labels", "validation labels", "features", "nan", "targets"],
)
def test_what_is_wrong_with_the_data_is_said_before_anything_is_trained(wrong):
    network = seeded().train()
    before = weights_of(network)
    with pytest.raises(TightlipError, match="out of bounds|do not fit the network|NaN|give both parts one form"):
        train(1, network, **wrong)
    assert equal(network, before) and network.training and network[0].training


def test_labels_that_the_loss_ignores_are_let_through():
    x, y = blobs()
    y = torch.where(torch.arange(len(y)) % 5 == 0, -100, y)
    _, (row,) = train(1, train=(x, y))
    assert "train_accuracy" not in row and row["validation_score"] == -row["validation_loss"]


# ---------------------------------------------------------------------------------------------------------- predict


def test_predict_gives_the_same_in_batches_and_no_gradients():
    network, x = nn.Linear(4, 2), blobs()[0]
    assert torch.allclose(predict(network, x, batch_size=7), network(x).detach(), atol=1e-6)
    assert not predict(network, x).requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_it_trains_on_a_gpu():
    network, _ = train(5, device="cuda")
    x, y = blobs(500, seed=2)
    assert accuracy(network, x.cuda(), y.cuda()) > 0.95
    network, history = regress(2, device="cuda", adversary=lambda n, x, y: x)
    assert "validation_loss" in history[-1]


def test_fit_is_eight_lines_for_regression():
    torch.manual_seed(0)
    x = torch.rand(600, 4)
    y = x.sum(1, keepdim=True) / 2
    net = mlp([4, 32, 32, 1])
    rows = fit(net, functional.mse_loss, (x, y), (x, y), epochs=30, progress=False)
    error = (net(x) - y).square().mean().item()
    assert error == pytest.approx(min(row["validation_loss"] for row in rows), rel=1e-6)
    assert error < 0.01


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_is_refused_in_a_sentence(off):
    with off(), pytest.raises(TightlipError, match="gradients are switched off here"):
        fit(nn.Linear(2, 1), nn.MSELoss(), (torch.ones(8, 2), torch.ones(8, 1)), epochs=1)


@pytest.mark.parametrize("where", [0, 1])
def test_complex_numbers_are_refused_and_not_cut_down_to_integers(where):
    data = [torch.randn(16, 2), torch.randn(16, 1)]
    data[where] = data[where].to(torch.complex64)
    for given in (tuple(data), torch.utils.data.DataLoader(list(zip(*data, strict=True)), 4)):
        with pytest.raises(TightlipError, match="real numbers"):
            fit(nn.Linear(2, 1), nn.MSELoss(), given, epochs=1)
