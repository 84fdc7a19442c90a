"""Two weighted clouds of points, and the costs ‖x − y‖_p between them: block by block, with a bound on their rounding.

Points are scaled by one power of two, so that the largest coordinate is near 1: exact, and no square over- or
underflows where it counts. Distances are norms of differences, never |x|² + |y|² − 2x·y, so an offset takes nothing.

**Lemma.** Let |xᵢ|, |yᵢ| ≤ 1 in d coordinates. A computed cost c̃ satisfies |c̃ − c| ≤ γ_{d+8}·c + `TINY`.

*Proof.* Differences and squares round once each, the sum of d terms that are not negative is within γ_d of itself in
any order, a root halves that and rounds once (Higham, §3.1). Numbers below t = 2⁻¹⁰²² may be read as zero by threads
that flush them: that takes up to 16·d·t from the sum of squares, and so up to 4·√d·2⁻⁵¹¹ < `TINY` from its root. ∎
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..linalg.rounding import UNIT_ROUNDOFF, gamma, normalize_exactly
from ..norms import as_norm
from .clock import TimeUp
from .distances import distances, pair_distances, smallest
from .points import as_weights
from .rows import both_points

TINY = 2.0**-400
"""More than underflow can take from any cost, or from a sum of costs with weights, of scaled points."""

ENTRIES = 2**19
"""Costs that are held at once."""


@dataclass(frozen=True)
class Clouds:
    """Points x (n, d) and y (m, d), scaled by 2^−exponent, with positive weights (n,) and (m,), none above 1."""

    x: Tensor
    y: Tensor
    weights_x: np.ndarray
    weights_y: np.ndarray
    p: float
    exponent: int
    over: Callable[[], bool]
    matrix: Tensor | None = None

    @property
    def size(self) -> int:
        """How many costs there are."""
        return len(self.x) * len(self.y)

    @property
    def share(self) -> float:
        """Of a cost, how much rounding may take or give."""
        return gamma(self.x.shape[1] + 8)

    @property
    def diameter(self) -> float:
        """At least every cost: the norm of the box that holds all points."""
        low = torch.minimum(self.x.amin(0), self.y.amin(0))
        sides = torch.maximum(self.x.amax(0), self.y.amax(0)) - low
        return float(torch.linalg.vector_norm(sides, self.p)) * (1 + 4 * self.share) + TINY

    def turned(self) -> "Clouds":
        """The second cloud first."""
        matrix = None if self.matrix is None else self.matrix.T.contiguous()
        return Clouds(self.y, self.x, self.weights_y, self.weights_x, self.p, self.exponent, self.over, matrix)

    def held(self) -> "Clouds":
        """With all costs in memory, as ``matrix`` (n, m)."""
        return replace(self, matrix=distances(self.x, self.y, self.p))

    @cached_property
    def centered(self) -> tuple[Tensor, Tensor]:
        """The points less the mean of y, rounded."""
        center = self.y.mean(0)
        return self.x - center, self.y - center

    def blocks(self, rough: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the matrix of costs, a block at a time, to be written to; ``rough`` ones prove nothing.

        Raises:
            TimeUp: between two blocks, unless all costs are held: then a pass takes no time to speak of.
        """
        rows = max(1, ENTRIES // len(self.y))
        rough = rough and self.p == 2 and self.x.shape[1] > 4
        x, y = self.centered if rough else (self.x, self.y)
        for start in range(0, len(self.x), rows):
            if self.matrix is None and self.over():
                raise TimeUp
            here = slice(start, start + rows)
            known = self.matrix
            if known is not None:
                yield here, known[here].clone()
            elif rough:
                yield here, torch.cdist(x[here], y, compute_mode="use_mm_for_euclid_dist")
            else:
                yield here, distances(x[here], y, self.p)

    def between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The costs of these pairs (k,)."""
        return pair_distances(self.x, self.y, torch.from_numpy(rows), torch.from_numpy(columns), self.p).numpy()


@dataclass(frozen=True)
class Lists:
    """For every i the k columns with the least c_ij + price_j: which (n, k), their costs, and the least sum (n,)."""

    columns: np.ndarray
    costs: np.ndarray
    least: np.ndarray


def lists(clouds: Clouds, prices: np.ndarray, k: int) -> Lists:
    """The k best columns of every row, in one pass over the costs.

    Raises:
        TimeUp: if the time is over.
    """
    added = torch.from_numpy(prices)
    if k == len(prices):
        costs = torch.cat([costs for _, costs in clouds.blocks()])
        return Lists(np.broadcast_to(np.arange(k), costs.shape), costs.numpy(), (costs + added).amin(1).numpy())
    sums, columns = map(torch.cat, zip(*(smallest(costs.add_(added), k) for _, costs in clouds.blocks()), strict=True))
    return Lists(columns.numpy(), (sums - added[columns]).numpy(), sums[:, 0].numpy())


def least_sums_error(clouds: Clouds, prices: np.ndarray) -> float:
    """How far a least sum may be above the exact one: every cost is at most the diameter."""
    largest = float(np.abs(prices).max()) + clouds.diameter
    return (clouds.share * clouds.diameter + 2 * UNIT_ROUNDOFF * largest) * (1 + 2.0**-40) + TINY


def posed(
    x: Any, y: Any, weights_x: Any, weights_y: Any, p: float | str, over: Callable[[], bool]
) -> tuple[Clouds, Tensor, Tensor]:
    """The points that have weight, scaled; and which of x (n,) and of y (m,) these are.

    Raises:
        TightlipError: for anything that is no pair of weighted clouds in one space.
    """
    p, (first, second) = as_norm(p), both_points(x, y)
    (a, here), (b, there) = _weights("x", weights_x, len(first)), _weights("y", weights_y, len(second))
    first, second = first[here], second[there]
    scaled, exponent = normalize_exactly(torch.cat((first, second)))
    return Clouds(scaled[: len(first)], scaled[len(first) :], a, b, p, exponent, over), here, there


def _weights(of: str, given: Any, count: int) -> tuple[np.ndarray, Tensor]:
    """Positive weights, scaled by a power of two, and the places (count,) that have them."""
    weights = as_weights(given, of, count)
    if weights is None:
        return np.ones(count), torch.ones(count, dtype=torch.bool)
    scaled = normalize_exactly(weights)[0]
    kept = scaled > 0
    return scaled[kept].numpy(), kept


def logarithm(weights: np.ndarray) -> Tensor:
    """The logarithm of the weights normalized to sum 1, as computed (n,)."""
    return torch.from_numpy(np.log(weights) - math.log(math.fsum(weights)))
