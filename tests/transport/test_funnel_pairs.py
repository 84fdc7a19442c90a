"""Funnel pairs are the published ones bit for bit, and their W1, potential and gradient are what they say."""

import hashlib
import itertools
import re

import pytest
import torch
from slopes import largest_slope
from torch import nn

from tightlip import TightlipError
from tightlip.experiments.published_solvers import W1
from tightlip.transport import FunnelPair, assign
from tightlip.transport.funnel_pairs import DIMENSIONS, FUNNELS, HALF

SIZES = [(1, 1), (2, 1), (2, 4), (3, 16), (16, 64), (64, 4)]

PUBLISHED = "13306685dba69c70ac9080bf0ff191c0849ef6c03a591e5de8e2e9441495be06"
"""Of the 28 published files: centers and offsets in float32, pair after pair."""


@pytest.fixture(params=SIZES, ids=str, name="pair")
def _pair(request):
    return FunnelPair(*request.param)


def coupled(pair, count=4000, seed=0):
    return pair.coupled(count, torch.Generator().manual_seed(seed))


def test_centers_and_offsets_are_the_published_ones_bit_for_bit():
    digest = hashlib.sha256()
    for pair in itertools.starmap(FunnelPair, itertools.product(DIMENSIONS, FUNNELS)):
        digest.update(pair.centers.numpy().tobytes() + pair.offsets.numpy().tobytes())
    assert digest.hexdigest() == PUBLISHED
    assert (FunnelPair(2, 4).dimension, FunnelPair(2, 4).funnels) == (2, 4)
    assert not torch.equal(FunnelPair(2, 4, 11).centers, FunnelPair(2, 4).centers)


def test_both_are_in_the_cube_and_the_second_is_uniform(pair):
    x, y = coupled(pair, 20_000)
    assert x.abs().max() <= HALF * (1 + 1e-12) and y.abs().max() <= HALF
    assert float((x[:1] - y[:1]).norm()) <= pair.diameter
    assert (y.mean(0) / HALF).abs().max() < 0.04 and (3 * y.square().mean(0) / HALF**2 - 1).abs().max() < 0.05


def test_points_move_down_their_funnel_by_exactly_what_the_potential_rises(pair):
    x, y = coupled(pair)
    length = torch.linalg.vector_norm(x - y, dim=1)
    assert (pair.potential(x) - pair.potential(y) - length).abs().max() < 1e-12
    assert (length * pair.gradient(y).mT - (x - y).mT).abs().max() < 1e-9  # along −∇u


def test_the_share_of_a_line_becomes_its_eighth_power():
    """The end of a line is searched for: where u stops rising at rate 1, or the cube ends."""
    pair = FunnelPair(3, 16)
    x, y = coupled(pair, 200)
    step = -pair.gradient(y)
    near = (torch.cdist(y, pair.centers.double()) + pair.offsets.double()).argmin(1)
    base = torch.linalg.vector_norm(y - pair.centers.double()[near], dim=1)
    low, high = torch.zeros(200).double(), torch.full((200,), 10.0).double()
    for _ in range(60):
        middle = (low + high) / 2
        ends = y + middle[:, None] * step
        on = (pair.potential(y) - pair.potential(ends) - middle).abs() < 1e-9
        on &= (ends.abs() <= HALF).all(1)
        low, high = torch.where(on, middle, low), torch.where(on, high, middle)
    full = base + low
    moved = base - torch.linalg.vector_norm(x - y, dim=1)
    assert (moved - full * (base / full) ** 8).abs().max() < 1e-6


@pytest.mark.parametrize(("dimension", "funnels"), [(2, 4), (4, 16), (16, 64)])
def test_no_pairing_of_coupled_points_is_cheaper(dimension, funnels):
    x, y = coupled(FunnelPair(dimension, funnels), 300)
    cost = float(torch.linalg.vector_norm(x - y, dim=1).mean())
    found = assign(x, y, tolerance=1e-4)
    assert found.lower <= cost and cost <= found.upper + 1e-12 and cost <= found.lower * (1 + 1.1e-4)


@pytest.mark.parametrize(("dimension", "funnels"), [(2, 4), (2, 256), (8, 16), (32, 4)])
def test_the_truth_is_near_the_published_one(dimension, funnels):
    truth, error = FunnelPair(dimension, funnels).wasserstein1(40_000, torch.Generator().manual_seed(0))
    assert truth == pytest.approx(W1[dimension, funnels][-1], rel=0.03) and 0 < error < 0.01 * truth


def test_a_published_value_that_is_off_is_recomputed():
    truth, error = FunnelPair(64, 4).wasserstein1(200_000, torch.Generator().manual_seed(1))
    assert truth == pytest.approx(1.451, abs=0.01) and error < 0.004
    assert W1[64, 4][-1] == 1.411


def test_the_potential_is_lipschitz_and_its_gradient_is_the_gradient(pair):
    class Potential(nn.Module):
        def forward(self, x):
            return pair.potential(x)[..., None]

    assert 0.999 < largest_slope(Potential().double(), (pair.dimension,), 2, 2, points=64) <= 1 + 1e-9
    x = coupled(pair, 100)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(pair.potential(x).sum(), x)
    assert (gradient - pair.gradient(x.detach())).abs().max() < 1e-9
    assert not pair.gradient(pair.centers.double()[pair.offsets.argmin()]).any()
    assert pair.potential(x[0]).shape == () and pair.gradient(x[:0]).shape == (0, pair.dimension)


def test_training_samples_are_of_the_same_distributions_and_not_coupled():
    pair = FunnelPair(8, 16)
    x, y = pair.sample(20_000, torch.Generator().manual_seed(3))
    first, second = coupled(pair, 20_000)
    assert x.dtype == y.dtype == torch.float32
    assert (x.mean(0) - first.mean(0)).abs().max() < 0.06 and (x.std(0) - first.std(0)).abs().max() < 0.05
    assert float((x - y).norm(dim=1).mean()) > 2 * float((first - second).norm(dim=1).mean())
    again = pair.sample(20_000, torch.Generator().manual_seed(3), torch.float64)
    assert torch.equal(again[0].float(), x) and again[1].dtype == torch.float64


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: FunnelPair(0, 4), "dimension must be an integer ≥ 1, got 0"),
        (lambda: FunnelPair(2, 0), "funnels must be an integer ≥ 1, got 0"),
        (lambda: FunnelPair(2, 4, -1), "seed must be an integer ≥ 0, got -1"),
        (lambda: FunnelPair(2, 4).sample(0), "count must be an integer ≥ 1, got 0"),
        (lambda: FunnelPair(2, 4).wasserstein1(1), "count must be an integer ≥ 2, got 1"),
        (lambda: FunnelPair(2, 4).potential(torch.zeros(5, 3)), "floating point, (…, 2), got (5, 3)"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(ask, said):
    with pytest.raises(TightlipError, match=re.escape(said)):
        ask()
