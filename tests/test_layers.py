import copy
import math
import pickle
from fractions import Fraction

import pytest
import torch
from slopes import PAIRS, largest_slope
from sweeps import seeds
from torch import nn

from tightlip import (
    Householder,
    MaxMin,
    Normalize,
    Orthonormal,
    Residual,
    RowL1Ball,
    Scale,
    TightlipError,
    certify,
    constrain,
    freeze,
    hold,
    lipschitz,
)
from tightlip.audit import gains


@pytest.mark.parametrize("K", [1e-3, 0.1, 1 / 3, 0.7, 1.0, 8.0, 1000.0, 123456.789])
def test_a_scale_is_audited_as_what_is_stored_and_never_above_what_was_asked(K):
    layer = Scale(K)
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    for p, q in PAIRS:
        constant = lipschitz(layer, p, q).constant
        assert K * (1 - 2e-7) <= constant <= K
        assert constant == float(layer.double()(x)[0, 0])


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_a_scale_multiplies(K):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Scale(K)(x), K * x)


@pytest.mark.parametrize("K", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_constant_is_refused(K):
    with pytest.raises(TightlipError, match="give a finite number > 0"):
        Scale(K)


def test_a_scale_is_saved_with_the_network_and_is_not_trained():
    layer, other = Scale(8.0), Scale(1.0)
    assert not list(layer.parameters())
    other.load_state_dict(layer.state_dict())
    assert lipschitz(other, 2).constant == lipschitz(copy.deepcopy(layer), 2).constant == 8.0
    assert repr(layer) == "Scale(8)"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_scale_in_another_dtype_is_audited_as_it_is_then(dtype):
    layer = Scale(0.3).to(dtype)
    assert lipschitz(layer, 2).constant == float(layer.scale)


def test_normalize_subtracts_and_divides():
    x = torch.tensor([[1.0, 3.0]])
    assert Normalize(1.0, 4.0)(x).tolist() == [[0.0, 0.5]]
    images = torch.ones(2, 3, 4, 5)
    result = Normalize([0.0, 0.5, 1.0], [1.0, 0.5, 0.25])(images)
    assert result.shape == images.shape
    assert result[1, :, 2, 3].tolist() == [1.0, 1.0, 0.0]
    assert Normalize([0.0, 1.0], [1.0, 2.0])(x).tolist() == [[1.0, 1.0]]
    assert Normalize(0.5, [1.0, 2.0])(x).tolist() == [[0.5, 1.25]]


@pytest.mark.parametrize(("std", "smallest"), [(0.3, 0.3), ([0.7, 0.3, 2.0], 0.3), (3.0, 3.0)])
def test_normalize_has_its_share_in_every_bound_rounded_up_and_attained(std, smallest):
    layer = Normalize(0.1, std)
    exact = 1 / Fraction(float(layer.std.min()))
    shape = (3, 2) if isinstance(std, list) else (4,)
    for p, q in PAIRS:
        constant = lipschitz(layer, p, q).constant
        assert exact <= Fraction(constant) <= exact * (1 + Fraction(1, 2**52))
        assert constant == pytest.approx(1 / smallest, rel=1e-6)
        assert largest_slope(copy.deepcopy(layer).double(), shape, p, q) == pytest.approx(constant, rel=1e-9)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 1), (2, 4, 3), (1,), (3,)])
def test_channels_are_never_multiplied_by_broadcasting(shape):
    layer = Normalize([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])  # (2, 1, 4, 5) would become (2, 3, 4, 5): norm √3, not 1
    try:
        result = layer(torch.ones(shape))
    except TightlipError:
        return
    assert result.shape == shape


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 0.0), (0.0, -1.0), (0.0, math.nan), (0.0, math.inf), (math.nan, 1.0), (math.inf, 1.0), (0.0, [1.0, 0.0])],
)
def test_numbers_that_cannot_normalise_are_refused(mean, std):
    with pytest.raises(TightlipError, match="give finite numbers, std > 0"):
        Normalize(mean, std)


