import inspect
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
    RowL1Ball,
    Scale,
    TightlipError,
    freeze,
    lipschitz,
    mlp,
)
from tightlip.constraints import constraint_of


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_an_mlp_is_a_plain_sequential_of_layers_activations_and_one_scale_which_is_last():
    network = mlp([3, 8, 6, 2], K=5.0)
    assert type(network) is nn.Sequential
    assert [type(layer) for layer in network] == [nn.Linear, MaxMin, nn.Linear, MaxMin, nn.Linear, Scale]
    assert [tuple(layer.weight.shape) for layer in network if type(layer) is nn.Linear] == [(8, 3), (6, 8), (2, 6)]
    assert float(network[-1].scale) == 5.0
    assert network(torch.zeros(7, 3)).shape == (7, 2)


def test_layers_are_orthonormal_and_activations_strided_unless_said_otherwise():
    network = mlp([3, 8, 2])
    assert all(isinstance(constraint_of(layer), Orthonormal) for layer in (network[0], network[2]))
    assert not network[1].contiguous


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("way", ["step", "forward"])
@pytest.mark.parametrize("activation", [MaxMin, FullSort, partial(GroupSort, 4)], ids=["MaxMin", "FullSort", "4"])
def test_the_constant_is_neither_ignored_nor_exceeded(K, way, activation):
    """Peers yield 2.0 for K = 8 and 0.46 for K = 0.1."""
    network = freeze(mlp([12, 8, 8, 3], activation=activation, K=K, hold=way))
    bound = lipschitz(network, 2, 2).constant
    assert 0.99999 * K <= bound <= K
    assert 0.99 * K <= largest_slope(network.double(), (12,), 2, 2) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_in_the_infinity_norm_the_constant_is_attained_by_full_rows(K):
    network = mlp([6, 4, 2], RowL1Ball(), activation=nn.Identity, K=K)
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.fill_(1 / layer.in_features)
    network = freeze(network)
    bound = lipschitz(network, math.inf, math.inf).constant
    assert 0.99999 * K <= bound <= K
    assert largest_slope(network.double(), (6,), math.inf, math.inf) >= 0.99 * K


def test_one_constraint_per_layer():
    network = mlp([4, 6, 6, 2], [Orthonormal(), RowL1Ball(), RowL1Ball()])
    held = [type(constraint_of(layer)) for layer in network if isinstance(layer, nn.Linear)]
    assert held == [Orthonormal, RowL1Ball, RowL1Ball]
    assert lipschitz(freeze(network), 2, math.inf).constant <= 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_constraints_is_refused(count):
    with pytest.raises(TightlipError, match=f"{count} constraints do not fit 2 layers"):
        mlp([4, 6, 2], [Orthonormal()] * count)


@pytest.mark.parametrize("activation", [MaxMin, partial(MaxMin, contiguous=False), partial(GroupSort, 4)])
def test_a_hidden_width_that_does_not_divide_is_refused_at_construction(activation):
    with pytest.raises(TightlipError, match="7 features do not divide"):
        mlp([4, 8, 7, 2], activation=activation)


def test_odd_inputs_and_outputs_are_fine():
    assert mlp([5, 8, 3])(torch.zeros(2, 5)).shape == (2, 3)
    assert mlp([5, 7, 3], activation=FullSort)(torch.zeros(2, 5)).shape == (2, 3)
    assert mlp([5, 1])(torch.zeros(2, 5)).shape == (2, 1)


@pytest.mark.parametrize("widths", [[], [3], [3, 0, 2], [3, -4, 2]])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(TightlipError, match="widths must be at least two integers"):
        mlp(widths)


@pytest.mark.parametrize("K", [0.0, -1.0, math.nan, math.inf])
def test_impossible_constants_are_refused(K):
    with pytest.raises(TightlipError, match="give a finite number > 0"):
        mlp([3, 2], K=K)


def test_a_constraint_class_instead_of_an_instance_is_one_sentence():
    with pytest.raises(TightlipError, match=r"constraint must be a constraint such as Orthonormal\(\), .* got <class"):
        inspect.unwrap(mlp)([3, 2], Orthonormal)


def test_every_activation_is_a_module_of_its_own():
    network = mlp([4, 6, 6, 2])
    assert network[1] is not network[3]


def test_bias_may_be_left_out_and_the_seed_decides_the_weights():
    network = mlp([4, 6, 2], bias=False)
    assert all(layer.bias is None for layer in network if isinstance(layer, nn.Linear))
    assert torch.equal(network(torch.zeros(1, 4)), torch.zeros(1, 2))
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(mlp([4, 6, 2])[0].weight)
    assert torch.equal(*weights)


def test_an_activation_that_changes_the_width_is_followed_by_a_layer_that_fits():
    class Pair(nn.Module):
        def forward(self, x):
            return torch.cat((x, -x), -1)

    network = mlp([4, 6, 2], activation=Pair)
    assert network[2].in_features == 12
