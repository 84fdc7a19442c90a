"""Rules of torch's layers that move, copy and pad entries: no arithmetic, so no rounding.

Each output is one input or a constant, and no input is copied more than M times. So, as for pooling,

    ∞→∞: 1      1→1: M      2→2: √M.

| type | M |
| --- | --- |
| `Unflatten`, `PixelShuffle`, `PixelUnshuffle`, `ChannelShuffle` | 1: a permutation |
| `ZeroPad`, `ConstantPad` | 1: constants are added |
| `ReplicationPad` | ∏ (1 + left + right) over the axes, if one entry is the whole axis |
| `ReflectionPad`, `CircularPad` | ∏ (1 + [left > 0] + [right > 0]) |
| `Upsample`, `UpsamplingNearest2d`, nearest, by an integer factor s | ∏ s over the axes; three if s is one number |
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn

from ..audit import Gains, Roundoff, rule
from ..errors import TightlipError
from ..linalg.rounding import round_up, sqrt_up
from ..options import AXES, COUNT, INTEGER, LARGEST, NUMBER, SIZE, Kind, one_of, several
from ..stored import brief, stored_integer, stored_number

_SPLIT = AXES - 1
"""Axes that one can be split into, beside the batch's."""

_SCALED = 3
"""Axes that torch scales up at most: those after batch and channels."""


def _padding(axes: int) -> dict[str, Kind]:
    """Entries before and after each axis."""
    return {"padding": several(COUNT, 2 * axes)}


_FACTORS = {"scale_factor": several(NUMBER, _SCALED)}


def _copied(times: int, own: float = 0.0) -> Gains:
    """M = ``times``; the root is exact where it is an integer. A number ``own`` may stand beside the copies."""
    root: Fraction | float = Fraction(math.isqrt(times))
    if root * root != times:
        root = sqrt_up(round_up(Fraction(times)))
    return Gains({(math.inf, math.inf): 1, (1.0, 1.0): Fraction(times), (2.0, 2.0): root}, Roundoff(own=own))


@rule(nn.Unflatten, options={"dim": INTEGER, "unflattened_size": several(INTEGER, _SPLIT)}, reshapes=True)
def _unflatten(module: nn.Unflatten) -> Gains:
    sizes = module.unflattened_size
    if not isinstance(module.dim, int) or module.dim == 0 or module.dim < -1:
        raise TightlipError(f"Unflatten(dim={module.dim!r}) could split the batch: use dim=1 or dim=-1")
    few = isinstance(sizes, tuple | list) and 0 < len(sizes) <= _SPLIT
    if not few or not all(type(n) is int and -1 <= n < LARGEST and n for n in sizes) or list(sizes).count(-1) > 1:
        raise TightlipError(
            f"Unflatten has unflattened_size={brief(sizes)}: give integers ≥ 1, one of which may be -1, and at most "
            f"{_SPLIT} of them"
        )
    return _copied(1)


@rule(nn.PixelShuffle, options={"upscale_factor": SIZE})
@rule(nn.PixelUnshuffle, options={"downscale_factor": SIZE})
@rule(nn.ChannelShuffle, options={"groups": SIZE})
def _permutation(module: nn.PixelShuffle | nn.PixelUnshuffle | nn.ChannelShuffle) -> Gains:
    """They permute the last three axes, or all but the first; the batch is never among them.

    For inputs of three axes, (batch, height, width), `PixelShuffle` takes the batch for channels, and their number
    changes: `certify` refuses that.
    """
    option = {nn.PixelShuffle: "upscale_factor", nn.PixelUnshuffle: "downscale_factor"}.get(type(module), "groups")
    if stored_integer(module, option) < 1:
        raise TightlipError(f"{type(module).__name__} has {option}={getattr(module, option)}: give an integer ≥ 1")
    return _copied(1)


