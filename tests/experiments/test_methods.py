"""Each training method is what its entry says: its layers, its loss, its optimizer, its adversary and its penalty."""

import copy
import math
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import (
    AggMo,
    LinfDistance,
    MaxMin,
    Orthonormal,
    Parseval,
    Prototypes,
    RowDualBall,
    RowL1Ball,
    SpectralBall,
    TightlipError,
    certify,
    emma_cross_entropy,
    fit,
    freeze,
    jacobian_spectral_penalty,
    lipschitz,
    margin_cross_entropy,
    multiclass_hinge,
    multiclass_hinge_kantorovich,
)
from tightlip.constraints import constraint_of
from tightlip.data import Part
from tightlip.experiments import certified_run
from tightlip.experiments.architectures import ARCHITECTURES
from tightlip.experiments.classification_options import OF_METHODS, Config, Recipe, check
from tightlip.experiments.margin_losses import LOSSES, TEMPERED
from tightlip.experiments.methods import METHODS, Penalized, box_of, fitting, owners, standing

ASKED = {"k": 1.0, "offset": 0.8, "temperature": 0.25, "loss": "cross_entropy"}
FREE = ("standard", "dropout", "weight_decay", "pgd", "gradient_penalty", "jacobian_penalty")
SETS = {
    "spectral": SpectralBall,
    "parseval": Parseval,
    "orthonormal": Orthonormal,
    "row_l1": RowL1Ball,
    "row_l1_margin": RowL1Ball,
}
OPTIONS = {"k": 2.0, "offset": 0.3, "temperature": 0.5, "a": 0.2, "dropout": 0.1, "weight_decay": 0.2, "penalty": 3.0}
OPTIONS |= {"train_eps": 0.1, "train_steps": 2, "loss": "emma", "last_layer": "rows"}


@pytest.fixture
def part():
    """Three classes of 8 × 8 images."""
    torch.manual_seed(0)
    return Part(torch.rand(30, 1, 8, 8), torch.arange(30) % 3)


def made(config, box=None):
    return fitting(config.trained_by, nn.Linear(2, 2), config.settings, config.rate, config.p, box)


def logits():
    torch.manual_seed(1)
    return torch.randn(6, 3), torch.arange(6) % 3


def test_the_defaults_are_the_papers_for_each_norm():
    two, inf = Config(), Config(norm="inf")
    assert (two.way, two.rate, two.settings) == ("orthonormal", 2e-3, ASKED | {"last_layer": "orthonormal"})
    assert (inf.way, inf.rate, inf.settings) == ("row_l1", 3.3e-3, {"k": 1000.0, "a": 0.1})
    assert type(made(inf)["optimizer"]([nn.Parameter(torch.ones(1))])) is AggMo
    assert (inf.radius, Config(norm="inf", a=0.3).radius, two.radius) == (0.05, 0.15, 0.3)
    assert Config(offset=0.0).settings["offset"] == 0.0  # given, not absent


