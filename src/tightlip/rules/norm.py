"""Rules of normalizing layers: batch normalization with stored statistics is affine, the others are refused.

In eval mode, channel c of a batch normalization is x ↦ γ_c·(x − μ_c)/√(v_c + ε) + β_c, so in every norm the constant is

    max_c |γ_c| / √(v_c + ε),      exactly.

In training mode each output depends on the whole batch, and layers that divide by the spread of the input at hand
(`LayerNorm`, `GroupNorm`, `InstanceNorm`, `RMSNorm`) stretch an input of small spread up to max|γ|/√ε times: 316 times
for ε = 1e-5.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn

from ..audit import Channels, Gains, Roundoff, Uniform, rule
from ..audit.trust import original_type, refuse_training
from ..errors import TightlipError
from ..linalg.enclosure import Scales
from ..linalg.rounding import UNIT_ROUNDOFF, round_up, sqrt_up
from ..options import FLAG, NONNEGATIVE, NUMBER, SIZE, optional
from ..stored import stored_number, stored_numbers

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

SAFE = 2.0**-900
"""Least of what keeps all its bits in float64, in any step of a slope; 1/SAFE is the most."""

LEAST = Fraction(1, 2**100)
"""Of v + ε: below, what a processor flushes to zero could count."""

_OPTIONS = {"num_features": SIZE, "eps": NONNEGATIVE, "momentum": optional(NUMBER), "affine": FLAG, "bias": FLAG}


def _made(kind: type[nn.Module], affine: bool, bias: bool, **others: Any) -> nn.Module:
    """Earlier versions of torch know no ``bias``, which is as ``affine`` says unless it is told otherwise."""
    return kind(affine=affine, **others, **({} if bias == affine else {"bias": bias}))


def _channels(module: BatchNorm) -> Channels | Uniform | None:
    """γ/√(v + ε) of every channel, up to three roundings; None where one of them could be at the end of float64."""
    _, gamma, _, slopes = _read(module)
    for g, slope in zip(gamma.tolist(), slopes, strict=True):
        if g and not (SAFE <= slope <= 1 / SAFE and slope >= abs(g) * math.sqrt(SAFE)):
            return None
    signed = [math.copysign(slope, g) for slope, g in zip(slopes, gamma.tolist(), strict=True)]
    scales = Scales.of(torch.tensor(signed, dtype=torch.float64, device="cpu"), 16.0 * UNIT_ROUNDOFF)
    pixels = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[original_type(module)]  # type: ignore[index]
    return Uniform(scales.largest()) if scales.alike() else Channels(scales, pixels=pixels)


@rule(nn.BatchNorm1d, options=_OPTIONS, build=partial(_made, nn.BatchNorm1d), affine=_channels)
@rule(nn.BatchNorm2d, options=_OPTIONS, build=partial(_made, nn.BatchNorm2d), affine=_channels)
@rule(nn.BatchNorm3d, options=_OPTIONS, build=partial(_made, nn.BatchNorm3d), affine=_channels)
def _batch_norm(module: BatchNorm) -> Gains:
    """The constants are rationals until one square root.

    torch evaluates x·a + (β − μ·a) or (x − μ)·a + β with a = γ/√(v + ε), in an order of its choice. Each of at most a
    dozen roundings is relative to |x|·a, |μ|·a or |β|. The last two do not follow from the sizes of x and f(x), since
    they may cancel: they are what each entry can be off.
    """
    mean, _, beta, slopes = _read(module)
    shift = max(a * abs(m) + abs(b) for a, m, b in zip(slopes, mean.tolist(), beta.tolist(), strict=True))
    return Gains.constant(max(slopes), Roundoff(20, input=max(slopes), entry=shift))


def _read(module: BatchNorm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[float]]:
    """μ, γ, β and |γ|/√(v + ε), rounded up, of every channel, or a sentence."""
    kind = type(module).__name__
    refuse_training(module, "depends on the whole batch")
    if module.running_mean is None or module.running_var is None:
        raise TightlipError(f"{kind} has no running statistics, so it depends on the whole batch: track them")
    mean, variance = (
        stored_numbers(module, "running_mean"),
        stored_numbers(module, "running_var", module.running_mean.shape),
    )
    gamma, beta = _affine(module, mean)
    eps = Fraction(stored_number(module, "eps"))
    spread = [Fraction(v) + eps for v in variance.tolist()]
    if mean.dim() != 1 or not spread or min(spread) < LEAST:
        raise TightlipError(f"{kind} has a variance + eps of {float(min(spread, default=0)):g}: restore numbers > 0")
    return mean, gamma, beta, [_slope(g, v) for g, v in zip(gamma.tolist(), spread, strict=True)]


def _affine(module: BatchNorm, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    gamma = torch.ones_like(like) if module.weight is None else stored_numbers(module, "weight", like.shape)
    return gamma, torch.zeros_like(like) if module.bias is None else stored_numbers(module, "bias", like.shape)


def _slope(gamma: float, spread: Fraction) -> float:
    """|γ|/√(v + ε), rounded up, in units in which the square neither over- nor underflows."""
    if gamma == 0:
        return 0.0
    unit = Fraction(2) ** (Fraction(abs(gamma)).numerator.bit_length() - Fraction(abs(gamma)).denominator.bit_length())
    root = sqrt_up(round_up((Fraction(gamma) / unit) ** 2 / spread))
    return round_up(Fraction(root) * unit)


@rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _instance_norm(module: nn.Module) -> Gains:
    """As `_own_spread`, but where running statistics are used, in eval mode: then it is a batch normalization.

    Raises:
        TightlipError: always.
    """
    if getattr(module, "track_running_stats", False) and not module.training:
        kind = type(module).__name__
        raise TightlipError(
            f"{kind} with running statistics has no rule: use nn.{kind.replace('Instance', 'Batch')} with its tensors, "
            "which is the same map in eval mode"
        )
    return _own_spread(module)


@rule(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
def _own_spread(module: nn.Module) -> Gains:
    """Their slope reaches max|γ|/√ε, at inputs without spread; such a bound would certify nothing.

    Raises:
        TightlipError: always.
    """
    raise TightlipError(
        f"{type(module).__name__} divides each input by its own spread, so that small ones are stretched without a "
        "useful bound: use nn.BatchNorm1d, 2d or 3d in eval mode, or tightlip.Normalize"
    )


@rule(nn.Embedding, nn.EmbeddingBag)
def _embedding(module: nn.Module) -> Gains:
    """Integers have no small changes.

    Raises:
        TightlipError: always.
    """
    raise TightlipError(
        f"{type(module).__name__} takes integers, and a bound speaks of small changes: audit the layers after it"
    )
