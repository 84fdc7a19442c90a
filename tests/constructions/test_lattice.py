import math
from functools import partial

import pytest
import torch
from slopes import largest_slope
from torch import nn

from tightlip import (
    FullSort,
    GroupSort,
    MaxMin,
    Orthonormal,
    RowDualBall,
    RowL1Ball,
    Scale,
    TightlipError,
    freeze,
    lipschitz,
    mlp,
)
from tightlip.constructions import maximum, minimum

NORMS = (1, 2, math.inf)


def member(widths, p, K=1.0, activation=MaxMin, seed=0, bias=True):
    """A frozen network of the class, in float64, with biases that matter."""
    torch.manual_seed(seed)
    constraints = [RowDualBall(p), *[RowL1Ball()] * (len(widths) - 2)]
    network = mlp(widths, constraints, activation, K=K, bias=bias).double()
    return freeze(network)


def inputs(n=3):
    return 3 * torch.randn(400, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def check(network, expected, p, K=1.0):
    x = inputs()
    assert (network(x) - expected(x)).abs().max() < 1e-10
    assert lipschitz(network, p, math.inf).constant <= K * (1 + 1e-9)
    assert {type(layer) for layer in network} <= {nn.Linear, MaxMin, Scale}


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize(("one", "other"), [([3, 8, 6, 1], [3, 4, 10, 1]), ([3, 1], [3, 1]), ([3, 8, 5], [3, 2, 5])])
def test_the_larger_and_the_smaller_of_two_networks_are_networks_of_the_class(one, other, p):
    f, g = member(one, p), member(other, p, seed=1)
    check(maximum(f, g, p), lambda x: torch.maximum(f(x), g(x)), p)
    check(minimum(f, g, p), lambda x: torch.minimum(f(x), g(x)), p)
    x = inputs()
    assert 20 < int((f(x) > g(x)).sum()) < f(x).numel() - 20  # both are needed


@pytest.mark.parametrize("depths", [(1, 4), (4, 2), (2, 1)])
def test_the_shallower_network_is_extended(depths):
    f, g = (member([3, *[6] * (depth - 1), 2], 2, seed=depth) for depth in depths)
    check(maximum(f, g, 2), lambda x: torch.maximum(f(x), g(x)), 2)


LAYOUTS = [MaxMin, partial(MaxMin, contiguous=False), partial(GroupSort, 2), partial(GroupSort, 2, contiguous=False)]


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_both_layouts_of_pairs_are_understood(first, second):
    f, g = member([3, 8, 6, 1], 2, activation=first), member([3, 6, 8, 1], 2, activation=second, seed=1)
    check(minimum(f, g, 2), lambda x: torch.minimum(f(x), g(x)), 2)


@pytest.mark.parametrize("p", NORMS)
def test_results_can_be_combined_again(p):
    f, g, h, k = (member([3, *[4] * depth, 1], p, seed=depth) for depth in range(4))
    network = maximum(minimum(f, g, p), minimum(maximum(h, k, p), f, p), p)
    check(
        network,
        lambda x: torch.maximum(torch.minimum(f(x), g(x)), torch.minimum(torch.maximum(h(x), k(x)), f(x))),
        p,
    )
    assert largest_slope(network, (3,), p, math.inf, steps=20) <= 1 + 1e-9


@pytest.mark.parametrize(("K", "L"), [(3.0, 3.0), (3.0, 0.5), (1.0, 8.0)])
def test_the_constant_is_the_larger_one(K, L):
    f, g = member([3, 4, 1], 2, K), member([3, 6, 4, 1], 2, L, seed=1)
    network = maximum(f, g, 2)
    check(network, lambda x: torch.maximum(f(x), g(x)), 2, max(K, L))
    assert lipschitz(network, 2, math.inf).constant > 0.9 * max(K, L)
    assert isinstance(network[-1], Scale)


def test_layers_with_and_without_biases_mix_and_nested_sequentials_are_opened():
    f, g = member([3, 4, 1], 2, bias=False), member([3, 4, 1], 2, seed=1)
    check(maximum(nn.Sequential(f[:1], f[1:3]), g, 2), lambda x: torch.maximum(f(x), g(x)), 2)


def test_the_result_has_weights_of_its_own_that_can_be_trained():
    f, g = member([3, 4, 1], 2), member([3, 4, 1], 2, seed=1)
    network = maximum(f, g, 2)
    network(inputs()).sum().backward()
    before = f[0].weight.clone()
    with torch.no_grad():
        network[0].weight.zero_()
    assert torch.equal(f[0].weight, before)


def test_two_lines_make_the_absolute_value():
    up, down = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    up.weight.data.fill_(1.0), down.weight.data.fill_(-1.0)
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(maximum(up, down, 2)(x), x.abs())
    assert torch.equal(minimum(up, down, 2)(x), -x.abs())
    assert lipschitz(maximum(up, down, 2), 2, math.inf).constant == pytest.approx(1)


def test_networks_bounded_in_the_2_norm_are_refused_and_stacking_them_would_fail():
    f, g = freeze(mlp([3, 8, 8, 1])), freeze(mlp([3, 8, 8, 1]))
    assert lipschitz(f, 2, 2).constant <= 1
    for p in (2, math.inf):
        with pytest.raises(TightlipError, match="RowDualBall"):
            maximum(f, g, p)
    same = torch.cat((f[0].weight, f[0].weight))
    assert torch.linalg.matrix_norm(same, 2) == pytest.approx(math.sqrt(2), rel=1e-5)


def test_a_first_layer_counts_in_the_norm_of_the_inputs():
    """Rows of 2-norm 1 with large L1 norms: of the class for p = 2 and p = 1, not for p = ∞."""
    f, g = member([3, 4, 1], 2), member([3, 4, 1], 2, seed=1)
    for p in (1, 2):
        maximum(f, g, p)
    with pytest.raises(TightlipError, match="from inf to inf"):
        maximum(f, g, math.inf)
    scaled = member([3, 4, 1], 2)
    scaled[2].weight.data.mul_(1.1 / scaled[2].weight.abs().sum())
    with pytest.raises(TightlipError, match="layer '2' has norm 1.1"):
        maximum(scaled, g, 2)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), "ReLU"),
        (lambda: nn.Sequential(nn.Linear(3, 4), FullSort(), nn.Linear(4, 1)), "FullSort"),
        (lambda: nn.Sequential(nn.Linear(3, 4), GroupSort(4), nn.Linear(4, 1)), "GroupSort"),
        (lambda: nn.Sequential(nn.Linear(3, 4), MaxMin(dim=1), nn.Linear(4, 1)), "MaxMin"),
        (lambda: nn.Sequential(MaxMin(), nn.Linear(3, 1)), "'0' stands where"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), "'1' stands where"),
        (lambda: nn.Sequential(Scale(0.5), nn.Linear(3, 1)), "'0' stands where"),
        (lambda: nn.Sequential(nn.Linear(3, 1), Scale(0.5), Scale(0.5)), "ended"),
        (lambda: nn.Sequential(nn.Linear(3, 4), MaxMin()), "last linear layer"),
        (lambda: nn.Sequential(), "last linear layer"),
        (lambda: nn.Sequential(nn.Linear(3, 5), MaxMin(), nn.Linear(5, 1)), "even width"),
        (lambda: mlp([3, 4, 1], RowL1Ball()), "freeze"),
        (lambda: mlp([3, 4, 1], RowL1Ball(), hold="forward"), "frozen"),
        (lambda: nn.Sequential(nn.Linear(3, 2)), "3 → 2"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), "2 → 1"),
        (lambda: nn.Sequential(nn.Linear(3, 1)).double(), "float64"),
    ],
)
def test_what_is_not_of_the_class_or_does_not_fit_is_refused(network, says):
    torch.manual_seed(0)
    network, fine = network(), nn.Linear(3, 1)
    for layer in (*network.modules(), fine):
        if type(layer) is nn.Linear and "freeze" not in says:
            layer.weight.data.mul_(0.1)
    for pair in ((network, fine), (fine, network)):
        with pytest.raises(TightlipError, match=says):
            maximum(*pair, 2)


def test_altered_layers_and_bad_numbers_are_refused():
    fine = nn.Linear(3, 1)
    fine.weight.data.fill_(0.1)
    hooked, broken, negative = nn.Linear(3, 1), nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), Scale(1.0))
    hooked.register_forward_hook(lambda *arguments: None)
    broken.weight.data.fill_(math.nan)
    negative[0].weight.data.fill_(0.1), negative[1].scale.fill_(-1.0)
    for network, says in (
        (hooked, "hook"),
        (broken, "finite"),
        (negative, "the constant in Scale must be a finite number > 0, got -1"),
    ):
        with pytest.raises(TightlipError, match=says):
            minimum(fine, network, 2)
    with pytest.raises(TightlipError, match="no norm is called 3"):
        minimum(fine, fine, 3)


def test_orthonormal_first_layers_are_fine_in_the_2_norm():
    torch.manual_seed(0)
    f = freeze(mlp([3, 4, 1], [Orthonormal(), RowL1Ball()]).double())
    check(maximum(f, member([3, 4, 1], 2), 2), lambda x: torch.maximum(f(x), member([3, 4, 1], 2)(x)), 2)
