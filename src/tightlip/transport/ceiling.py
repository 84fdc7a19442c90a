"""From above: a coupling of two samples bounds W1 of what they are drawn from, where a diameter is declared.

All points count, also those that critics were trained on. So many that no coupling is found in time are cut to a random
part of each sample first: `mcdiarmid_upper` needs any coupling of any independent draws.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import TightlipError
from .assignment import assign
from .confidence import mcdiarmid_upper
from .distances import distance_error
from .rounding import couple
from .rows import Rows

MOST, MOST_ON_A_LINE = 10_000, 2**20
"""Points of each sample that are paired at most; and on a line."""

MOST_OF_TIES = 3_000
"""Likewise in the norms of p = 1 and ∞, where many pairings cost nearly the same and few are told apart."""

FEW = 2_000
"""Points of both samples that are coupled although they are not as many."""

TOLERANCE = 0.01
"""Of the cost of the coupling: what is left is little beside the deviation."""


def refuse_small_diameter(samples: tuple[Rows, Rows], diameter: float, p: float) -> None:
    """Compare a declared diameter with distances that are there: along each axis, and from the farthest points.

    Raises:
        TightlipError: if two points are farther apart.
    """
    ranges = [rows.range() for rows in samples]
    low, high = torch.minimum(*(r[0] for r in ranges)), torch.maximum(*(r[1] for r in ranges))
    widest, corner, found = float((high - low).max()), low, 0.0
    for _ in range(2):
        found, corner = max(_farthest(samples, corner, p, widest), key=lambda pair: pair[0])
    spread = max(widest, found * widest) * (1 - distance_error(len(low)))
    if spread > diameter:
        raise TightlipError(
            f"the diameter {diameter:.6g} is less than the distance of two of the points, {spread:.6g}: declare a "
            "bound on the distance of any two points that can occur, or None"
        )


def _farthest(samples: tuple[Rows, Rows], start: Tensor, p: float, unit: float) -> Iterator[tuple[float, Tensor]]:
    """The point of each block that is farthest from here, and how far it is in this unit."""
    for rows in samples:
        for block in rows.blocks():
            away = torch.linalg.vector_norm((block.flatten(1) - start) / (unit or 1.0), p, dim=1)
            place = int(away.argmax())
            yield float(away[place]), block.flatten(1)[place]


def upper_bound(
    samples: tuple[Rows, Rows], p: float, diameter: float | None, alpha: float, seconds: float | None, seed: int
) -> tuple[float, str]:
    """An upper confidence bound on W1 at α, and how it was found."""
    if diameter is None:
        return math.inf, "no diameter, so no upper end"
    counts = _counts(samples, p, seconds)
    x, y = (
        _some(rows, count, [seed, 2 + which]) for which, (rows, count) in enumerate(zip(samples, counts, strict=True))
    )
    if counts[0] == counts[1]:
        cost = assign(x, y, p, TOLERANCE, seconds, seed=seed).upper
    else:
        cost = couple(x, y, None, None, p, TOLERANCE, seconds).upper
    words = f"a coupling of {counts[0]} and {counts[1]} points with McDiarmid's inequality"
    return mcdiarmid_upper(cost, *counts, diameter, alpha), words


def _counts(samples: tuple[Rows, Rows], p: float, seconds: float | None) -> tuple[int, int]:
    """How many points of each sample to couple; a second pairs some 7,000 in 16 dimensions."""
    n, m = map(len, samples)
    size = samples[0].size
    most = MOST_ON_A_LINE if size == 1 else MOST if p == 2 else min(MOST, MOST_OF_TIES)
    if seconds is not None and size > 1:
        most = min(most, max(100, int(7000 * math.sqrt(seconds * 16 / max(size, 16)))))
    if n + m <= min(FEW, most):
        return n, m
    return (min(n, m, most),) * 2


def _some(rows: Rows, count: int, seed: list[int]) -> Tensor:
    """So many random points (count, d), without repetition."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.take(np.sort(chosen)).flatten(1)
