"""Convolutions as dense matrices and as grids of symbols, by torch's own functions: what bounds are compared with."""

import itertools
import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from truths import gaussian

from tightlip.linalg.geometry import Geometry

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}


def dense_operator(weight, geometry, size):
    """The matrix of the convolution on images of this size, from images with one pixel."""
    channels = weight.shape[0] if geometry.transposed else weight.shape[1] * geometry.groups
    pixels = torch.eye(channels * math.prod(size), dtype=torch.float64).unflatten(1, (channels, *size))
    options = {"stride": tuple(geometry.stride), "dilation": tuple(geometry.dilation), "groups": geometry.groups}
    if geometry.transposed:
        crop = tuple(before for before, _ in geometry.padding)
        return CONV_TRANSPOSE[len(size)](pixels, weight.double(), padding=crop, **options).flatten(1).mT
    sides = [side for pair in reversed(geometry.padding) for side in pair]
    padded = F.pad(pixels, sides, MODES[geometry.padding_mode]) if any(sides) else pixels
    return CONV[len(size)](padded, weight.double(), **options).flatten(1).mT


def attained_norm(weight, geometry, points):
    """The largest singular value of the operator on the grid of frequencies, by summing over aliases."""
    axes = len(geometry.stride)
    best = 0.0
    for block in weight.double().chunk(geometry.groups):
        total = 0.0
        for aliases in itertools.product(*map(range, geometry.stride)):
            symbol = block.to(torch.complex128)
            for axis, (s, d, alias) in enumerate(zip(geometry.stride, geometry.dilation, aliases, strict=True)):
                angles = (torch.arange(points, dtype=torch.float64) / points + alias) * 2 * math.pi / s
                phases = torch.exp(1j * torch.outer(torch.arange(block.shape[2 + axis]).double() * d, angles))
                symbol = torch.tensordot(symbol, phases, ([2], [0]))  # the next axis of taps is again the third
            symbol = symbol.flatten(2).movedim(2, 0)
            total = total + symbol @ symbol.mH / math.prod(geometry.stride)
        best = max(best, float(torch.linalg.eigvalsh(total)[:, -1].max()))
    assert axes == weight.dim() - 2
    return math.sqrt(best)


@dataclass
class Case:
    weight: torch.Tensor
    geometry: Geometry
    size: tuple[int, ...]


def random_case(seed):
    """A small convolution of any kind, on an image that torch accepts; often one smaller than the kernel."""
    draw = random.Random(seed)
    axes = draw.choice([1, 1, 2, 2, 2, 2, 3])
    mode = draw.choice(list(MODES))
    transposed = mode == "zeros" and draw.random() < 0.4
    groups = draw.choice([1, 1, 2, 3])
    taps = [draw.randint(1, 4 if axes < 3 else 2) for _ in range(axes)]
    stride = [draw.randint(1, 3) for _ in range(axes)]
    dilation = [draw.randint(1, 3) for _ in range(axes)]
    padding = [(draw.randint(0, 3), draw.randint(0, 3)) for _ in range(axes)]
    if transposed:
        padding = [(draw.randint(0, d * (k - 1)),) * 2 for k, d in zip(taps, dilation, strict=True)]
    size = [
        _pixels(draw, k, d, s, sides, mode, transposed, {1: 9, 2: 4, 3: 2}[axes])
        for k, d, s, sides in zip(taps, dilation, stride, padding, strict=True)
    ]
    weight = gaussian(groups * draw.randint(1, 3), draw.randint(1, 3), *taps, seed=seed)
    kind = draw.choice(["gaussian", "positive", "integers", "sparse", "tiny"])
    weight = {
        "gaussian": weight,
        "positive": weight.abs(),
        "integers": weight.round(),
        "sparse": weight * (weight > 0.8),
        "tiny": (weight * 1e-30).float(),
    }[kind]
    return Case(weight, Geometry(stride, dilation, padding, groups, mode, transposed), tuple(size))


def _pixels(draw, taps, dilation, stride, sides, mode, transposed, extra):
    if transposed:
        fewest = 1
        while (fewest - 1) * stride - sum(sides) + dilation * (taps - 1) + 1 < 1:
            fewest += 1
    else:
        least = {"zeros": 1, "circular": max(sides), "reflect": max(sides) + 1, "replicate": 1}[mode]
        fewest = max(least, dilation * (taps - 1) + 1 - sum(sides), 1)
    return fewest + draw.choice([0, 0, draw.randint(0, extra)])
