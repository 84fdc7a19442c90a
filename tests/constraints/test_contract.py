"""The contract of everything exported: whoever adds a `Constraint` or an activation to `tightlip` is tested here."""

import copy
import inspect
import math
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slopes import largest_slope
from sweeps import seeds, some
from torch import nn
from torch.func import functional_call

import tightlip
from tightlip import (
    Constraint,
    Householder,
    MatrixExponential,
    Maxout,
    Orthonormal,
    RowDualBall,
    RowL1Ball,
    Scale,
    TightlipError,
    constrain,
    freeze,
    hold,
    lipschitz,
    mlp,
)
from tightlip.linalg.schedules import bjorck, express

EXAMPLES = {
    "GroupSort": [lambda cls: cls(2), lambda cls: cls(3, contiguous=False)],
    "Householder": [lambda cls: cls(6)],
    "Orthonormal": some([lambda cls: cls(), lambda cls: cls(bjorck(3))], [lambda cls: cls(express(0.1))]),
    "SpectralBall": [lambda cls: cls(), lambda cls: cls(iterations=3)],
    "RowDualBall": [lambda cls, p=p: cls(p) for p in some((1, 1.5, 2, math.inf), (3,))],
}
"""How to make exported classes that need arguments; everything else is made without any."""

SQUARE = some([(n, n) for n in (1, 2, 3, 8)], [(n, n) for n in (4, 5, 6, 7, 9, 10, 11, 12)])
OTHERS = some([(2, 5), (12, 7), (1, 6), (6, 1)], [(5, 2), (7, 12), (1, 2), (2, 1)])
OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


def exported(kind):
    classes = [getattr(tightlip, name) for name in tightlip.__all__]
    return [c for c in classes if inspect.isclass(c) and issubclass(c, kind) and not inspect.isabstract(c)]


def exported_constraints():
    return [made for cls in exported(Constraint) for made in examples(cls)]


def exported_activations():
    return [made for cls in exported(nn.Module) if cls.__module__ == "tightlip.activations" for made in examples(cls)]


def examples(cls):
    return [make(cls) for make in EXAMPLES.get(cls.__name__, [lambda cls: cls()])]


CONSTRAINTS, ACTIVATIONS = exported_constraints(), exported_activations()
each_constraint = pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
PROMISING = [c for c in CONSTRAINTS if c.promises]
PROJECTING = [c for c in PROMISING if c.projects]


def each_held(constraints):
    """Every constraint with every way to hold it that makes sense."""
    pairs = [(constraint, way) for constraint in constraints for way in constraint.holds]
    return pytest.mark.parametrize(("constraint", "way"), pairs, ids=repr)


each_promising = pytest.mark.parametrize("constraint", PROMISING, ids=repr)
each_projecting = pytest.mark.parametrize("constraint", PROJECTING, ids=repr)
SIZES = [(shape, dtype) for shape in (*SQUARE, *OTHERS) for dtype in (torch.float32, torch.float64)]
SIZES += some([((300, 200), torch.float32)], [((300, 200), torch.float64)])
each_size = pytest.mark.parametrize(("shape", "dtype"), SIZES, ids=lambda it: str(it).replace(", ", "x"))
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)


def layered(constraint, count):
    """One constraint per layer whose norms compose: a p→∞ first layer is followed by ∞→∞ ones (Theorem 3)."""
    return [constraint] + [constraint if constraint.norms[0] == constraint.norms[1] else RowL1Ball()] * (count - 1)


def constrained(constraint, way, shape, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], dtype=dtype)
    nn.init.normal_(layer.weight)
    return constrain(layer, constraint, way)


def train(network, make_optimizer, steps=3):
    optimizer = hold(network, make_optimizer(network.parameters()))
    layer = next(module for module in network.modules() if isinstance(module, nn.Linear))
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, layer.in_features, generator=generator, dtype=torch.float64).to(layer.bias.dtype)
        optimizer.zero_grad()
        (network(x) - 3).square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.requires_grad and p.grad is not None)
        optimizer.step()
    return network


