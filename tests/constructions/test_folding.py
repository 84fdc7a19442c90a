import math

import pytest
import torch
from slopes import jacobians, largest_slope
from torch import nn

from tightlip import Abs, TightlipError, lipschitz
from tightlip.constructions import fold, square_pyramids

PLANE = torch.cartesian_prod(*[torch.linspace(-5, 5, 41, dtype=torch.float64)] * 2)


def pyramids(x, first, second, height):
    """Written down again, from apexes and axes."""
    first, second = torch.tensor(first).double(), torch.tensor(second).double()
    along = (second - first) / (second - first).norm()
    across = torch.stack((-along[1], along[0]))
    depth = [torch.maximum(((x - a) @ along).abs(), ((x - a) @ across).abs()) for a in (first, second)]
    return height - torch.minimum(*depth)[:, None]


@pytest.mark.parametrize(
    ("first", "second", "height"),
    [
        ([-2.0, 0.0], [2.0, 0.0], 1.0),
        ([3.0, 1.0], [-1.0, 1.0], 0.0),
        ([0.5, -2.0], [0.5, 3.0], 2.0),
        ([1, 2], [-3, 0], -1.5),
    ],
)
def test_three_foldings_make_two_square_pyramids(first, second, height):
    network = square_pyramids(first, second, height)
    assert (network(PLANE) - pyramids(PLANE, first, second, height)).abs().max() < 1e-10
    assert sum(isinstance(layer, Abs) for layer in network) == 3
    assert lipschitz(network, 2).constant == pytest.approx(1, abs=1e-9)


def test_the_apexes_are_the_only_peaks_and_the_valley_lies_between_them():
    network = square_pyramids([-2.0, 0.0], [2.0, 0.0], 1.0)
    peaks = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0], [3.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    assert network(peaks)[:, 0].tolist() == pytest.approx([1, 1, -1, 0, 0], abs=1e-12)


def test_the_slope_is_one_almost_everywhere_and_never_more():
    network = square_pyramids([-2.0, 0.5], [1.0, 1.0])
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(jacobians(network, x).norm(dim=-1), torch.ones(200, 1, dtype=torch.float64))
    assert 1 - 1e-9 < largest_slope(network, (2,), 2, 2, steps=30) < 1 + 1e-9


@pytest.mark.parametrize("offset", [-0.7, 0.0, 1.3])
@pytest.mark.parametrize("normal", [[1.0], [-2.0], [1.0, 0.0], [-1.0, 0.0], [0.3, -0.4], [1.0, 2.0, -3.0, 0.5]])
def test_a_fold_mirrors_one_side_of_a_hyperplane_onto_the_other(normal, offset):
    x = torch.randn(200, len(normal), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = torch.tensor(normal, dtype=torch.float64) / math.hypot(*normal)
    side = x @ unit - offset
    folded = torch.where((side < 0)[:, None], x - 2 * side[:, None] * unit, x)
    network = fold(normal, offset, reach=10.0)
    assert (network(x) - folded).abs().max() < 1e-10
    assert (network(x) @ unit >= offset - 1e-10).all()
    assert lipschitz(network, 2, 2).constant == pytest.approx(1, abs=1e-9)


def test_weights_are_orthogonal():
    layers = [layer for layer in fold([1.0, 2.0, -3.0], 1.0, 10.0) if isinstance(layer, nn.Linear)]
    layers += list(square_pyramids([0.0, 1.0], [2.0, 2.0]))[:5:2]
    for layer in layers:
        identity = torch.eye(layer.in_features, dtype=torch.float64)
        assert torch.allclose(layer.weight @ layer.weight.mT, identity, atol=1e-14)


def test_beyond_its_reach_a_fold_folds_more():
    x = torch.tensor([[5.0, -20.0], [5.0, 20.0]], dtype=torch.float64)
    assert not torch.allclose(fold([1.0, 0.0], 0.0, reach=10.0)(x), x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fold([0.0, 0.0], 0.0, 1.0), "normal must be a vector other than zero"),
        (lambda: fold([1.0, math.nan], 0.0, 1.0), "normal must be a list of finite numbers"),
        (lambda: fold([1.0, 0.0], math.inf, 1.0), "offset must be a finite number, got inf"),
        (lambda: fold([1.0, 0.0], 0.0, 0.0), "reach, .*, must be a finite number > 0, got 0.0"),
        (lambda: square_pyramids([0.0, 1.0], [0.0, 1.0]), "two different points"),
        (lambda: square_pyramids([0.0, 1.0, 2.0], [0.0, 1.0, 3.0]), "points of the plane"),
        (lambda: square_pyramids([0.0, math.nan], [0.0, 1.0]), "first must be a list of finite numbers"),
        (lambda: square_pyramids([0.0, 0.0], [0.0, 1.0], math.nan), "height must be a finite number, got nan"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(make, says):
    with pytest.raises(TightlipError, match=says):
        make()
