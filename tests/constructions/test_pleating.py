"""Zigzags as networks of two units: as near as asked, never steeper than K, and folded from a straight path."""

import math

import numpy as np
import pytest
import torch
from slopes import largest_slope
from torch import nn

from tightlip import MaxMin, Scale, TightlipError, lipschitz
from tightlip.constructions import pleating, zigzag_interpolant

CORNERS, HEIGHTS = torch.tensor([0.0, 2.0, 3.0, 5.0]), torch.tensor([0.0, 2.0, 1.0, 3.0])


def random_samples(n, seed):
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.rand(n, generator=generator, dtype=torch.float64) + 0.01
    rises = gaps * (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
    return gaps.cumsum(0) - 3, rises.cumsum(0)


def zigzag(points, values, x):
    """Between two samples up first or down first, whichever goes on as the way before did: either is an envelope."""
    order = points.argsort()
    at = torch.searchsorted(points[order], x).clamp(1, len(points) - 1)
    (a, below), (b, above) = ((points[order][i], values[order][i]) for i in (at - 1, at))
    upper, lower = torch.minimum(below + x - a, above + b - x), torch.maximum(below - x + a, above - b + x)
    return upper, lower


@pytest.mark.parametrize("error", [0.1, 1e-2, 1e-4, 1e-7, 1e-10])
def test_the_zigzag_that_no_such_network_is_comes_as_near_as_asked(error):
    network = zigzag_interpolant(CORNERS, HEIGHTS, error)
    x = torch.linspace(0, 5, 2001, dtype=torch.float64)
    g = torch.minimum(x, torch.maximum(4 - x, x - 2))
    off = float((network(x[:, None])[:, 0] - g).abs().max().detach())
    assert off == pytest.approx(error, rel=1e-3), "all of the error is used up: as few folds as will do"
    assert len(network) // 2 <= 4 + math.log10(1 / error)


def test_layers_have_two_units_and_orthogonal_weights_and_the_slope_is_one_but_for_the_error():
    network = zigzag_interpolant(CORNERS, HEIGHTS, 1e-6)
    assert {type(layer) for layer in network} == {nn.Linear, MaxMin}
    first, *inner, last = [layer.weight for layer in network if isinstance(layer, nn.Linear)]
    assert first.shape == (2, 1) and last.shape == (1, 2) and {w.shape for w in inner} == {(2, 2)}
    for weight in (first, *inner, last.mT):
        torch.testing.assert_close(weight.mT @ weight, torch.eye(weight.shape[1]).double(), rtol=0, atol=1e-14)
    assert lipschitz(network, 2).constant <= 1 + 1e-10
    x = torch.tensor([[0.5], [2.5], [4.5]], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(network(x).sum(), x)
    torch.testing.assert_close(slopes[:, 0], torch.tensor([1.0, -1.0, 1.0]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n, seed", [(2, 0), (3, 1), (8, 2), (8, 3), (25, 4)])
def test_random_samples_are_met_and_every_way_between_them_is_an_envelope(n, seed):
    points, values = random_samples(n, seed)
    network = zigzag_interpolant(points.flip(0), values.flip(0), 1e-5)
    assert float((network(points[:, None])[:, 0] - values).detach().abs().max()) <= 1.0001e-5
    x = torch.linspace(float(points.min()), float(points.max()), 3001, dtype=torch.float64)
    upper, lower = zigzag(points, values, x)
    with torch.no_grad():
        f = network(x[:, None])[:, 0]
    assert bool((torch.minimum((f - upper).abs(), (f - lower).abs()) <= 1.1e-5).all())
    assert largest_slope(network, (1,), 2, 2) <= 1 + 1e-10


@pytest.mark.parametrize("unit", [1e-130, 1e-3, 1e6, 1e130])
def test_units_do_not_matter(unit):
    network = zigzag_interpolant(CORNERS.double() * unit, HEIGHTS.double() * unit, 1e-4 * unit)
    plain = zigzag_interpolant(CORNERS, HEIGHTS, 1e-4)
    x = torch.linspace(0, 5, 101, dtype=torch.float64)[:, None]
    torch.testing.assert_close(network(unit * x) / unit, plain(x), rtol=0, atol=1e-13)


def test_other_constants_end_in_a_scale():
    network = zigzag_interpolant(CORNERS, 3 * HEIGHTS, 1e-5, K=3)
    assert isinstance(network[-1], Scale)
    torch.testing.assert_close(network(CORNERS[:, None].double())[:, 0], 3 * HEIGHTS.double(), rtol=0, atol=1e-5)
    assert 3 * (1 - 1e-5) <= lipschitz(network, 2).constant <= 3 * (1 + 1e-10)


def test_lines_and_single_values_are_zigzags_too():
    line = zigzag_interpolant(np.array([1.0, 4.0]), np.array([5.0, 2.0]))
    torch.testing.assert_close(line(torch.tensor([[2.0]]).double()).item(), 4.0)
    for points, values in (([2.0], [7.0]), ([2.0, 2.0], [7.0, 7.0])):
        constant = zigzag_interpolant(torch.tensor(points), torch.tensor(values))
        assert constant(torch.tensor([[-9.0], [9.0]]).double()).flatten().tolist() == [7.0, 7.0]


@pytest.mark.parametrize("opening", [0.4, 0.03, 1e-5])
@pytest.mark.parametrize("seed", range(4))
def test_every_fold_backwards_opens_a_corner_and_folds_forwards_give_the_path(seed, opening):
    generator = np.random.default_rng(seed)
    ways = generator.uniform(0.1, 1.0, 7) * (-1.0) ** np.arange(7)
    path = pleating.pleats(ways, opening)
    folds, straight = pleating.unfold(path)
    lengths = np.linalg.norm(np.diff(straight, axis=0), axis=1)
    np.testing.assert_allclose(lengths, np.abs(ways), rtol=1e-12)
    for point, along in folds:
        left = np.array([-along[1], along[0]])
        height = (straight - point) @ left
        straight = straight + np.outer(np.abs(height) - height, left)
    np.testing.assert_allclose(straight, path, atol=1e-12)


def test_a_path_that_is_folded_flat_cannot_be_unfolded():
    with pytest.raises(TightlipError, match="corners of .* radians were left"):
        pleating.unfold(pleating.pleats(np.array([2.0, -1.0, 2.0]), 0.0))


@pytest.mark.parametrize(
    ("points", "values", "options", "says"),
    [
        ([0.0, 1.0], [0.0, 2.0], {}, "K = 1 allows"),
        ([0.0, 0.0], [0.0, 1.0], {}, "K = 1 allows"),
        ([0.0, 1.0], [0.0], {}, "values"),
        ([0.0, float("nan")], [0.0, 1.0], {}, "finite"),
        ([], [], {}, "sample|point"),
        ([0.0, 1.0], [0.0, 1.0], {"error": 0.0}, "error"),
        ([0.0, 1.0], [0.0, 0.5], {"error": 1e-15}, "error must be at least 1e-12"),
        ([0.0, 1.0], [0.0, 1.0], {"K": -1.0}, "constant K"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(points, values, options, says):
    with pytest.raises(TightlipError, match=says) as caught:
        zigzag_interpolant(torch.tensor(points), torch.tensor(values), **options)
    assert "\n" not in str(caught.value)
