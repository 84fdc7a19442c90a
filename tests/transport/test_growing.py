"""Funnels grow into known potentials, also where training them as they stand fails."""

import re

import pytest
import torch

from tightlip import TightlipError, lipschitz
from tightlip.transport import FunnelPair, Funnels, train_critic
from tightlip.transport.distances import nearest
from tightlip.transport.growing import _ends, _start, train_funnels, usual_distance


def exchanged(pair, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda count: pair.sample(count, generator)[::-1]


@torch.no_grad()
def reached(pair, f, count=5000):
    """The share of W1 that f shows; of the coupled points, which vary little."""
    x, y = (points.float() for points in pair.coupled(count, torch.Generator().manual_seed(9)))
    return float((f(y) - f(x)).mean()) / float((x - y).norm(dim=1).mean())


@pytest.mark.parametrize(
    ("dimension", "funnels", "grow", "least"), [(2, 4, False, 0.98), (16, 4, False, 0.97), (32, 4, True, 0.95)]
)
def test_known_potentials_are_found(dimension, funnels, grow, least):
    torch.manual_seed(0)
    pair = FunnelPair(dimension, funnels, seed=5)
    f = train_funnels(exchanged(pair), 250, 512, pieces=128, grow=grow, progress=False)
    assert isinstance(f, Funnels) and not list(f.parameters()) and f.points.shape == (128, dimension)
    assert lipschitz(f, 2).constant == 1.0 and least < reached(pair, f) <= 1 + 1e-5


def test_pieces_do_not_starve_where_they_do_as_they_stand():
    pair, used = FunnelPair(128, 64, seed=5), []
    torch.manual_seed(0)
    plain = Funnels(pair.sample(64)[0], torch.zeros(64), trainable=True)
    train_critic(plain, exchanged(pair), 150, 256, 0.02, progress=False)
    grown = train_funnels(exchanged(pair), 150, 256, pieces=64, progress=False)
    for f in (plain, grown):
        used.append(len(nearest(pair.sample(4000)[0], f.points.detach(), f.offsets.detach(), 2.0).unique()))
    assert used[0] < 20 and used[1] > 55


def test_a_piece_that_moves_out_keeps_its_share():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 64, generator=generator)
    points = torch.randn(8, 64, generator=generator)
    away = torch.cdist(x, torch.cat((points[:4], 3 * points[4:])))
    plain = away.argmin(1).bincount(minlength=8)
    usual = usual_distance(torch.cat((points[:4], 3 * points[4:])), torch.zeros(64), 8.0)
    levelled = (away - usual).argmin(1).bincount(minlength=8)
    assert plain[4:].sum() == 0 and levelled.min() > 100
    assert (usual / away.mean(0) - 1).abs().max() < 0.03


@pytest.mark.parametrize("grow", [True, False])
def test_pieces_begin_as_they_are_said_to(grow):
    x, y = FunnelPair(16, 4, seed=5).sample(500, torch.Generator().manual_seed(0))
    model = _start(y, x, 64, grow)
    near = 0.3 if grow else 1.0
    assert torch.allclose(model.points, model.mean + near * (x[:64] - model.mean), atol=1e-5)
    offsets = model.offsets()
    assert bool((offsets.std() > 0) == grow) or offsets.abs().max() < 1e-5
    values = Funnels(model.points.detach(), offsets.detach())(y)[:, 0]
    assert torch.allclose(model(y), values, atol=1e-4)
    split = model.split()
    assert (
        split.points.shape == (128, 16)
        and (split.points[:64] + split.points[64:] - 2 * model.points).abs().max() < 1e-5
    )


def test_pieces_split_at_their_steps():
    assert _ends(100, 64, True) == [100] and _ends(100, 1024, False) == [100]
    assert _ends(1000, 1024, True) == [250, 338, 425, 512, 1000]
    for steps in (1, 2, 10):
        f = train_funnels(exchanged(FunnelPair(3, 2)), steps, 8, pieces=256, progress=False)
        assert f.points.shape == (256, 3)


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_the_rate_follows_the_size_of_the_points(scale):
    found = []
    for factor in (1.0, scale):
        torch.manual_seed(0)
        draw = exchanged(FunnelPair(8, 4, seed=5))

        def sample(count, draw=draw, factor=factor):
            first, second = draw(count)
            return factor * first, factor * second

        found.append(train_funnels(sample, 20, 256, pieces=64, progress=False).points / factor)
    assert torch.allclose(*found, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pieces": 100}, "100 pieces do not come of 64 by splitting: give 64, 128, 256, …"),
        ({"pieces": 32}, "32 pieces do not come of 64"),
        ({"steps": 0}, "steps must be an integer ≥ 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer ≥ 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, said):
    with pytest.raises(TightlipError, match=re.escape(said)):
        train_funnels(exchanged(FunnelPair(2, 2)), **({"steps": 1, "batch_size": 4, "progress": False} | options))