def test_a_std_that_became_zero_is_refused_by_the_audit():
    layer = Normalize(0.0, [1.0, 2.0])
    layer.std[1] = 0.0
    with pytest.raises(TightlipError, match="give std > 0"):
        lipschitz(layer, 2)


def test_constants_of_normalisation_and_scale_multiply():
    network = nn.Sequential(Normalize(0.5, 0.25), Scale(2.0))
    assert lipschitz(network, math.inf).constant == 8.0


def test_a_residual_is_the_mean_of_its_input_and_its_branch(seed):
    x, first, second = torch.randn(5, 4), nn.Linear(4, 6), nn.Linear(6, 4)
    torch.testing.assert_close(Residual(first, MaxMin(), second)(x), (x + second(MaxMin()(first(x)))) / 2)
    torch.testing.assert_close(Residual(nn.Linear(3, 3, bias=False))(torch.zeros(2, 7, 3)), torch.zeros(2, 7, 3))
    assert torch.equal(Residual(nn.Identity())(x), x) and torch.equal(Residual(nn.Sequential())(x), x)


@pytest.mark.parametrize("branch", [nn.Linear(4, 1), nn.Linear(4, 8), nn.Unflatten(1, (1, 4)), nn.Flatten(0)])
def test_a_branch_of_another_shape_is_refused_rather_than_broadcast(branch):
    """x + f(x) with f(x) of shape (5, 1) would have the norm of a sum of four: 2→2 norm (1 + 2c)/2."""
    with pytest.raises(TightlipError, match="keep the shape"):
        Residual(branch)(torch.ones(5, 4))


@pytest.mark.parametrize("layers", [(), (torch.relu,), (nn.ReLU(), None)])
def test_a_residual_without_layers_is_refused(layers):
    with pytest.raises((TightlipError, TypeError), match="layers"):
        Residual(*layers)


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_constant_of_a_residual_is_the_mean_of_one_and_its_branchs_and_is_attained(K, p, q):
    block = Residual(nn.Flatten(), Scale(K)).double()
    constant = lipschitz(block, p, q).constant
    assert constant == pytest.approx((1 + K) / 2, rel=1e-7) and constant <= (1 + K) / 2
    assert largest_slope(block, (6,), p, q) == pytest.approx(constant, rel=1e-9)


def test_the_constants_of_a_residual_are_exact_fractions_of_those_of_its_branch(seed):
    branch = nn.Sequential(nn.Linear(4, 5), MaxMin(), nn.Linear(5, 4))
    inner, outer = gains(branch).table, gains(Residual(branch)).table
    assert outer == {pair: (1 + inner[pair]) / 2 for pair in PAIRS}
    assert set(gains(Residual(Householder(2))).table) == set(gains(Householder(2)).table)
    with pytest.raises(TightlipError, match="ask for another pair"):
        lipschitz(Residual(Householder(2)), math.inf)


@pytest.mark.parametrize("number", seeds(5, 20))
def test_no_slope_of_a_network_with_residuals_exceeds_its_bound(number):
    torch.manual_seed(number)
    inner = Residual(nn.Linear(6, 6), nn.Tanh())
    block = Residual(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6), inner, nn.LeakyReLU(3.0))
    network = nn.Sequential(nn.Linear(3, 6), block, MaxMin(), Residual(nn.Sequential(block)), nn.Linear(6, 2)).double()
    for p, q in PAIRS:
        found = largest_slope(network, (3,), p, q, points=8, steps=3)
        assert found <= lipschitz(network, p, q).constant * (1 + 1e-9)


def test_the_bound_of_a_residual_of_a_positive_matrix_is_attained(seed):
    W = torch.rand(5, 5, dtype=torch.float64)
    layer = nn.Linear(5, 5, dtype=torch.float64)
    layer.weight.data = W @ W.T  # positive semidefinite with positive entries: the steepest inputs add up
    for p in (1.0, 2.0, math.inf):
        assert largest_slope(Residual(layer), (5,), p, p) >= lipschitz(Residual(layer), p, p).constant * (
            1 - 1e-8 if p == 2 else 0.9
        )


