"""Two samples of equal size as a problem of assignment, exactly: what they share is set aside, and the unit is chosen.

Points that both samples have stay where they are in some best matching (the triangle inequality), at no cost.
Coordinates that never change add nothing. What is left is multiplied by a power of two, so that neither squares nor
their sums over- or underflow: exact but for what is below 2⁻¹⁰²² of the spread, which `LOST` covers.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor

from ..errors import TightlipError
from .rows import both_points


@dataclass(frozen=True)
class Problem:
    """Both samples in units of 2^exponent, apart from coordinates that never change.

    ``rows_x`` and ``rows_y`` are the points to be paired; ``shared`` (2, s) the rows of x and of y that are the same.
    """

    all_x: Float64[Tensor, "n c"]
    all_y: Float64[Tensor, "n c"]
    exponent: int
    shared: Int64[Tensor, "2 s"]

    @cached_property
    def rows_x(self) -> Int64[Tensor, " m"]:
        """Rows of x that are not shared."""
        return _others(len(self.all_x), self.shared[0])

    @cached_property
    def rows_y(self) -> Int64[Tensor, " m"]:
        """Rows of y that are not shared."""
        return _others(len(self.all_y), self.shared[1])

    @cached_property
    def x(self) -> Float64[Tensor, "m c"]:
        """The points of x that are to be paired."""
        return self.all_x[self.rows_x]

    @cached_property
    def y(self) -> Float64[Tensor, "m c"]:
        """The points of y that are to be paired."""
        return self.all_y[self.rows_y]


def posed(x: Any, y: Any) -> Problem:
    """The problem of two samples (n, …), after they were checked; in one dimension only equal samples share points.

    Raises:
        TightlipError: for what `as_points` refuses, and samples that are not as large, or not of one dimension.
    """
    x, y = both_points(x, y)
    if x.shape != y.shape:
        raise TightlipError(
            f"samples must have one shape (n, d), got {tuple(x.shape)} and {tuple(y.shape)}: an assignment pairs as "
            "many points of the same dimension"
        )
    shared = _shared(x, y)
    varies = ((x != x[0]) | (y != x[0])).any(0)
    varies[0] |= not bool(varies.any())
    x, y = x[:, varies], y[:, varies]
    if x.shape[1] == 1 and shared.shape[1] < len(x):
        shared = shared[:, :0]
    exponent = _exponent(x, y)
    return Problem(_scaled(x, -exponent), _scaled(y, -exponent), exponent, shared)


def _shared(x: Tensor, y: Tensor) -> Int64[Tensor, "2 s"]:
    """Rows of x and rows of y that are the same points, each row at most once."""
    labels, first, second = _labels(*map(hashes, (x, y)))
    counts = np.minimum(*(np.bincount(side, minlength=labels) for side in (first, second)))
    i, j = (_first_of_each(side, counts) for side in (first, second))
    same = (x[i] == y[j]).all(1)  # hashes may collide
    return torch.stack((i[same], j[same]))


def hashes(points: Tensor) -> Int64[np.ndarray, " n"]:
    """Equal rows have equal hashes: integer arithmetic, whatever the order of sums."""
    bits = points.contiguous().view(torch.int64)
    generator = torch.Generator().manual_seed(1)
    odd = torch.randint(-(2**62), 2**62, (points.shape[1],), generator=generator) * 2 + 1
    mixed = [((part ^ (part >> 29)) * odd).sum(1) for part in bits.split(max(1, 2**20 // len(odd)))]
    return torch.cat(mixed).numpy()


def _labels(first: np.ndarray, second: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    kinds, places = np.unique(np.concatenate((first, second)), return_inverse=True)
    return len(kinds), places[: len(first)], places[len(first) :]


def _first_of_each(labels: Int[np.ndarray, " n"], counts: Int[np.ndarray, " kinds"]) -> Int64[Tensor, " s"]:
    """The first ``counts[l]`` rows of each label l, in the order of labels."""
    order = labels.argsort(kind="stable")
    starts = np.concatenate(([0], np.bincount(labels, minlength=len(counts)).cumsum()[:-1]))
    ranks = np.arange(len(labels)) - starts[labels[order]]
    return torch.from_numpy(order[ranks < counts[labels[order]]])


def _others(n: int, taken: Int64[Tensor, " s"]) -> Int64[Tensor, " m"]:
    left: Bool[Tensor, " n"] = torch.ones(n, dtype=torch.bool)
    left[taken] = False
    return left.nonzero()[:, 0]


def _exponent(x: Tensor, y: Tensor) -> int:
    """The e with the spread of the points, the largest range of a coordinate, from 2^(e−1) to 2^e."""
    low, high = torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))
    spread = float((high - low).max())
    return math.frexp(spread)[1] if spread < math.inf else 1025


def _scaled(points: Tensor, exponent: int) -> Tensor:
    """points·2^exponent, in two steps, neither of which over- or underflows by itself."""
    half = exponent // 2
    return points * 2.0**half * 2.0 ** (exponent - half)
