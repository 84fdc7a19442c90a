"""Whether the bounds that an earlier search has left are those that its prices and pairs prove, computed again.

Prices prove a lower end, whoever found them; pairs of samples of one size, each point in one of them, an upper one.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .bounds import below
from .costs import lists, posed
from .distances import pair_distances

SLACK = 1e-9
"""Bounds are proven in several ways, which round differently: by less than this share of the points' diameter."""


def contradiction(
    x: Any,
    y: Any,
    p: float,
    bounds: Sequence[float],
    prices: Float64[Tensor, " m"],
    pairs: Int64[Tensor, "k 2"] | None,
) -> str | None:
    """Which of both (lower, upper) is not proven, in words, in time n·m·d; None if nothing speaks against them.

    Other pairs than those of each point with one other prove nothing without their masses, and are not looked at.
    """
    lower, upper = bounds
    if not 0 <= lower <= upper:
        return "lower and upper"
    clouds, _, _ = posed(x, y, None, None, p, lambda: False)
    if prices.shape != (len(clouds.y),) or not bool(torch.isfinite(prices).all()):
        return "prices"
    unit, slack = Fraction(2) ** clouds.exponent, Fraction(SLACK * clouds.diameter)
    scaled = np.ldexp(prices.double().numpy(), -clouds.exponent)
    if Fraction(lower) / unit > below(clouds, scaled, lists(clouds, scaled, 1).least) + slack:
        return "lower"
    every = torch.arange(len(clouds.x))
    if pairs is None or not all(torch.equal(side.sort().values, every) for side in pairs.unbind(1)):
        return None
    if len(clouds.y) != len(every):
        return "pairs"
    mean = math.fsum(pair_distances(clouds.x, clouds.y, pairs[:, 0], pairs[:, 1], p).tolist()) / len(every)
    return "upper" if Fraction(upper) / unit < Fraction(mean) - slack else None