@rule(nn.ZeroPad1d, options=_padding(1))
@rule(nn.ZeroPad2d, options=_padding(2))
@rule(nn.ZeroPad3d, options=_padding(3))
@rule(nn.ConstantPad1d, options=_padding(1) | {"value": NUMBER})
@rule(nn.ConstantPad2d, options=_padding(2) | {"value": NUMBER})
@rule(nn.ConstantPad3d, options=_padding(3) | {"value": NUMBER})
def _constant_pad(module: nn.Module) -> Gains:
    _sides(module)
    return _copied(1, abs(stored_number(module, "value")))


@rule(nn.ReplicationPad1d, options=_padding(1))
@rule(nn.ReplicationPad2d, options=_padding(2))
@rule(nn.ReplicationPad3d, options=_padding(3))
def _replication_pad(module: nn.Module) -> Gains:
    return _copied(math.prod(1 + left + right for left, right in _sides(module)))


@rule(nn.ReflectionPad1d, options=_padding(1))
@rule(nn.ReflectionPad2d, options=_padding(2))
@rule(nn.ReflectionPad3d, options=_padding(3))
@rule(nn.CircularPad1d, options=_padding(1))
@rule(nn.CircularPad2d, options=_padding(2))
@rule(nn.CircularPad3d, options=_padding(3))
def _reflection_pad(module: nn.Module) -> Gains:
    """Torch takes less padding than entries (reflection), or as much (circular): each side copies an entry once."""
    return _copied(math.prod(1 + (left > 0) + (right > 0) for left, right in _sides(module)))


def _sides(module: Any) -> list[tuple[int, int]]:
    """Padding before and after each axis. Cropping is refused: with as much padding it could shift the batch."""
    kind, sides = type(module).__name__, module.padding
    axes = int(kind[-2])  # ZeroPad2d
    as_many = isinstance(sides, tuple | list) and len(sides) == 2 * axes
    if not as_many or not all(type(side) is int and 0 <= side < LARGEST for side in sides):
        raise TightlipError(f"{kind} has padding={brief(sides)}: give an integer ≥ 0, or {2 * axes} of them")
    return list(zip(sides[::2], sides[1::2], strict=True))


@rule(nn.Upsample, options=_FACTORS | {"mode": one_of("nearest", "nearest-exact")})
@rule(nn.UpsamplingNearest2d, options=_FACTORS)
def _upsample(module: nn.Upsample) -> Gains:
    """One number is for as many axes as the input has: three of volumes, which `UpsamplingNearest2d` takes as well."""
    kind, factors = type(module).__name__, module.scale_factor
    if module.mode not in ("nearest", "nearest-exact"):
        raise TightlipError(
            f"{kind}(mode={module.mode!r}) adds entries up, with weights that depend on the size of the "
            "input: use mode='nearest'"
        )
    if module.size is not None or factors is None:
        raise TightlipError(f"{kind}(size=…) copies as often as the size of the input asks for: give scale_factor=…")
    each = factors if isinstance(factors, tuple | list) else [factors] * _SCALED
    if not 0 < len(each) <= _SCALED or not all(map(_is_factor, each)):
        raise TightlipError(
            f"{kind} has scale_factor={brief(factors)}: give an integer ≥ 1, or one for each of at most {_SCALED} axes"
        )
    return _copied(math.prod(_copies(int(s), module.mode) for s in each))


def _is_factor(value: Any) -> bool:
    return type(value) in (int, float) and 1 <= value < LARGEST and value == int(value)


@lru_cache
def _copies(factor: int, mode: str) -> int:
    """How often an entry is copied along one axis, of up to 2²¹ outputs: counted.

    torch lets output j copy the entry ⌊j·r⌋, with r = 1/s in float32 or float64. Where r is below 1/s, as for s = 41 in
    float32, an entry may be copied once more than s times. (In the mode nearest-exact it is ⌊(j + ½)·r⌋.)
    """
    most, middle = factor, 0.5 if mode == "nearest-exact" else 0.0
    for kind in ("float32", "float64"):
        places = (np.arange(2**21) + middle).astype(kind) * np.asarray(1.0 / factor, dtype=kind)
        most = max(most, int(np.bincount(places.astype(np.int64)).max()))
    return most
