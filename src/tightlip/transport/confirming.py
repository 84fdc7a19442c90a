"""The chosen critic before points that nothing was chosen by: what its values there prove, and a p-value.

**Rounding.** f is evaluated in float64, each value within a known e of the exact one (`robustness.evaluation`), so each
mean is within E, the largest e. A standard deviation is a seminorm, so √(2·V·L/n) is within E·√(2·L·n/(n·(n − 1))).
Either bound of the exact values is at least that of the computed ones less 2·E·(1 + √(2·L)), with L = ln(4/α).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from ..audit import audit, bound_of
from ..layers import Scale
from ..linalg.rounding import normalize_exactly, round_down, round_up
from ..robustness.evaluation import Wide, evaluate, wide
from .choosing import Choice
from .confidence import permutation_p_value
from .parts import Part
from .rows import Rows
from .views import device_of

PERMUTED, PERMUTATIONS = 2**15, 999
"""Values of each sample that are permuted at most, and how often."""

BATCH = 2**13
"""Points that are evaluated at once, at most."""


@dataclass(frozen=True)
class Confirmed:
    """W1 ≥ ``lower`` with confidence; the difference of means it comes from; the 1-Lipschitz critic; its p-value."""

    lower: float
    difference: float
    critic: nn.Module
    p_value: float


def confirmed(
    layers: list[nn.Module], choice: Choice, samples: tuple[Rows, Rows], part: Part, p: float, alpha: float, seed: int
) -> Confirmed:
    """Clip the critic of these layers as was chosen, and look at the part.

    Raises:
        TightlipError: if its constant in the p-norm, or its rounding, cannot be proven.
    """
    clipped = nn.Sequential(*layers, nn.Hardtanh(choice.low, choice.high)).eval()
    audited = audit(clipped)
    constant, reach = Fraction(bound_of(audited, p).constant), round_up(Fraction(choice.high) - Fraction(choice.low))
    if constant == 0:
        return Confirmed(0.0, 0.0, clipped, 1.0)
    measure, device = wide(clipped, audited), device_of(clipped)
    x, error_x = _values(measure, samples[0], part.first, device)
    y, error_y = _values(measure, samples[1], part.second, device)
    least = choice.bound(x, y, reach, alpha)
    strayed = 2 * max(error_x, error_y) * (2 + math.sqrt(2 * math.log(4 / alpha)))  # one in excess covers its rounding
    known = math.isfinite(least) and math.isfinite(strayed)
    lower = max(0.0, round_down((Fraction(least) - Fraction(strayed)) / constant)) if known else 0.0
    difference = round_down((_mean(x) - _mean(y)) / constant)
    p_value = permutation_p_value(x[:PERMUTED], y[:PERMUTED], PERMUTATIONS, seed)
    return Confirmed(lower, difference, _of_constant_one(clipped, constant), p_value)


def _of_constant_one(clipped: nn.Sequential, constant: Fraction) -> nn.Module:
    """Divided by its constant; `Scale` rounds toward zero."""
    if constant == 1:
        return clipped
    return nn.Sequential(*clipped, Scale(round_down(1 / constant))).to(device_of(clipped))


def _mean(values: Float64[Tensor, " k"]) -> Fraction:
    """As float64 has it, of values of any size."""
    scaled, exponent = normalize_exactly(values)
    return Fraction(float(scaled.mean())) * Fraction(2) ** exponent


@torch.no_grad()
def _values(
    measure: Wide, rows: Rows, index: Int64[np.ndarray, " k"], device: torch.device
) -> tuple[Float64[Tensor, " k"], float]:
    """The critic at these points, and how far any value may be from the exact one."""
    values, error = [], 0.0
    for block in rows.blocks(index):
        for points in block.split(BATCH):
            found, strayed = evaluate(measure, points.to(device))
            values.append(found.reshape(len(points)).cpu())
            error = max(error, float(strayed.max()))
    return torch.cat(values), error
