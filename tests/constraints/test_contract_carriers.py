"""The contract of every exported constraint on convolutions: it is kept there as on matrices, or refused at once."""

import copy
import math

import pytest
import torch
from constraints.test_contract import CONSTRAINTS, OPTIMIZERS, PROMISING, each_held
from sweeps import some
from torch import nn
from torch.func import functional_call

from tightlip import MatrixExponential, Scale, SpectralBall, TightlipError, constrain, freeze, hold, lipschitz
from tightlip.constraints.constraining import weight_constraint

LAYERS = {
    "1x1": lambda: nn.Conv2d(4, 3, 1),
    "patch": lambda: nn.Conv2d(2, 4, 2, stride=2),
    "grouped": lambda: nn.Conv1d(4, 6, 1, groups=2),
    "3x3": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "circular": lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
    "strided": lambda: nn.Conv1d(3, 4, 4, stride=2, padding=1),
}
each_layer = pytest.mark.parametrize("name", some([name for name in LAYERS if name != "1x1"], ["1x1"]))


def images(layer, count=4, seed=0):
    size = (6,) * len(layer.kernel_size)
    x = torch.randn(count, layer.in_channels, *size, generator=torch.Generator().manual_seed(seed))
    return x.to(layer.weight.dtype)


def constrained(name, constraint, way, dtype=torch.float64):
    """A layer on its set, or a skip where the set is refused in a sentence that leaves the layer alone."""
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    before = copy.deepcopy(layer.state_dict())
    try:
        return constrain(layer, constraint, way)
    except TightlipError as refusal:
        assert "\n" not in str(refusal) and ":" in str(refusal)
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
        kernel = name in ("3x3", "circular", "strided")
        assert kernel, "sets of matrices have members on every layer whose weight is a family of them"
        pytest.skip(f"refused: {refusal}")


def train(layer, make_optimizer, steps=3):
    optimizer = make_optimizer(layer.parameters())
    hold(layer, optimizer)
    for step in range(steps):
        optimizer.zero_grad()
        (layer(images(layer, seed=step)) - 3).square().sum().backward()
        optimizer.step()
    return layer


@each_held(PROMISING)
@each_layer
@pytest.mark.filterwarnings("ignore::pytest.PytestWarning")
def test_members_stay_members_and_the_promise_is_kept_after_freeze(name, constraint, way):
    layer = constrained(name, constraint, way)
    members = weight_constraint(layer)
    assert members.contains(layer.weight.detach())
    for make_optimizer in OPTIMIZERS.values():
        before = layer.weight.detach().clone()
        train(layer, make_optimizer)
        assert members.contains(layer.weight.detach()) and not torch.equal(before, layer.weight)
    frozen = freeze(layer)
    assert type(frozen) is type(LAYERS[name]()) and torch.equal(frozen.bias, layer.bias)
    assert lipschitz(frozen, *constraint.norms).constant <= 1
    if not isinstance(constraint, SpectralBall):  # whose bound of kernels may stand above the norm
        assert float((frozen.weight - layer.weight.detach()).abs().max()) <= 1e-7


@pytest.mark.parametrize("constraint", PROMISING, ids=repr)
@each_layer
def test_the_map_leads_into_the_set_leaves_members_and_knows_outsiders(name, constraint):
    members = weight_constraint(constrained(name, constraint, constraint.holds[0]))
    weight = LAYERS[name]().weight
    outside = 3 * torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    member = members.map(outside)
    assert member.shape == outside.shape and member.dtype == outside.dtype
    assert members.contains(member) and not members.contains(outside)
    if constraint.projects:
        torch.testing.assert_close(members.map(member), member, atol=1e-6, rtol=0)  # a bound may move by that
    for bad in (math.nan, math.inf):
        broken = member.clone()
        broken.view(-1)[0] = bad
        assert not members.contains(broken)


def degenerate(shape):
    """Weights that Gaussians never are."""
    one = torch.zeros(shape, dtype=torch.float64)
    one.view(-1)[-1] = 1e4
    rank_one = torch.ones(shape, dtype=torch.float64) * torch.arange(1.0, shape[-1] + 1, dtype=torch.float64)
    mixed = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mixed.view(-1)[::2] *= 1e-12
    return {"zero": torch.zeros(shape, dtype=torch.float64), "one": one, "rank one": rank_one, "mixed": mixed * 1e3}


@pytest.mark.parametrize("kind", ["zero", "one", "rank one", "mixed"])
@pytest.mark.parametrize("constraint", PROMISING, ids=repr)
@each_layer
def test_whatever_the_weight_its_image_is_a_member(name, constraint, kind):
    members = weight_constraint(constrained(name, constraint, constraint.holds[0]))
    layer = LAYERS[name]().double()
    with torch.no_grad():
        layer.weight.copy_(degenerate(layer.weight.shape)[kind])
    assert members.contains(members.map(layer.weight.detach()))


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
@each_layer
def test_the_tangent_part_stays_on_the_set_and_is_never_uphill(name, constraint):
    members = weight_constraint(constrained(name, constraint, constraint.holds[0]))
    generator = torch.Generator().manual_seed(0)
    weight, gradient = torch.randn(2, *LAYERS[name]().weight.shape, dtype=torch.float64, generator=generator)
    weight = members.map(weight)
    along = members.tangent(weight, gradient)
    assert along.shape == weight.shape and float((along * gradient).sum()) >= -1e-12
    torch.testing.assert_close(members.tangent(weight, along), along, atol=1e-12, rtol=0)


@pytest.mark.parametrize("constraint", [c for c in CONSTRAINTS if "forward" in c.holds], ids=repr)
@each_layer
def test_gradients_through_a_forward_held_layer_equal_finite_differences(name, constraint):
    layer = constrained(name, constraint, "forward")
    if isinstance(constraint, SpectralBall) and name in ("3x3", "circular", "strided"):
        pytest.skip("its bound is not smooth: test_carrier.py compares its derivative with that of the norm")
    x = images(layer, 1)[..., :4]
    raw = torch.randn(layer.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2

    def output(V):
        return functional_call(layer, {"parametrizations.weight.original": V}, x)

    assert torch.autograd.gradcheck(output, raw.requires_grad_(), atol=1e-6, fast_mode=True)


@each_held(CONSTRAINTS)
@each_layer
def test_a_frozen_network_equals_the_live_one_and_scales_with_its_constant(name, constraint, way):
    layer = constrained(name, constraint, way, torch.float32)
    network = nn.Sequential(layer, nn.ReLU(), Scale(0.5))
    for live in (network, copy.deepcopy(network)):
        frozen = freeze(live)
        torch.testing.assert_close(frozen(images(layer)), network(images(layer)).detach(), atol=1e-5, rtol=1e-4)
        if constraint.promises and not isinstance(constraint, MatrixExponential):
            assert 0 < lipschitz(frozen, *constraint.norms).constant <= 0.5
    if way == "step":
        plain = LAYERS[name]()
        plain.load_state_dict(layer.state_dict(), strict=True)
        layer.load_state_dict(plain.state_dict(), strict=True)
        assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
@each_layer
def test_a_weight_whose_norm_overflows_is_mapped_near_the_set_or_refused(name, constraint):
    members = weight_constraint(constrained(name, constraint, constraint.holds[0], torch.float32))
    weight = torch.full(LAYERS[name]().weight.shape, 1e30)
    weight.view(-1)[::3] *= 2
    try:
        image = members.map(weight)
    except TightlipError as problem:
        assert "lower the learning rate" in str(problem)
        return
    assert members.contains(image) and image.abs().max() > 0.01