def test_a_branch_that_works_in_place_does_not_change_what_it_is_added_to():
    """(x + f(x))/2 computed after f has overwritten x is f(x): slope 3, above (1 + 3)/2."""
    block, x = Residual(nn.LeakyReLU(3.0, inplace=True)), torch.tensor([[-1.0, -2.0, 4.0]])
    assert block(x.clone()).tolist() == [[-2.0, -4.0, 4.0]]
    network = nn.Sequential(Scale(1.0), block).double()
    assert largest_slope(network, (3,), 2, 2) <= lipschitz(network, 2, 2).constant * (1 + 1e-9)
    logits = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]], dtype=torch.float64)
    before = logits.clone()
    assert certify(block, logits).margin.tolist() == pytest.approx([2.0, 4.0])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("way", ["step", "forward"])
def test_constrained_layers_inside_a_residual_are_held_frozen_and_audited(way, seed):
    def block():
        return Residual(constrain(nn.Linear(8, 8), Orthonormal(), way), MaxMin(), Residual(MaxMin()))

    network = nn.Sequential(block(), block(), constrain(nn.Linear(8, 3), Orthonormal(), way), Scale(2.0))
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=0.05))
    x, y = torch.randn(32, 8), torch.randint(3, (32,))
    start = network(x).detach()
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    assert lipschitz(network, 2).constant == pytest.approx(2, rel=1e-5)
    frozen = freeze(network)
    assert type(frozen[0].f[0]) is nn.Linear and type(network[0].f[0]) is not None
    assert 2 * (1 - 1e-5) <= lipschitz(frozen, 2).constant <= 2
    torch.testing.assert_close(frozen(x), network(x), rtol=0, atol=1e-5)
    assert (start - network(x)).abs().max() > 0.01
    with pytest.raises(TightlipError, match="freeze"):
        certify(network, x)
    assert (certify(frozen, x).radius >= 0).all()


def test_a_step_that_nobody_folded_is_noticed_inside_a_residual(seed):
    network = nn.Sequential(Residual(constrain(nn.Linear(4, 4), RowL1Ball())))
    network[0].f.weight.data.mul_(3)
    with pytest.raises(TightlipError, match="hold"):
        network(torch.ones(1, 4))


class TenTimes(nn.Linear):
    def forward(self, x):
        return 10 * super().forward(x)


def hooked():
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, inputs, output: 10 * output)
    return layer


@pytest.mark.parametrize(
    "make", [lambda: TenTimes(4, 4), hooked, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))]
)
def test_an_altered_layer_inside_a_residual_is_refused_with_its_place(make):
    network = nn.Sequential(nn.ReLU(), Residual(nn.ReLU(), Residual(make())))
    with pytest.raises(TightlipError, match=r"at '1\.f\.1\.f'|remove_parametrizations"):
        lipschitz(network, 2)
    with pytest.raises(TightlipError, match=r"'1\.f\.1\.f'|remove_parametrizations"):
        certify(network, torch.ones(1, 4))


def test_an_altered_residual_is_refused():
    replaced, watched = Residual(nn.ReLU()), Residual(nn.ReLU())
    replaced.forward = lambda x: 10 * x
    watched.f.register_forward_hook(lambda module, inputs, output: 10 * output)
    for block in (replaced, watched):
        with pytest.raises(TightlipError, match="has been replaced|forward hook"):
            lipschitz(nn.Sequential(block), 2)


def test_the_audit_lists_what_is_in_a_residual_and_it_travels(seed):
    block = Residual(nn.Linear(4, 4), nn.ReLU())
    rows = lipschitz(nn.Sequential(nn.Flatten(), block), 2, 2).layers
    assert [(name, text) for name, text, _ in rows][2:] == [("1.f.1", "ReLU()"), ("1", "Sum(0.5, 0.5)")]
    assert list(block.state_dict()) == ["f.0.weight", "f.0.bias"]
    x = torch.randn(3, 4)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), torch.export.export(block, (x,)).module()):
        assert torch.equal(other(x), block(x))
