import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from truths import linear

from tightlip import MaxMin, Orthonormal, TightlipError, constrain, lipschitz, mlp
from tightlip.constructions import abs_from_max_min, replace_by_polar

GRID = torch.cartesian_prod(*[torch.linspace(-5, 5, 21, dtype=torch.float64)] * 2)


def folded(first):
    """max(|z₁|, |z₂| − 1), z = Wx, with orthonormal layers after W."""
    both = abs_from_max_min(2)
    below = linear(both[2].weight.tolist(), [0.0, -1.0])
    return nn.Sequential(linear(first), both[0], both[1], below, MaxMin(), linear([[0.0, 1.0]]))


def test_theorem_2_replaces_one_weight_without_harm_where_the_rest_does_not_look_at_the_weak_directions():
    network = nn.Sequential(linear([[0.0, 1.0], [0.3, 0.0]]), linear([[1.0, 0.0], [-1.0, 0.0]]), MaxMin())
    network.append(linear([[0.0, 1.0]]))  # |x₂|, of slope 1, whatever becomes of the 0.3
    replaced, difference = replace_by_polar(network, GRID, layers=["0"])
    assert difference < 1e-12
    assert torch.allclose(replaced[0].weight, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    assert torch.allclose(replaced(GRID), GRID[:, 1:].abs())


def test_in_general_the_function_changes_and_the_difference_says_by_how_much():
    """W = diag(1, 0): f = |x₁| has slope 1 almost everywhere, and yet with W̃ = diag(1, ±1) it is another function."""
    network = folded([[1.0, 0.0], [0.0, 0.0]])
    assert torch.allclose(network(GRID), GRID[:, :1].abs())
    replaced, difference = replace_by_polar(network, GRID, layers=["0"])
    assert torch.allclose(replaced(GRID), torch.maximum(GRID[:, :1].abs(), GRID[:, 1:].abs() - 1))
    assert difference == pytest.approx(4)  # at (0, 5)
    assert replace_by_polar(network, GRID[GRID[:, 1] == 0]).difference < 1e-12  # these inputs do not show it


def test_every_linear_weight_is_replaced_wherever_it_stands_and_the_original_stays():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), MaxMin(), nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)))
    before = copy.deepcopy(network.state_dict())
    replaced, difference = replace_by_polar(network, torch.randn(9, 4))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert network.training
    assert difference > 0.01
    for old, new in ((network[0], replaced[0]), (network[2][0], replaced[2][0])):
        u, _, vh = torch.linalg.svd(old.weight.double(), full_matrices=False)
        assert torch.allclose(new.weight.double(), u @ vh, atol=1e-6)
        assert torch.equal(new.bias, old.bias)
        assert new.weight.dtype == torch.float32
    assert lipschitz(replaced[:2], 2, 2).constant == pytest.approx(1, rel=1e-6)


def test_the_difference_is_the_largest_of_any_input_and_output():
    network = nn.Sequential(linear([[0.5, 0.0], [0.0, 2.0]]))
    assert replace_by_polar(network, torch.tensor([[1.0, 1.0], [3.0, -4.0]]).double()).difference == 4.0


@pytest.mark.parametrize(
    ("network", "x", "layers", "says"),
    [
        (nn.Sequential(nn.Linear(2, 2)), GRID.float(), ["1"], "'0'"),
        (nn.Sequential(nn.ReLU()), GRID, None, "none"),
        (nn.Sequential(constrain(nn.Linear(2, 2), Orthonormal())), GRID.float(), None, "freeze"),
        (mlp([2, 4, 1], hold="forward"), GRID.float(), None, "freeze"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))), GRID.float(), None, "remove_parametrizations"),
        (nn.Sequential(nn.Linear(2, 2)), GRID.float()[:0], None, "at least one"),
        (nn.Sequential(nn.Linear(2, 2)), torch.full((1, 2), math.nan), None, "finite inputs"),
        (nn.Sequential(nn.Linear(2, 2)), torch.full((1, 2), math.inf), None, "finite inputs"),
    ],
)
def test_what_cannot_be_replaced_is_one_sentence(network, x, layers, says):
    with pytest.raises(TightlipError, match=says):
        replace_by_polar(network, x, layers)