def check_membership(constraint, way, shape, dtype):
    layer = constrained(constraint, way, shape, dtype)
    assert constraint.contains(layer.weight.detach())
    for make_optimizer in OPTIMIZERS.values():
        before = layer.weight.detach().clone()
        train(layer, make_optimizer)
        assert constraint.contains(layer.weight.detach())
        if 1 not in shape:  # where the set may be a few points
            assert not torch.equal(before, layer.weight)
    return layer


def check_promise(constraint, layer, shape, dtype):
    frozen = freeze(layer)
    assert type(frozen) is nn.Linear
    assert lipschitz(frozen, *constraint.norms).constant <= 1
    moved = float((frozen.weight - layer.weight.detach()).abs().max())
    assert moved <= constraint.rounding * torch.finfo(dtype).eps * max(shape) ** 0.5 + 1e-10  # the audit's own slack
    assert torch.equal(frozen.bias, layer.bias)


@each_held(PROMISING)
@each_size
def test_members_stay_members_and_the_promise_is_kept_after_freeze(constraint, way, shape, dtype):
    if isinstance(constraint, MatrixExponential) and dtype == torch.float32:
        # torch's exponential drifts, which tests/constraints/test_schedules.py shows: of membership no word
        layer = train(constrained(constraint, way, shape, dtype), OPTIMIZERS["adam"])
    else:
        layer = check_membership(constraint, way, shape, dtype)
    check_promise(constraint, layer, shape, dtype)


@each_promising
@each_size
def test_the_map_leads_into_the_set_leaves_members_and_knows_outsiders(constraint, dtype, shape):
    outside = 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype) + 3
    member = constraint.map(outside)
    assert member.dtype == dtype
    assert constraint.contains(member)
    assert not constraint.contains(outside)
    if constraint.projects:
        torch.testing.assert_close(constraint.map(member), member, atol=64 * torch.finfo(dtype).eps, rtol=0)


sizes = st.integers(1, 12)
entries = st.floats(-1e4, 1e4, allow_subnormal=False) | st.sampled_from([0.0, 1.0, -1.0, 1e-12])


@each_promising
@given(shape=st.tuples(sizes, sizes), data=st.data())
@settings(max_examples=len(seeds(8, 20)), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_the_matrix_its_image_is_a_member_and_proven_after_freeze(constraint, shape, data):
    """Zero rows, repeated entries, rank one, huge beside tiny: what random Gaussians never are."""
    rows = data.draw(
        st.lists(st.lists(entries, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0])
    )
    layer = nn.Linear(shape[1], shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows, dtype=torch.float64))
    assert constraint.contains(constraint.map(layer.weight.detach()))
    held = constrain(layer, constraint, constraint.holds[0])
    assert lipschitz(freeze(held), *constraint.norms).constant <= 1


@each_constraint
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_matrix_that_is_not_finite_is_no_member(constraint, bad):
    weight = constraint.map(torch.eye(3))
    weight[1, 1] = bad
    assert not constraint.contains(weight)


@each_constraint
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (1, 3), (3, 1)])
def test_the_tangent_part_stays_on_the_set_and_is_never_uphill(constraint, shape):
    generator = torch.Generator().manual_seed(0)
    weight, gradient = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    weight = constraint.map(weight)
    along = constraint.tangent(weight, gradient)
    assert float((along * gradient).sum()) >= -1e-12
    torch.testing.assert_close(constraint.tangent(weight, along), along, atol=1e-12, rtol=0)


@pytest.mark.parametrize("constraint", [c for c in CONSTRAINTS if "forward" in c.holds], ids=repr)
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (1, 3), (3, 1)])
def test_gradients_through_a_forward_held_layer_equal_finite_differences(constraint, shape):
    layer = constrained(constraint, "forward", shape, torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, shape[1], dtype=torch.float64, generator=generator)
    raw = torch.randn(shape, dtype=torch.float64, generator=generator) * 2

    def output(V):
        return functional_call(layer, {"parametrizations.weight.original": V}, x)

    assert torch.autograd.gradcheck(output, raw.requires_grad_(), atol=1e-6)


