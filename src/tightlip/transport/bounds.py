"""What prices and couplings prove of W1, whoever proposes them: computed in float64 and rounded outward.

For weights a, b of sum 1 and costs c_ij = ‖x_i − y_j‖_p

    Σ_i a_i·min_j(c_ij + q_j) − Σ_j b_j·q_j  ≤  W1  ≤  Σ_ij F_ij·c_ij     for all prices q and all couplings F.

A coupling that is not quite one is rounded to one:

**Lemma.** For any F ≥ 0 with row sums r and column sums s, and C ≥ every cost,

    W1 ≤ Σ F_ij·c_ij + C·(Σ_i (a_i − r_i)₊ + Σ_j (s_j − b_j)₊).

*Proof* (Altschuler, Weed & Rigollet 2017, Algorithm 2). Scale every row down to at most a_i and then every column to at
most b_j: F' ≤ F has marginals ≤ a and ≤ b, and lost at most Σ(r − a)₊ + Σ(s − b)₊. What it lacks is coupled in any way,
at cost C at most. Its mass is 1 − ΣF' ≤ Σ(a − r) + Σ(r − a)₊ + Σ(s − b)₊, and the first two are Σ(a − r)₊. ∎

`math.fsum` rounds once, so final sums of N terms lose 2⁻⁵³ of themselves and not γ_N.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..linalg.rounding import UNIT_ROUNDOFF, gamma
from .costs import TINY, Clouds, least_sums_error
from .distances import length_below, steepest

ROUNDING = 1e-15
"""Less mass on a pair is not told: it is rounding."""


@dataclass(frozen=True)
class Flow:
    """A matrix F ≥ 0, by its computed ΣF·c, row sums (n,) and column sums (m,): each within a share of itself.

    ``pairs`` (k, 2) are the places of its entries, where they are few.
    """

    cost: float
    rows: np.ndarray
    columns: np.ndarray
    share: float
    pairs: Tensor | None = None

    def __add__(self, other: "Flow") -> "Flow":
        share = max(self.share, other.share) + 4 * UNIT_ROUNDOFF
        return Flow(self.cost + other.cost, self.rows + other.rows, self.columns + other.columns, share)


def of_pieces(clouds: Clouds, rows: np.ndarray, columns: np.ndarray, masses: np.ndarray) -> Flow:
    """F as a list of its entries: masses (k,) at these places."""
    some = masses > ROUNDING
    counts = np.bincount(rows, minlength=1).max(initial=1), np.bincount(columns, minlength=1).max(initial=1)
    return Flow(
        math.fsum(masses * clouds.between(rows, columns)),
        np.bincount(rows, masses, len(clouds.x)),
        np.bincount(columns, masses, len(clouds.y)),
        gamma(int(max(counts)) + 4),
        torch.from_numpy(np.stack((rows[some], columns[some]), 1)),
    )


def above(clouds: Clouds, flow: Flow) -> Fraction:
    """At least W1 of the scaled clouds, by the lemma."""
    lacking = normalized(clouds.weights_x) * (1 + 4 * UNIT_ROUNDOFF) - flow.rows * (1 - 2 * flow.share)
    exceeding = flow.columns * (1 + 2 * flow.share) - normalized(clouds.weights_y) * (1 - 4 * UNIT_ROUNDOFF)
    missing = math.fsum(lacking.clip(min=0)) + math.fsum(exceeding.clip(min=0))
    coupled = Fraction(flow.cost) * (1 + 2 * Fraction(flow.share) + 2 * Fraction(clouds.share))
    return coupled + Fraction(clouds.diameter) * (Fraction(missing) + 4 * Fraction(UNIT_ROUNDOFF)) + Fraction(TINY)


def below(clouds: Clouds, prices: np.ndarray, least: np.ndarray) -> Fraction:
    """At most W1 of the scaled clouds, by prices q (m,) and the least sums (n,) that `lists` has of them."""
    first = _mean_down(clouds.weights_x, least)
    second = _mean_down(clouds.weights_y, -prices)
    return first + second - Fraction(least_sums_error(clouds, prices)) - Fraction(TINY)


def along_the_means(clouds: Clouds) -> tuple[Fraction, np.ndarray]:
    """‖Σ a_i·x_i − Σ b_j·y_j‖ ≤ W1 (Jensen), from below, and the prices (m,) of a linear function that attains it.

    Coordinates are at most 1, and so are both sums; each is within γ of itself, and their difference within u of that.
    """
    means = [
        torch.from_numpy(normalized(w)) @ z for w, z in ((clouds.weights_x, clouds.x), (clouds.weights_y, clouds.y))
    ]
    error = torch.full_like(means[0], 2.0 * gamma(max(len(clouds.x), len(clouds.y)) + 16) + TINY)
    mean = means[0] - means[1]
    prices = (clouds.y - clouds.y[0]) @ steepest(mean, clouds.p)
    return length_below(mean, error, clouds.p), prices.numpy()


def normalized(weights: np.ndarray) -> np.ndarray:
    """Weights of sum 1, each within 3u of itself: one rounding of the sum, one of the quotient."""
    return weights / math.fsum(weights)


def _mean_down(weights: np.ndarray, values: np.ndarray) -> Fraction:
    """At most Σ w·v/Σ w: each product rounds once, each sum once, and underflow takes less than `TINY`."""
    products = weights * values
    strayed = 4 * Fraction(UNIT_ROUNDOFF) * Fraction(math.fsum(np.abs(products))) + Fraction(2.0**-1000)
    least = Fraction(math.fsum(products)) - strayed
    whole = Fraction(math.fsum(weights)) * (1 + (1 if least >= 0 else -1) * 2 * Fraction(UNIT_ROUNDOFF))
    return least / whole
