"""Layers that move and copy: never below what is found, and attained where they say so; evaluated without rounding."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from slopes import PAIRS, largest_slope
from torch import nn

from tightlip import TightlipError, certify, lipschitz
from tightlip.audit import EXACT, gains

INF = math.inf

COPIES = [  # module, shape of an input, and how often an entry is copied at most, counted by hand
    (nn.Unflatten(1, (2, 3)), (6,), 1),
    (nn.Unflatten(-1, (3, -1)), (2, 6), 1),
    (nn.PixelShuffle(2), (4, 2, 3), 1),
    (nn.PixelUnshuffle(2), (1, 4, 2), 1),
    (nn.ChannelShuffle(2), (4, 3), 1),
    (nn.ZeroPad1d((1, 2)), (1, 4), 1),
    (nn.ZeroPad2d(1), (1, 2, 3), 1),
    (nn.ZeroPad3d((0, 1, 1, 0, 0, 2)), (1, 2, 2, 2), 1),
    (nn.ConstantPad1d(2, 7.0), (1, 3), 1),
    (nn.ConstantPad2d((1, 0, 0, 1), -1.5), (1, 2, 2), 1),
    (nn.ConstantPad3d(1, 0.5), (1, 2, 1, 2), 1),
    (nn.ReplicationPad1d((2, 3)), (1, 1), 6),
    (nn.ReplicationPad2d((1, 0, 1, 1)), (1, 1, 1), 6),
    (nn.ReplicationPad3d((0, 1, 0, 0, 1, 0)), (1, 1, 2, 1), 4),
    (nn.ReflectionPad1d(2), (1, 3), 3),
    (nn.ReflectionPad1d((2, 0)), (1, 3), 2),
    (nn.ReflectionPad2d((1, 1, 2, 2)), (1, 3, 3), 9),
    (nn.ReflectionPad3d((1, 0, 0, 0, 0, 0)), (1, 2, 2, 3), 2),
    (nn.CircularPad1d(3), (1, 3), 3),
    (nn.CircularPad2d((2, 2, 0, 1)), (1, 3, 2), 6),
    (nn.CircularPad3d((0, 0, 0, 0, 1, 0)), (1, 2, 1, 2), 2),
    (nn.Upsample(scale_factor=(2.0,)), (1, 4), 2),
    (nn.Upsample(scale_factor=(3, 2)), (1, 2, 3), 6),
    (nn.Upsample(scale_factor=2), (1, 2, 2, 1), 8),
    (nn.Upsample(scale_factor=(5,), mode="nearest-exact"), (1, 3), 5),
    (nn.UpsamplingNearest2d(scale_factor=(3, 3)), (1, 2, 2), 9),
    (nn.UpsamplingNearest2d(scale_factor=2), (1, 2, 2, 1), 8),  # torch scales volumes with it, too
    (nn.UpsamplingNearest2d(scale_factor=(1, 2)), (1, 2, 2), 2),
]


@pytest.mark.parametrize(("module", "shape", "copies"), COPIES, ids=repr)
def test_an_entry_is_heard_as_often_as_it_is_copied(module, shape, copies):
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    matrix = (module(basis) - module(torch.zeros_like(basis))).flatten(1).T
    exact = {(1.0, 1.0): copies, (1.0, 2.0): copies**0.5, (2.0, 2.0): copies**0.5}
    assert float(torch.linalg.matrix_norm(matrix, 1)) == copies
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(copies**0.5)
    for p, q in PAIRS:
        constant = lipschitz(module, p, q).constant
        assert constant == pytest.approx(exact.get((p, q), 1.0), rel=1e-15)
        assert largest_slope(module, shape, p, q, points=2) <= constant * (1 + 1e-9)
    assert gains(module).roundoff == replace(EXACT, own=abs(float(getattr(module, "value", 0.0))))


def test_a_factor_whose_inverse_is_rounded_down_copies_once_more():
    """⌊41·(1/41)⌋ is 0 in float32: the first entry is copied 42 times."""
    copies = nn.Upsample(scale_factor=(41.0,))(torch.eye(3)[:, None]).sum(-1).max()
    assert lipschitz(nn.Upsample(scale_factor=(41.0,)), 1, 1).constant == copies == 42


@pytest.mark.parametrize("factor", [*range(1, 33), 41, 47, 49, 55, 61, 97, 98, 103, 107])
def test_copies_of_upsampling_are_never_fewer_than_torch_makes(factor):
    for mode, kind in itertools.product(("nearest", "nearest-exact"), (torch.float32, torch.float64)):
        module = nn.Upsample(scale_factor=(float(factor),), mode=mode)
        made = module(torch.arange(300, dtype=kind)[None, None]).long().flatten().bincount()
        assert factor <= int(made.max()) <= lipschitz(module, 1, 1).constant <= factor + 1


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (nn.Unflatten(0, (2, 3)), "split the batch"),
        (nn.Unflatten(-2, (2, 3)), "split the batch"),
        (nn.Unflatten(1, (-1, -1)), "one of which may be -1"),
        (nn.Unflatten(1, (0, 3)), "integers ≥ 1"),
        (nn.PixelShuffle(0), "integer ≥ 1"),
        (nn.PixelShuffle(1.5), "integer"),
        (nn.PixelUnshuffle(-2), "integer ≥ 1"),
        (nn.ZeroPad2d((0, 0, 1, -1)), "integer ≥ 0"),  # of (batch, width) it would drop an example and make another
        (nn.ZeroPad2d((1, 1)), "4 of them"),
        (nn.ZeroPad1d("a"), "integer ≥ 0"),
        (nn.ZeroPad1d(True), "integer ≥ 0"),
        (nn.ConstantPad1d(1, math.nan), "finite number"),
        (nn.ConstantPad1d(1, math.inf), "finite number"),
        (nn.ReflectionPad1d(-1), "integer ≥ 0"),
        (nn.CircularPad2d(0.5), "integer ≥ 0"),
        (nn.Upsample(size=4), "give scale_factor"),
        (nn.Upsample(scale_factor=1.5), "integer ≥ 1"),
        (nn.Upsample(scale_factor=math.nan), "integer ≥ 1"),
        (nn.Upsample(scale_factor=math.inf), "integer ≥ 1"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "mode='nearest'"),
        (nn.Upsample(scale_factor=2, mode="linear"), "mode='nearest'"),
        (nn.UpsamplingBilinear2d(scale_factor=2), "no Lipschitz rule"),
    ],
    ids=repr,
)
def test_what_cannot_be_bounded_is_refused(module, advice):
    with pytest.raises(TightlipError, match=advice):
        lipschitz(module, 2)


def test_padding_that_reaches_the_batch_is_refused_by_certify():
    """(batch, width) is one image to a pad of two axes: rows of zeros join, and the number of examples tells."""
    with pytest.raises(TightlipError, match="number of examples"):
        certify(nn.Sequential(nn.ZeroPad2d(1)), torch.randn(3, 4))
    with pytest.raises(TightlipError, match="number of examples"):
        certify(nn.Sequential(nn.PixelShuffle(2), nn.Flatten()), torch.randn(4, 3, 3))


def test_an_image_network_with_them_is_certified(seed):
    network = nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.PixelUnshuffle(2), nn.ZeroPad2d(1), nn.Upsample(scale_factor=(2, 1)),
        nn.BatchNorm2d(4), nn.ChannelShuffle(2), nn.Flatten(), nn.Linear(4 * 8 * 4, 3),
    ).eval()  # fmt: skip
    assert (certify(network, torch.randn(20, 16)).radius > 0).all()