def test_every_option_of_a_method_is_one_of_a_run_and_has_a_value_here():
    assert set(OF_METHODS) == set(OPTIONS) <= {field.name for field in fields(Recipe)}
    assert all(getattr(Config(), name) is None for name in OF_METHODS)
    assert [name for name, method in METHODS.items() if method.norm is None] == list(FREE)
    assert set(METHODS) == {*FREE, *SETS, "distances"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("option", OPTIONS)
def test_options_are_used_where_they_belong_and_refused_elsewhere(method, option):
    config = Config(method=method, **{option: OPTIONS[option]})
    if option in METHODS[method].defaults:
        check(config)
        assert config.settings[option] == config.resolved[option] == OPTIONS[option] != METHODS[method].defaults[option]
    else:
        assert method not in owners(option)
        with pytest.raises(TightlipError, match=rf"{option} belongs to .*, and this is {method}: leave it out"):
            check(config)
        assert Config(method=method).resolved[option] is None


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("dropout", {"dropout": 1.0}),
        ("dropout", {"dropout": -0.1}),
        ("weight_decay", {"weight_decay": -1.0}),
        ("jacobian_penalty", {"penalty": -1.0}),
        ("pgd", {"train_eps": -0.1}),
        ("pgd", {"train_steps": 0}),
        ("orthonormal", {"temperature": 0.0}),
        ("row_l1", {"k": 0.0}),
        ("row_l1", {"a": -0.1}),
        ("spectral", {"offset": float("nan")}),
    ],
)
def test_impossible_strengths_are_refused(method, wrong):
    with pytest.raises(TightlipError, match=f"{next(iter(wrong))}=.* is impossible: it must be"):
        check(Config(method=method, **wrong))


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(TightlipError, match=r"no method is called 'orthonrmal' \(did you mean orthonormal\?\)"):
        check(Config(method="orthonrmal"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ARCHITECTURES)
def test_layers_are_on_the_set_of_the_method_or_free(method, network, part):
    if network != "mlp" and method == "parseval":
        pytest.skip("the pull is known for matrices")
    if METHODS[method].own is not None:
        pytest.skip("it has layers of its own")
    images = {"network": network, "channels": (4,), "patch": 2} if network != "mlp" else {}
    built = certified_run.build(Config(method=method, hidden=(8, 6), **images), part, 3)
    layers = [layer for layer in built.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert len(layers) >= 3 and built(part.images).shape == (30, 3)
    assert {type(constraint_of(layer)) for layer in layers} == {SETS.get(method, type(None))}
    assert all(weight.requires_grad for weight in built.parameters()) and built.training
    dropped = [layer.p for layer in built.modules() if isinstance(layer, nn.Dropout)]
    activations = sum(isinstance(layer, MaxMin) for layer in built.modules())
    assert dropped == ([0.2, *[0.5] * activations] if method == "dropout" else [])


def test_the_last_layer_may_have_rows_of_length_1_and_pairs_are_then_bounded_by_their_difference(part):
    rows = certified_run.build(Config(last_layer="rows", hidden=(8, 6)), part, 3)
    kinds = [type(constraint_of(layer)) for layer in rows.modules() if isinstance(layer, nn.Linear)]
    assert kinds == [Orthonormal, Orthonormal, RowDualBall]
    frozen = freeze(rows)
    weight = [layer for layer in frozen.modules() if isinstance(layer, nn.Linear)][-1].weight.double()
    assert weight.norm(dim=1).max() <= 1 + 1e-6
    certificate = certify(frozen, part.images, part.labels, 2)
    logits = frozen(part.images).double()
    gaps = (weight[:, None] - weight[None]).norm(dim=2)
    for row, label, radius in zip(logits, part.labels, certificate.radius, strict=True):
        others = [j for j in range(3) if j != label]
        exact = min(float((row[label] - row[j]) / gaps[label, j]) for j in others)
        assert float(radius) == pytest.approx(exact if row.argmax() == label else 0.0, rel=1e-3, abs=1e-4) or exact < 0
    with pytest.raises(TightlipError, match="no last layer is called 'rwos'"):
        check(Config(last_layer="rwos"))


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_the_last_layer_may_be_prototypes_which_begin_at_what_the_network_makes_of_examples(part, network):
    stages = {"network": "convnet", "channels": (4,), "depth": 1}
    sizes = {"hidden": (8, 6)} if network == "mlp" else {**stages, "hidden": (6,)}
    built = certified_run.build(Config(last_layer="prototypes", **sizes), part, 3)
    (layer,) = (layer for layer in built.modules() if isinstance(layer, Prototypes))
    features = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    built(part.images)
    hook.remove()
    near = torch.cdist(layer.weight, features[0], compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert near.values.max() < 1e-5
    assert torch.equal(part.labels[near.indices], torch.arange(3).repeat_interleave(layer.each))
    frozen = freeze(built.eval())
    certificate = certify(frozen, part.images, part.labels, 2)
    assert certificate.bound.sensitivity <= math.sqrt(2) * (1 + 1e-6)  # as that of orthonormal rows
    again = certified_run.build(Config(last_layer="prototypes", **sizes), part, 3)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), again.parameters(), strict=True))


def test_distances_are_trained_by_octaves_and_hold_their_constant(part):
    config = Config(norm="inf", method="distances", hidden=(8, 6), k=3.0, a=0.4)
    built = certified_run.build(config, part, 3)
    distances = [layer for layer in built if isinstance(layer, LinfDistance)]
    assert [(d.in_features, d.out_features) for d in distances] == [(64, 8), (8, 6), (6, 3)]
    assert [d.negative for d in distances] == [False, False, True] and built(part.images).shape == (30, 3)
    assert lipschitz(freeze(built), math.inf).constant == pytest.approx(3.0)
    given = fitting(config.trained_by, built, config.settings, config.rate, config.p, None)
    assert (given["loss"].margin, given["loss"].scale) == pytest.approx((1.2, 10 / 3))
    optimizer = given["optimizer"](built.parameters())
    assert given["schedule"](optimizer, 10).first == distances[0].octave == 3
    assert Config(method="distances").sizes.hidden == (256, 256)
    for wrong in ({"network": "convnet"}, {"activation": "relu"}):
        with pytest.raises(TightlipError, match="distances has layers of its own, without activations"):
            check(Config(method="distances", **wrong))


