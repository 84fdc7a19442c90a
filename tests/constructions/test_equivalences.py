import itertools
import math

import pytest
import torch
from torch import nn

from tightlip import Abs, FullSort, GroupSort, MaxMin, Maxout, TightlipError, lipschitz
from tightlip.constructions import (
    abs_from_max_min,
    crelu_from_max_min,
    full_sort_from_max_min,
    leaky_relu_from_max_min,
    max_min_from_abs,
    max_min_from_full_sort,
    maxout_from_group_sort,
    relu_from_max_min,
)

ALL = (1, 2, math.inf)
REACH = 3.0
CASES = {
    "abs": (lambda n: abs_from_max_min(n), torch.abs, (2,)),
    "max_min_from_abs": (lambda n: max_min_from_abs(n, REACH), MaxMin(), (2,)),
    "max_min_from_full_sort": (lambda n: max_min_from_full_sort(n, REACH), MaxMin(), ALL),
    "full_sort": (lambda n: full_sort_from_max_min(n, REACH), FullSort(), ALL),
    "relu": (lambda n: relu_from_max_min(n), torch.relu, ALL),
    "leaky": (lambda n: leaky_relu_from_max_min(n, 0.3), nn.LeakyReLU(0.3), (math.inf,)),
    "crelu": (lambda n: crelu_from_max_min(n), lambda x: torch.cat((x.relu(), (-x).relu()), -1), ALL),
    "maxout": (lambda n: maxout_from_group_sort(n, 2), Maxout(2), ALL),
}


def inputs(n, count=500):
    """Random ones within reach, corners of the cube, and ties."""
    generator = torch.Generator().manual_seed(n)
    x = (torch.rand(count, n, generator=generator, dtype=torch.float64) * 2 - 1) * REACH
    return torch.cat((x, x.sign() * REACH, x.round(), torch.zeros(1, n, dtype=torch.float64)))


@pytest.mark.parametrize("n", [2, 6, 8])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_activation(name, n):
    make, activation, _ = CASES[name]
    x = inputs(n)
    assert (make(n)(x) - activation(x)).abs().max() < 1e-10
    assert make(n)(x.reshape(-1, 1, n)).shape == (len(x), 1, activation(x).shape[-1])


@pytest.mark.parametrize("name", CASES)
def test_every_weight_has_norm_one_where_it_is_said_to_and_more_elsewhere(name):
    make, _, norms = CASES[name]
    for p in ALL:
        constants = [lipschitz(layer, p, p).constant for layer in make(6) if isinstance(layer, nn.Linear)]
        if p in norms:
            assert constants == pytest.approx([1.0] * len(constants), abs=1e-12)
            assert lipschitz(make(6), p, p).constant <= 1 + 1e-9
        else:
            assert max(constants) > 1.04


@pytest.mark.parametrize("name", CASES)
def test_only_plain_layers_and_the_one_activation_are_used(name):
    kinds = {type(layer) for layer in CASES[name][0](4)}
    assert len(kinds) == 2
    assert kinds < {nn.Linear, MaxMin, FullSort, GroupSort, Abs}


@pytest.mark.parametrize("n", range(1, 11))
def test_the_sorting_network_sorts_every_vector_of_zeros_and_ones_so_everything(n):
    """The 0-1 principle: a network of comparators that sorts these sorts all vectors."""
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
    assert torch.equal(full_sort_from_max_min(n, 1.0)(x), x.sort(-1).values)


def test_the_sorting_network_moves_entries_and_nothing_else():
    network = full_sort_from_max_min(6)
    for layer in (layer for layer in network if isinstance(layer, nn.Linear)):
        assert layer.bias is None
        assert torch.equal(layer.weight.sort(1).values[:, -1], torch.ones(6, dtype=torch.float64))
        assert torch.equal(layer.weight.sum(0), torch.ones(6, dtype=torch.float64))
    x = inputs(6)
    assert torch.equal(network(x), x.sort(-1).values)


def test_fewer_layers_would_not_sort():
    network = full_sort_from_max_min(6)
    assert sum(type(layer) is MaxMin for layer in network) == 6
    every = torch.tensor(list(itertools.permutations(range(6))), dtype=torch.float64)
    short = nn.Sequential(*list(network)[4:])
    assert not torch.equal(short(every), every.sort(-1).values)


def test_maxout_takes_any_group_size():
    x = inputs(12)
    assert torch.equal(maxout_from_group_sort(12, 4)(x), Maxout(4)(x))


def test_the_slope_decides_the_norm_of_the_leaky_matrix():
    for slope in (0.0, 0.3, 1.0):
        matrix = leaky_relu_from_max_min(3, slope)[0]
        assert lipschitz(matrix, 2, 2).constant == pytest.approx(math.hypot(1, slope), rel=1e-9)
        assert lipschitz(matrix, 1, 1).constant == pytest.approx(1 + slope, rel=1e-9)
        assert lipschitz(matrix, math.inf).constant == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("make", [max_min_from_abs, max_min_from_full_sort])
def test_beyond_its_reach_it_is_something_else(make):
    x = 100 * inputs(4)
    assert (make(4, REACH)(x) - MaxMin()(x)).abs().max() > 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: abs_from_max_min(0), "n must be an integer ≥ 1"),
        (lambda: relu_from_max_min(-1), "n must be an integer ≥ 1"),
        (lambda: max_min_from_abs(3, 1.0), "even"),
        (lambda: max_min_from_full_sort(5, 1.0), "even"),
        (lambda: max_min_from_abs(4, math.inf), "finite number > 0, got inf"),
        (lambda: max_min_from_full_sort(4, 0.0), "finite number > 0, got 0.0"),
        (lambda: full_sort_from_max_min(3), "give reach"),
        (lambda: full_sort_from_max_min(3, math.nan), "finite number > 0, got nan"),
        (lambda: leaky_relu_from_max_min(2, 1.5), "slope must be a finite number ≥ 0 and ≤ 1"),
        (lambda: leaky_relu_from_max_min(2, math.nan), "slope must be a finite number ≥ 0 and ≤ 1"),
        (lambda: maxout_from_group_sort(5, 2), "multiple of 2"),
        (lambda: maxout_from_group_sort(4, 0), "integer ≥ 1"),
        (lambda: crelu_from_max_min(0), "n must be an integer ≥ 1"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(make, says):
    with pytest.raises(TightlipError, match=says):
        make()
