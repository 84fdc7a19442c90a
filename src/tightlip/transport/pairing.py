"""What pairings and prices prove of the least mean cost: sums in float64, their rounding accounted for, in fractions.

A sum by ``math.fsum`` is rounded once, by a share u at most. Distances err by a share (`distance_error`), least sums by
what `least_sums` returns. All else is exact.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..linalg.rounding import UNIT_ROUNDOFF, gamma
from .bracket import Bracket
from .clock import Clock
from .distances import LOST, distance_error, least_sums, length_below, pair_distances, steepest
from .line import on_the_line
from .samples import Problem

LeastSums = tuple[Tensor, float]
"""For every x_i, and how far each may be above the true one."""


class Bounds(Bracket):
    """The best bounds so far on the mean cost of the points to be paired, in units of the problem.

    ``lower`` belongs to ``prices`` and ``upper`` to ``pairing``, both (m,).
    """

    def __init__(self, problem: Problem, p: float, clock: Clock | None = None) -> None:
        self.problem, self.p = problem, p
        m = len(problem.x)
        self.prices, self.pairing = torch.zeros(m, dtype=torch.float64), torch.arange(m)
        super().__init__(self.cost(self.pairing) if m else Fraction(0), clock)

    @property
    def unit(self) -> Fraction:
        """What a mean over the points to be paired counts for in one over all points, in the unit of the samples."""
        return Fraction(2) ** self.problem.exponent * Fraction(len(self.problem.x), len(self.problem.all_x))

    def worst(self) -> float:
        """The cost of the dearest pair so far, about."""
        rows = torch.arange(len(self.pairing))
        return float(pair_distances(self.problem.x, self.problem.y, rows, self.pairing, self.p).max())

    def cost(self, pairing: Int64[Tensor, " m"]) -> Fraction:
        """The mean cost of a pairing, from above."""
        x, y, rows = self.problem.x, self.problem.y, torch.arange(len(pairing))
        total = Fraction(math.fsum(pair_distances(x, y, rows, pairing, self.p).tolist()))
        share = (1 + Fraction(UNIT_ROUNDOFF)) * (1 + Fraction(distance_error(x.shape[1])))
        return total / len(x) * share + Fraction(LOST)

    def value(self, prices: Float64[Tensor, " m"], known: LeastSums | None = None) -> Fraction:
        """What prices prove: mean_i min_j(‖x_i − y_j‖ + p_j) − mean_j p_j, from below.

        Where it is not ``known``, the least sum of each x_i is computed from all pairs.
        """
        sums, error = known or least_sums(self.problem.x, self.problem.y, prices, self.p)
        total = Fraction(math.fsum(sums.tolist() + prices.neg().tolist()))
        return (total - abs(total) * Fraction(UNIT_ROUNDOFF)) / len(sums) - Fraction(error)

    def offer_pairing(self, pairing: Int64[Tensor, " m"]) -> None:
        """Take a pairing if it is the best so far."""
        if self.falls(self.cost(pairing)):
            self.pairing = pairing

    def offer_prices(self, prices: Float64[Tensor, " m"], value: Fraction | None = None) -> None:
        """Take prices if they prove the most so far; what they prove is computed where it is not known."""
        if self.rises(self.value(prices) if value is None else value):
            self.prices = prices.clone()

    def start(self) -> None:
        """In time n·d: the linear function along the difference of means, and the pairing along it.

        ‖mean x − mean y‖ is not above the distance, whatever else the samples are (Jensen).
        """
        x, y = self.problem.x, self.problem.y
        slope, value = _along(x - y, self.p)
        self.offer_prices((y - y[0]) @ slope, value)
        pairing = torch.empty(len(x), dtype=torch.long)
        pairing[(x @ slope).argsort()] = (y @ slope).argsort()
        self.offer_pairing(pairing)

    def whole_assignment(self) -> Int64[Tensor, " n"]:
        """The pairing of all points; shared ones stay where they are."""
        problem = self.problem
        assignment = torch.empty(len(problem.all_x), dtype=torch.long)
        assignment[problem.rows_x] = problem.rows_y[self.pairing]
        assignment[problem.shared[0]] = problem.shared[1]
        return assignment

    def whole_prices(self) -> Float64[Tensor, " n"]:
        """The prices of all points, in the unit of the samples; of a shared one, the potential there (McShane)."""
        problem = self.problem
        prices = torch.zeros(len(problem.all_y), dtype=torch.float64)
        if len(self.prices):
            prices[problem.rows_y] = self.prices
            prices[problem.shared[1]], _ = least_sums(problem.all_y[problem.shared[1]], problem.y, self.prices, self.p)
        half = problem.exponent // 2
        return prices * 2.0**half * 2.0 ** (problem.exponent - half)


def _along(moves: Float64[Tensor, "m d"], p: float) -> tuple[Float64[Tensor, " d"], Fraction]:
    """The u of dual norm 1 along the mean of the moves, and that mean's p-norm from below.

    A mean of m differences is within γ_{m+4} of the mean of their sizes.
    """
    mean = moves.mean(0)
    error = moves.abs().mean(0) * (2.0 * gamma(len(moves) + 4)) + LOST
    return steepest(mean, p), length_below(mean, error, p)


def sort(bounds: Bounds) -> str:
    """Points on a line: the pairing in order is best, and every norm is the same."""
    x, y = (points[:, 0] for points in (bounds.problem.x, bounds.problem.y))
    if len(x):
        bounds.pairing[x.argsort()] = y.argsort()
        equal = np.ones(len(x))
        cost, prices = on_the_line(x.numpy(), y.numpy(), equal, equal)
        error = Fraction(LOST)  # what choosing the unit may have taken
        bounds.rises(cost - error), bounds.falls(cost + error)
        bounds.prices = torch.from_numpy(prices)
    return "exact"