@each_held(PROMISING)
@pytest.mark.parametrize("K", some([8.0], [0.1, 1.0]))
def test_a_frozen_network_is_within_its_constant_and_equals_the_live_one(constraint, way, K):
    torch.manual_seed(0)
    constraint_of_each = layered(constraint, 3)
    network = train(mlp([6, 8, 8, 3], constraint_of_each, K=K, hold=way), OPTIMIZERS["adam"])
    x, tolerance = torch.randn(32, 6), 1e-5 * max(1, K)
    reloaded = mlp([6, 8, 8, 3], constraint_of_each, K=K, hold=way)
    reloaded.load_state_dict(network.state_dict())
    for live in (network, copy.deepcopy(network), reloaded):
        frozen = freeze(live)
        assert lipschitz(frozen, *constraint.norms).constant <= K
        torch.testing.assert_close(frozen(x), network(x).detach(), atol=tolerance, rtol=0)
        torch.testing.assert_close(live(x).detach(), network(x).detach(), atol=tolerance, rtol=0)


@each_held(CONSTRAINTS)
def test_the_constant_is_not_ignored(constraint, way):
    def audited(K):
        torch.manual_seed(0)
        return lipschitz(freeze(mlp([6, 8, 4], layered(constraint, 2), K=K, hold=way)), *constraint.norms).constant

    assert audited(8.0) == pytest.approx(8 * audited(1.0), rel=1e-6)
    assert audited(0.1) == pytest.approx(0.1 * audited(1.0), rel=1e-6)


@pytest.mark.parametrize("way", ["step", "forward"])
@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("widths", [[6, 6, 6], [12, 8, 4, 1], [5, 4, 4, 4, 2]])
def test_an_orthonormal_network_that_never_widens_attains_its_constant(way, K, widths):
    torch.manual_seed(0)
    network = freeze(train(mlp(widths, Orthonormal(), K=K, hold=way), OPTIMIZERS["adam"])).double()
    found = largest_slope(network, (widths[0],), 2, 2)
    assert 0.99 * K <= found <= lipschitz(network, 2, 2).constant * (1 + 1e-9)


@each_held(CONSTRAINTS)
def test_frozen_networks_are_plain_and_travel(constraint, way, tmp_path):
    frozen, x = freeze(mlp([4, 6, 2], constraint, hold=way)), torch.randn(5, 4)
    assert all(type(m).__module__.startswith(("torch.nn.modules", "tightlip.")) for m in frozen.modules())
    assert not any(m._forward_pre_hooks or hasattr(m, "parametrizations") for m in frozen.modules())
    torch.save(frozen, tmp_path / "frozen.pt")
    for travelled in (pickle.loads(pickle.dumps(frozen)), torch.load(tmp_path / "frozen.pt", weights_only=False)):
        assert torch.equal(travelled(x), frozen(x))
        assert lipschitz(travelled, *constraint.norms) == lipschitz(frozen, *constraint.norms)