def test_free_weights_begin_as_torch_has_them(part):
    built = certified_run.build(Config(method="standard", hidden=(40,)), part, 3)
    first = next(layer for layer in built.modules() if isinstance(layer, nn.Linear))
    assert first.weight.abs().max() <= 64**-0.5  # uniform, and so of many singular values
    singular = torch.linalg.svdvals(first.weight.detach())
    assert singular.max() > 2 * singular.min()


def test_each_loss_is_the_one_it_is_called():
    y, t = logits()
    losses = {name: made(Config(method=name))["loss"](y, t) for name in METHODS}
    assert all(torch.equal(losses[name], functional.cross_entropy(y, t)) for name in FREE)
    asked = margin_cross_entropy(y, t, offset=0.8, temperature=0.25)
    assert all(torch.equal(losses[name], asked) for name in ("spectral", "parseval", "orthonormal"))
    assert torch.equal(losses["row_l1"], multiclass_hinge(y, t, kappa=100.0, mean_over_classes=True))
    assert torch.allclose(losses["row_l1_margin"], margin_cross_entropy(y, t, offset=100.0))
    doubled = made(Config(method="orthonormal", k=3.0))["loss"](3 * y, t)
    assert torch.allclose(doubled, 3 * asked)  # all of it is in units of K


ASKING = [name for name, method in METHODS.items() if "loss" in method.defaults]


@pytest.mark.parametrize("method", ASKING)
def test_the_loss_is_that_of_the_name_with_the_margin_and_temperature_of_the_method(method):
    assert set(ASKING) == {"orthonormal", "spectral", "parseval", "row_l1_margin"}
    y, t = logits()
    K = METHODS[method].defaults["k"]
    found = {name: made(Config(method=method, loss=name, offset=0.6))["loss"](K * y, t) for name in LOSSES}
    tempered = {name: Config(method=method, loss=name).settings["temperature"] * K for name in TEMPERED}
    expected = {
        "cross_entropy": margin_cross_entropy(K * y, t, 0.6 * K, tempered["cross_entropy"]),
        "emma": emma_cross_entropy(K * y, t, 0.6 * K, tempered["emma"]),
        "hinge": multiclass_hinge(K * y, t, 0.6 * K, mean_over_classes=True),
        "hinge_kantorovich": multiclass_hinge_kantorovich(K * y, t, margin=0.6 * K),
    }
    assert found.keys() == expected.keys() and len({float(value) for value in found.values()}) == 4
    assert all(torch.allclose(found[name], expected[name], rtol=1e-5) for name in LOSSES)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in TEMPERED])
def test_a_loss_without_a_temperature_refuses_one_and_records_none(loss):
    for eps in (None, 0.3):
        assert Config(loss=loss, eps=eps).resolved["temperature"] is None
        assert "temperature" not in Config(loss=loss, eps=eps).settings
    assert Config(loss=loss, eps=0.3).settings["offset"] == 1.2
    with pytest.raises(TightlipError, match=f"temperature belongs to the losses cross_entropy and emma, and .* {loss}"):
        check(Config(loss=loss, temperature=0.2))


def test_an_unknown_loss_is_answered_with_the_nearest():
    with pytest.raises(TightlipError, match=r"no loss is called 'hinges' \(did you mean hinge\?\)"):
        check(Config(loss="hinges"))


def test_each_optimizer_has_the_rate_and_the_decay_asked_for():
    w = [nn.Parameter(torch.ones(1))]
    for name, method in METHODS.items():
        (group,) = made(Config(method=name))["optimizer"](w).param_groups
        assert group["lr"] == method.rate
        assert group["weight_decay"] == (0.1 if name == "weight_decay" else 0.0)
    (group,) = made(Config(method="weight_decay", weight_decay=2.0, learning_rate=0.5))["optimizer"](w).param_groups
    assert (group["weight_decay"], group["lr"]) == (2.0, 0.5)


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_the_adversary_stays_in_its_ball_and_box_and_raises_the_loss(norm, part):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    config = Config(method="pgd", norm=norm, train_eps=0.1, train_steps=4)
    found = made(config, (0.0, 1.0))["adversary"](network, part.images, part.labels)
    moved = torch.linalg.vector_norm((found - part.images).flatten(1), config.p, dim=1)
    assert 0.09 < float(moved.max()) <= 0.1 + 1e-6 and 0 <= float(found.min()) <= float(found.max()) <= 1
    before, after = (functional.cross_entropy(network(x), part.labels) for x in (part.images, found))
    assert after > before + 0.01
    free = made(config, None)["adversary"](network, part.images + 5, part.labels)  # outside of every box
    assert float(free.min()) > 1


