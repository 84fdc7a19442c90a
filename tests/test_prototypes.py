"""Nearest prototypes: what they compute, that each output is 1-Lipschitz, and that no input within a radius flips."""

import math

import pytest
import torch
from torch import nn

from tightlip import (
    Prototypes,
    TightlipError,
    certify,
    fit,
    freeze,
    lipschitz,
    load,
    mlp,
    multiclass_hinge,
    pgd,
    prototypes,
    save,
)
from tightlip.linalg import fusing


def filled(in_features=6, classes=3, each=4, nearest=None, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return Prototypes(in_features, classes, each, nearest).to(dtype)


def by_definition(layer, x):
    """Every pair, by differences."""
    weight, kind = layer.weight.detach(), torch.arange(len(layer.weight)) // layer.each
    squares = (x[:, None] - weight).square().sum(-1)
    apart = (weight[:, None] - weight).square().sum(-1).sqrt()
    ahead = (squares[:, None] - squares[:, :, None]) / (2 * apart)
    least = ahead.masked_fill(kind[:, None] == kind, math.inf).amin(2)
    return least.unflatten(1, (layer.classes, layer.each)).amax(2)


@pytest.mark.parametrize(("classes", "each"), [(2, 1), (3, 4), (10, 7)])
def test_outputs_are_those_of_the_definition_and_the_largest_is_that_of_the_nearest(classes, each):
    layer, x = filled(classes=classes, each=each), torch.randn(300, 6, dtype=torch.float64)
    y = layer(x)
    assert torch.allclose(y, by_definition(layer, x), rtol=0, atol=1e-13)
    nearest = torch.cdist(x, layer.weight).argmin(1) // each
    assert torch.equal(y.argmax(1), nearest)
    own = y.gather(1, nearest[:, None])
    assert (own > 0).all() and (y.scatter(1, nearest[:, None], -math.inf) <= -own + 1e-13).all()


@pytest.mark.parametrize("size", [1e-3, 0.1, 3.0])
def test_no_two_inputs_are_steeper_than_1(size):
    layer, x = filled(), 2 * torch.randn(20_000, 6, dtype=torch.float64)
    step = torch.randn_like(x)
    step *= size * torch.rand(len(x), 1, dtype=torch.float64) / step.norm(dim=1, keepdim=True)
    moved = (layer(x + step) - layer(x)).abs()
    assert (moved <= step.norm(dim=1, keepdim=True) * (1 + 1e-12) + 1e-14).all()
    assert (moved.amax(1) / step.norm(dim=1)).max() > 0.9  # and the constant is attained


def test_gradients_have_length_1():
    layer, x = filled(), torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    for output in layer(x).unbind(1):
        (slope,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
        assert torch.allclose(slope.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert torch.autograd.gradcheck(layer, (torch.randn(3, 6, dtype=torch.float64, requires_grad=True),))


def test_within_its_radius_no_input_gets_another_nearest_prototype():
    """Tried in the direction of every prototype, which is the nearest way across a bisector."""
    layer, x = filled().eval(), torch.randn(400, 6, dtype=torch.float64)
    labels = layer(x).argmax(1)
    certificate = certify(layer, x, labels, 2)
    assert certificate.bound.constant == 1 and (certificate.radius > 0).double().mean() > 0.99
    for own in layer.weight.detach():
        for other in layer.weight.detach():
            if not torch.equal(own, other):
                away = (other - own) / (other - own).norm()
                moved = x + certificate.radius[:, None] * (1 - 1e-9) * away
                assert torch.equal(torch.cdist(moved, layer.weight).argmin(1) // layer.each, labels)
    attacked = pgd(layer, x, labels, float(certificate.radius.median()), 2, steps=20, clamp=None)
    stands = layer(attacked).argmax(1) == labels
    assert stands[certificate.radius > certificate.radius.median()].all()


def test_behind_other_layers_constants_multiply():
    network = freeze(nn.Sequential(*mlp([6, 8, 8]), filled(8, dtype=torch.float32)))
    x = torch.randn(30, 6)
    assert lipschitz(network, 2).constant <= 1 + 1e-5
    assert certify(network, x, network(x).argmax(1), 2).radius.shape == (30,)
    assert lipschitz(filled(), math.inf).constant == pytest.approx(math.sqrt(6))
    with pytest.raises(TightlipError, match="Prototypes at .* find the nearest by other steps"):
        certify(network, x, arithmetic="float32")


def test_prototypes_that_are_one_have_a_constant_and_no_radius():
    layer = filled().eval()
    with torch.no_grad():
        layer.weight[4] = layer.weight[0]
    assert lipschitz(layer, 2).constant == 1
    assert torch.isfinite(layer(torch.randn(9, 6, dtype=torch.float64))).all()
    assert certify(layer, torch.randn(2, 6, dtype=torch.float64), p=2).radius.tolist() == [0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_inputs_that_cannot_be_compared_have_no_class(value):
    x = torch.zeros(2, 6, dtype=torch.float64)
    x[1, 3] = value
    layer = filled()
    layer.weight.data *= 100
    y = layer(x)
    assert torch.isfinite(y[0]).all() and y[1].isnan().all()


@pytest.mark.parametrize("nearest", [1, 3, 50])
def test_with_few_compared_in_training_outputs_are_mostly_the_same_and_nothing_is_proven(nearest):
    layer, x = filled(10, 4, 12, nearest), torch.randn(500, 10, dtype=torch.float64)
    few, all_of_them = layer.train()(x), layer.eval()(x)
    assert torch.equal(few.argmax(1), all_of_them.argmax(1))  # the nearest is among them
    assert torch.isclose(few, all_of_them).double().mean() > (0.3 if nearest == 1 else 0.5)
    with pytest.raises(TightlipError, match=r"nothing is proven: call network.eval"):
        lipschitz(layer.train(), 2)


def test_they_are_placed_at_examples_and_train():
    torch.manual_seed(0)
    centers = 3 * torch.randn(6, 5)
    labels = torch.arange(600) % 3
    x = centers[labels + 3 * (torch.arange(600) // 300)] + 0.3 * torch.randn(600, 5)  # of each class two clusters
    layer = Prototypes(5, 3, 4, nearest=2)
    layer.place(x[:450], labels[:450], seed=1)
    held = (layer.weight[:, None] == x[:450]).all(-1)
    assert held.any(1).all() and torch.equal(labels[held.float().argmax(1)], torch.arange(12) // 4)
    before = certify(layer.eval(), x[450:], labels[450:], 2).radius.mean()
    parts = (x[:400], labels[:400]), (x[400:450], labels[400:450])
    fit(layer, lambda y, t: multiclass_hinge(y, t, kappa=6.0), *parts, epochs=20, progress=False)
    assert certify(layer.eval(), x[450:], labels[450:], 2).radius.mean() > before


def test_they_are_saved(tmp_path):
    layer, x = filled().eval(), torch.randn(5, 6, dtype=torch.float64)
    save(layer, tmp_path / "m.safetensors")
    assert torch.equal(load(tmp_path / "m.safetensors")(x), layer(x))


@pytest.mark.filterwarnings("ignore")  # of torch, in compiling
def test_compiled_and_in_pieces_are_the_same(monkeypatch):
    layer, x = filled(20, 4, 60, dtype=torch.float32), torch.randn(300, 20)
    whole = layer(x)
    assert prototypes._least not in fusing._BROKEN
    monkeypatch.setattr(fusing, "SMALL", math.inf)
    assert torch.allclose(layer(x), whole, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of torch, in tracing
def test_exported_and_traced_they_take_other_batches():
    """So many prototypes that an input would be a piece of its own."""
    network = nn.Sequential(filled(4, 3, 800, dtype=torch.float32)).eval()
    few, many = torch.randn(3, 4), torch.randn(7, 4)
    exported = torch.export.export(network, (few,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    for program in (exported.module(), torch.jit.trace(network, few)):
        assert torch.allclose(program(many), network(many), atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((0, 2, 1), "in_features"),
        ((3, 1, 1), "classes"),
        ((3, 2, 0), "each"),
        ((3, 2, 1, 0), "nearest"),
        ((3, True, 1), "classes"),
    ],
)
def test_impossible_sizes_are_refused(sizes, says):
    with pytest.raises(TightlipError, match=says):
        Prototypes(*sizes)


def test_other_inputs_are_refused():
    layer = Prototypes(3, 2, 1)
    with pytest.raises(TightlipError, match="take 3 features, got inputs of shape"):
        layer(torch.zeros(4, 2))
    with pytest.raises(TightlipError, match="placed at examples"):
        layer.place(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TightlipError, match="no example has the label 1"):
        layer.place(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