@pytest.mark.parametrize("constraint", [c for c in CONSTRAINTS if "step" in c.holds], ids=repr)
def test_state_dict_keys_of_step_held_layers_are_torchs_own_and_load_strictly_both_ways(constraint):
    held, plain = constrained(constraint, "step", (3, 4), torch.float32), nn.Linear(4, 3)
    assert list(held.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    plain.load_state_dict(held.state_dict(), strict=True)
    held.load_state_dict(plain.state_dict(), strict=True)
    frozen = freeze(held)
    frozen.load_state_dict(held.state_dict(), strict=True)
    held.load_state_dict(frozen.state_dict(), strict=True)
    assert torch.equal(held(torch.ones(2, 4)), frozen(torch.ones(2, 4)))


@each_constraint
def test_constraints_are_described_by_how_they_are_made(constraint):
    again = eval(repr(constraint), {**vars(tightlip), "bjorck": bjorck, "express": express, "inf": math.inf})
    assert type(again) is type(constraint) and vars(again) == vars(constraint) and repr(again) == repr(constraint)
    assert type(pickle.loads(pickle.dumps(constraint))) is type(constraint)


@each_activation
def test_activations_are_gradient_norm_preserving_and_audited_as_one(activation):
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    activation = copy.deepcopy(activation).double()
    for p in (2.0,) if isinstance(activation, Householder) else (1.0, 2.0, math.inf):
        assert lipschitz(activation, p, p).constant == 1.0
        assert largest_slope(activation, (12,), p, p) == pytest.approx(1.0, rel=1e-9)
    for row in x if not isinstance(activation, Maxout) else ():  # which drops the smaller members and their gradients
        jacobian = torch.autograd.functional.jacobian(activation, row.unsqueeze(0)).reshape(12, 12)
        torch.testing.assert_close(jacobian @ jacobian.mT, torch.eye(12, dtype=torch.float64))


@each_activation
def test_activations_survive_copies_and_freeze(activation):
    x = torch.randn(5, 12)
    assert isinstance(activation, Householder) or not activation.state_dict()
    for other in (copy.deepcopy(activation), pickle.loads(pickle.dumps(activation)), freeze(activation)):
        assert type(other) is type(activation)
        assert torch.equal(other(x), activation(x))
        assert repr(other) == repr(activation)
    assert repr(eval(repr(activation), vars(tightlip).copy())) == repr(activation)


def test_everything_of_the_present_exports_was_found():
    assert {"Orthonormal", "RowL1Ball"} <= {type(c).__name__ for c in CONSTRAINTS}
    assert {"GroupSort", "MaxMin", "FullSort"} <= {type(a).__name__ for a in ACTIVATIONS}
    assert not any(isinstance(a, Scale) for a in ACTIVATIONS)


class Careless(Constraint):
    """A constraint as one might write it on a bad day: it promises a norm that its members do not have."""

    norms = (2.0, 2.0)

    def map(self, weight):
        return weight / weight.abs().max()

    def distance(self, weight):
        return abs(float(weight.abs().max()) - 1)


class Twofold(nn.Module):
    def forward(self, x):
        return 2 * x


def test_a_new_export_is_picked_up_and_held_to_the_contract(monkeypatch):
    monkeypatch.setattr(tightlip, "__all__", [*tightlip.__all__, "Careless", "Twofold"])
    monkeypatch.setattr(tightlip, "Careless", Careless, raising=False)
    monkeypatch.setattr(tightlip, "Twofold", Twofold, raising=False)
    monkeypatch.setattr(Twofold, "__module__", "tightlip.activations")
    (new,) = [c for c in exported_constraints() if type(c) is Careless]
    (activation,) = [a for a in exported_activations() if type(a) is Twofold]
    with pytest.raises(AssertionError, match="Careless"):
        check_promise(new, constrained(new, "step", (3, 3), torch.float64), (3, 3), torch.float64)
    with pytest.raises(AssertionError, match="Twofold"):
        test_activations_are_gradient_norm_preserving_and_audited_as_one(activation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_too_large_to_be_squared_are_scaled_not_lost(dtype):
    large = torch.finfo(dtype).max / 4
    weight = torch.tensor([[3 * large, 4 * large], [0.3, -0.4], [3.0, -4.0], [0.0, 0.0]], dtype=dtype)
    expected = torch.tensor([[0.6, 0.8], [0.3, -0.4], [0.6, -0.8], [0.0, 0.0]], dtype=dtype)
    torch.testing.assert_close(RowDualBall(2).map(weight), expected)


@pytest.mark.parametrize("entry", [1e30, 3e38])
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_a_matrix_whose_norm_overflows_is_mapped_near_the_set_or_refused(constraint, entry):
    weight = torch.full((3, 4), entry).tril() + torch.eye(3, 4) * entry / 8
    try:
        image = constraint.map(weight)
    except TightlipError as problem:
        assert "lower the learning rate" in str(problem)
        return
    assert constraint.contains(image) and image.abs().max() > 0.1