@pytest.mark.parametrize("method", [name for name in METHODS if name != "pgd"])
def test_others_train_on_the_inputs_as_they_are(method, part):
    adversary = made(Config(method=method))["adversary"]
    assert adversary is None or torch.equal(adversary(nn.Flatten(), part.images, part.labels), part.images)


def test_penalties_are_what_they_are_called_and_weighted():
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    x, t = torch.rand(6, 4), torch.arange(6) % 3
    for name, weight in (("gradient_penalty", 2.0), ("jacobian_penalty", 0.5)):
        loss = made(Config(method=name, penalty=weight))["loss"]
        plain = loss(network(x), t)
        assert torch.equal(plain, functional.cross_entropy(network(x), t))  # nothing was remembered: validation data
        assert loss.remember(network, x, t) is x
        added = (loss(network(x), t) - plain).item()
        if name == "gradient_penalty":
            at = x.clone().requires_grad_()
            (slopes,) = torch.autograd.grad(functional.cross_entropy(network(at), t, reduction="sum"), at)
            assert added == pytest.approx(2.0 * float(slopes.square().sum(1).mean()), rel=1e-4)
        else:
            exact = float(torch.linalg.matrix_norm(network.weight.detach(), 2))
            assert 0.4 * exact < added <= 0.5 * exact + 1e-6  # one step of power iteration is from below
        assert torch.equal(loss(network(x), t), plain)  # remembered once


def test_penalties_reach_the_weights_and_lower_what_they_penalize(part):
    norms = []
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        options = {"epochs": 10, "batch_size": 10, "progress": False}
        config = Config(method="jacobian_penalty", penalty=weight, learning_rate=1e-2)
        fit(network, train=(part.images, part.labels), validation=(part.images, part.labels), **options, **made(config))
        norms.append(float(jacobian_spectral_penalty(network, part.images).detach()))
    assert norms[1] < 0.6 * norms[0]


def test_a_penalized_loss_is_described_without_what_it_has_seen(part, tmp_path):
    """So that an object that was used already is the same loss to a checkpoint."""

    def run(loss, resume):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        options = {"epochs": 2, "progress": False, "checkpoint": tmp_path / "c.pt", "resume": resume}
        return fit(network, loss, (part.images, part.labels), adversary=loss.remember, **options)

    loss = made(Config(method="gradient_penalty"))["loss"]
    history = run(loss, False)
    loss.remember(nn.Linear(2, 2), torch.rand(3, 2), torch.zeros(3))
    assert run(loss, True) == history
    with pytest.raises(TightlipError, match="belongs to another run, whose .*loss"):
        run(made(Config(method="gradient_penalty", penalty=7.0))["loss"], True)


def test_a_copied_loss_has_seen_nothing():
    loss = Penalized(functional.cross_entropy, lambda network, x, y: x.sum(), 1.0)
    loss.remember(nn.Linear(1, 1), torch.ones(1), torch.ones(1))
    assert copy.copy(loss).seen is None and loss.seen is not None


def test_inputs_outside_the_unit_box_have_none(part):
    assert box_of(part.images, part.images) == (0.0, 1.0)
    assert box_of(part.images, part.images + 0.5) is None and box_of(part.images - 0.5) is None


def test_the_epoch_is_chosen_by_what_the_method_is_for(part):
    def score(**options):
        config = Config(**options)
        return certified_run._score(config, made(config, (0.0, 1.0))["adversary"])

    assert score(method="standard") is None and score(method="jacobian_penalty") is None
    assert score(method="row_l1", norm="2") is None and score(method="orthonormal", norm="inf") is None
    asked = {"orthonormal": 2**0.5 * 0.3, "spectral": 2**0.5 * 0.3, "parseval": 2**0.5 * 0.3}
    for name, margin in asked.items():
        assert score(method=name).keywords["margin"] == pytest.approx(margin)
    assert score(norm="inf").keywords["margin"] == pytest.approx(2 * 1000 * 0.05)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    labels = network(part.images).argmax(1)
    assert 0 <= score(method="pgd", train_eps=0.5)(network, part.images, labels) < 1
    assert standing(network, part.images, labels, lambda network, x, y: x) == 1.0
