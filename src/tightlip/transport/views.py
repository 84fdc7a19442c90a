"""How critics see points: as they are, or centered and in a unit that needs no learning rate of its own.

A power of two as the unit is exact both ways: (x − c)·2^−e has constant 2^−e to the last bit.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..layers import Normalize
from ..linalg.rounding import normalize_exactly
from .parts import Pair

LARGEST = 960
"""Exponents beyond stay at this: 2^960 has room for constants of either sign."""


@dataclass(frozen=True)
class AsGiven:
    """Points (n, …) in a dtype, on a device."""

    dtype: torch.dtype
    device: torch.device

    def __call__(self, points: Pair) -> Pair:
        """Both samples, to train a critic on."""
        first, second = (part.to(self.device, self.dtype) for part in points)
        return first, second

    def function(self, critic: nn.Module) -> list[nn.Module]:
        """The critic of points as they are, in float64."""
        return [copy.deepcopy(critic).double()]


@dataclass(frozen=True)
class Rescaled:
    """Points (n, …) as rows (x − center)·2^−exponent, in float32."""

    center: Float64[Tensor, " d"]
    exponent: int
    device: torch.device

    def __call__(self, points: Pair) -> Pair:
        """Both samples, to train a critic on."""
        half = self.exponent // 2
        rows = (part.flatten(1) - self.center for part in points)
        first, second = ((part * 2.0**-half * 2.0 ** (half - self.exponent)).float().to(self.device) for part in rows)
        return first, second

    def function(self, critic: nn.Module) -> list[nn.Module]:
        """The layers of the same critic of points as they are, in float64."""
        unit = Normalize(0.0, 1.0)
        unit.mean, unit.std = self.center.to(self.device), torch.tensor(2.0**self.exponent, dtype=torch.float64)
        return [nn.Flatten(), unit.to(self.device), copy.deepcopy(critic).double()]


def rescaled(points: Pair, p: float, device: torch.device) -> Rescaled:
    """From the mean of both samples, in the power of two above their mean distance from it in the p-norm."""
    scaled, exponent = normalize_exactly(torch.cat([part.flatten(1) for part in points]))
    center = scaled[: len(points[0])].mean(0) / 2 + scaled[len(points[0]) :].mean(0) / 2
    mean = float(torch.linalg.vector_norm(scaled - center, p, dim=1).mean())
    unit = min(max(exponent + math.frexp(mean)[1], -LARGEST), LARGEST) if mean > 0 else 0
    half = exponent // 2
    return Rescaled(center * 2.0**half * 2.0 ** (exponent - half), unit, device)


def like(critic: nn.Module) -> AsGiven:
    """In the dtype of a critic's weights, on their device; float32 on the CPU where it has none."""
    kinds = (held.dtype for held in _tensors(critic) if held.is_floating_point())
    return AsGiven(next(kinds, torch.float32), device_of(critic))


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes; the CPU where it has no tensors."""
    return next((held.device for held in _tensors(module)), torch.device("cpu"))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
