"""How fast a function changes with one feature: never below a slope that is found, exact where it is linear."""

import math

import pytest
import torch
from slopes import jacobians
from torch import nn
from truths import linear

from tightlip import MaxMin, Normalize, TightlipError, feature_slopes, freeze, lipschitz, mlp


def test_of_a_linear_map_they_are_the_norms_of_its_columns():
    network = linear([[3.0, -0.5], [4.0, 0.25]])
    assert feature_slopes(network, 2).tolist() == pytest.approx([4.0, 0.5], rel=1e-12)
    assert feature_slopes(network, 2, q=2).tolist() == pytest.approx([5.0, math.hypot(0.5, 0.25)], rel=1e-12)
    assert feature_slopes(network, 2, [1]).tolist() == pytest.approx([0.5], rel=1e-12)


def test_no_partial_derivative_is_above_and_units_are_each_features_own():
    torch.manual_seed(0)
    std = torch.tensor([1.0, 100.0, 0.01])
    layers = (nn.Linear(3, 8), MaxMin(), nn.Linear(8, 2))
    network = nn.Sequential(Normalize([1.0, 2.0, 3.0], std.tolist()), *layers).double()
    jacobian = jacobians(network, torch.randn(2000, 3, dtype=torch.float64) * std)
    for q in (1.0, 2.0, math.inf):
        proven, found = feature_slopes(network, 3, q=q), torch.linalg.vector_norm(jacobian, q, dim=1).amax(0)
        assert (found <= proven).all() and (proven < 8 * found).all()
        assert (proven <= lipschitz(network, 1, q).constant * (1 + 1e-12)).all()  # alone, one moves by its 1-norm


def test_far_units_neither_vanish_nor_overflow():
    for std in (1e-200, 1e200):
        network = nn.Sequential(Normalize([0.0, 0.0], [1.0, 1.0]).double(), linear([[1.0, 1.0]]))
        network[0].std = torch.tensor([1.0, std], dtype=torch.float64)
        assert feature_slopes(network, 2).tolist() == pytest.approx([1.0, 1 / std], rel=1e-9)


def test_a_feature_that_is_not_there_is_one_sentence():
    network = freeze(mlp([3, 4, 1]))
    for features in ([3], [-1], [True]):
        with pytest.raises(TightlipError, match="feature must be an integer from 0 to 2"):
            feature_slopes(network, 3, features)
    with pytest.raises(TightlipError, match="width must be an integer"):
        feature_slopes(network, 0)
    with pytest.raises(TightlipError, match=r"inputs of shape \(1, 4\) do not fit"):
        feature_slopes(network, 4)
