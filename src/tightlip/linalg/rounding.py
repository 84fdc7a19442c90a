"""Floating point made honest: bounds that hold for the numbers that are really stored.

For a sum of n products in any order, with or without fused multiply-add, the computed value is within
γ_n Σ|aᵢbᵢ| of the true one, where γ_n = n·u / (1 − n·u) and u = 2⁻⁵³ in float64.
Source: Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1. Products of bounds are taken in exact
rationals (`fractions.Fraction`) and rounded once, in the safe direction.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError

UNIT_ROUNDOFF = 2.0**-53
"""Half the gap between 1 and the next float64."""

UNDERFLOW = 2.0**-900
"""More than anything that underflow can lose in matrices whose largest entry is near 1."""

SMALLEST_SQUARED = 2.0**-500
"""More than the norm of any vector whose squares all underflow, for up to 2⁷⁰ entries."""


def gamma(n: int) -> float:
    """An upper bound on γ_n = n·u / (1 − n·u), the relative error of an n-term float64 inner product."""
    return float(n + 1) * UNIT_ROUNDOFF / (1.0 - float(n + 1) * UNIT_ROUNDOFF)


def round_up(value: Fraction) -> float:
    """The smallest float64 that is not below ``value``; ∞ beyond the largest."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.nextafter(math.inf, 0)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def round_down(value: Fraction) -> float:
    """The largest float64 that is not above ``value``."""
    return -round_up(-value)


def sqrt_up(value: float) -> float:
    """An upper bound on √value (IEEE square roots are correctly rounded; one step up covers the rounding)."""
    return math.nextafter(math.sqrt(value), math.inf) if value > 0 else 0.0


def normalize_exactly(weight: Float[Tensor, "out in"]) -> tuple[Float[Tensor, "out in"], int]:
    """``weight`` as float64 on the CPU, times a power of two (exactly) so that its largest entry is in [½, 1).

    Returns the matrix and the exponent e with weight = matrix · 2^e; a zero matrix keeps e = 0.

    Raises:
        TightlipError: if an entry is NaN or infinite, or denormal numbers are flushed to zero.
    """
    if not torch.full((64,), 5e-324, dtype=torch.float64, device="cpu").mul(1.0).all():
        raise TightlipError("this process treats tiny numbers as zero: call torch.set_flush_denormal(False) first")
    matrix = weight.detach().to("cpu", torch.float64)
    if not matrix.numel():
        return matrix, 0
    low, high = (float(end) for end in matrix.aminmax())  # NaN if an entry is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise TightlipError(
            "the weights contain NaN or infinity, so nothing can be proven: restore a finite checkpoint"
        )
    largest = max(-low, high)
    if largest == 0.0:
        return matrix, 0
    exponent = math.frexp(largest)[1]
    half = -exponent // 2  # two steps, so that neither factor over- or underflows
    return (matrix * 2.0**half).mul_(2.0 ** (-exponent - half)), exponent


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite. Mostly one sum tells; where it overflows, each entry is looked at."""
    return bool(torch.isfinite(tensor.detach().sum())) or bool(torch.isfinite(tensor).all())


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Autocast never touches the arithmetic of constraints: a context without it."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
