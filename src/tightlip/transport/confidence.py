"""What two samples tell of the distributions behind them: bounds on a difference of means, and on W1 from above.

From below: W1(P, Q) ≥ E f(X) − E f(Y) for every 1-Lipschitz f. For an f that was chosen without them, n and m held-out
values in an interval of length R bound the right side: with probability at least 1 − α it is at least

    δ̂ − R·√((1/n + 1/m)·ln(1/α)/2)                                                               (Hoeffding)
    δ̂ − Σ over both samples of √(2·V·ln(4/α)/n) + 7·R·ln(4/α)/(3·(n − 1))                        (empirical Bernstein)

with δ̂ the difference of the means and V a sample variance. From above: W1 is convex in the
pair, so W1(P, Q) ≤ E W1(P_n, Q_m); and a point that moves within a support of diameter Δ moves W1(P_n, Q_m) by at most
Δ/n or Δ/m. So with probability at least 1 − α

    W1(P, Q) ≤ W1(P_n, Q_m) + Δ·√((1/n + 1/m)·ln(1/α)/2)                                          (McDiarmid)

Sources: Hoeffding 1963, Theorem 2; Maurer & Pontil 2009, "Empirical Bernstein Bounds and Sample Variance Penalization",
Theorem 4; McDiarmid 1989, Lemma 1.2.

All of it takes the points of each sample for independent draws of one distribution, and the samples for independent of
one another. What decides between two bounds must not be the same points, or each must be asked for at a part of α.
Every number is rounded to its safe side; logarithms of the platform are trusted to eight units of 2⁻⁵³.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import integer, number, probability
from ..errors import TightlipError
from ..linalg.rounding import (
    FLUSHED,
    UNIT_ROUNDOFF,
    gamma,
    norm_above,
    refuse_inexact,
    round_down,
    round_up,
    sqrt_up,
    widened,
)
from ..tensors import as_tensor, refuse_non_finite


def hoeffding_lower(values_x: Any, values_y: Any, reach: float, alpha: float) -> float:
    """A lower confidence bound on E f(X) − E f(Y), by Hoeffding's inequality; may be negative.

    Tight where values stand at both ends of their interval. Divided by a Lipschitz constant of f it bounds W1.

    Args:
        values_x: f at held-out points of the first sample, (n,); f must be chosen without them.
        values_y: f at held-out points of the second sample, (m,).
        reach: Length R of an interval that holds f(X) and f(Y) always, not only here. It is declared, not read off the
            values: clip f to [a, b] and give b − a, rounded up.
        alpha: How often the bound may be wrong, in (0, 1).

    Raises:
        TightlipError: if values are missing, not finite or further apart than ``reach``, or a number is out of range.

    >>> values = torch.tensor([1.0, 1.0, 0.0, 1.0] * 50)
    >>> round(hoeffding_lower(values, 1 - values, reach=1.0, alpha=0.05), 4)
    0.3776
    """
    x, y, reach, alpha = _checked(values_x, values_y, reach, alpha)
    return round_down(_mean_down(x) + _mean_down(-y) - Fraction(reach) * _deviation(len(x), len(y), alpha))


def bernstein_lower(values_x: Any, values_y: Any, reach: float, alpha: float) -> float:
    """A lower confidence bound on E f(X) − E f(Y), by the empirical Bernstein inequality; may be negative.

    Each sample has its own bound, at α/2. Better than `hoeffding_lower` where values vary far less than ``reach`` and
    there are many; −∞ for a sample of one.

    Args:
        values_x: f at held-out points of the first sample, (n,); f must be chosen without them.
        values_y: f at held-out points of the second sample, (m,).
        reach: Length of an interval that holds f(X) and f(Y) always, as in `hoeffding_lower`.
        alpha: How often the bound may be wrong, in (0, 1).

    Raises:
        TightlipError: as `hoeffding_lower`.

    >>> values = torch.full((1000,), 0.7)
    >>> round(bernstein_lower(values, values - 0.5, reach=1.0, alpha=0.05), 4)
    0.4795
    """
    x, y, reach, alpha = _checked(values_x, values_y, reach, alpha)
    if min(len(x), len(y)) < 2:
        return -math.inf
    deviation = _bernstein_deviation(x, reach, alpha) + _bernstein_deviation(y, reach, alpha)
    if not math.isfinite(deviation):
        return -math.inf
    return round_down(_mean_down(x) + _mean_down(-y) - Fraction(math.nextafter(deviation, math.inf)))


def mcdiarmid_upper(cost: float, n: int, m: int, diameter: float | None, alpha: float) -> float:
    """An upper confidence bound on W1 of the distributions, from the cost of any coupling of their samples.

    Never above the diameter, and infinite where none is declared: far points that no sample shows may cost anything.

    Args:
        cost: Mean cost of a coupling of the two samples of equal weights, or an upper bound on it, in the norm of W1.
        n: Points of the first sample.
        m: Points of the second.
        diameter: Upper bound on the distance of any two points that can occur, of both distributions together. It is
            declared; a diameter that was measured on a sample proves nothing. None if there is none.
        alpha: How often the bound may be wrong, in (0, 1).

    Raises:
        TightlipError: if a number is out of range, or the cost is above the diameter, which is then none.

    >>> round(mcdiarmid_upper(0.3, 1000, 1000, diameter=1.0, alpha=0.05), 4), mcdiarmid_upper(0.3, 9, 9, None, 0.05)
    (0.3547, inf)
    """
    cost, alpha = number("cost", cost, least=0), probability("alpha", alpha, usual=0.05)
    n, m = integer("n", n), integer("m", m)
    if diameter is None:
        return math.inf
    diameter = number("diameter", diameter, least=0)
    if cost > diameter * (1 + 1e-6):
        raise TightlipError(
            f"the samples are {cost:.6g} apart, so what they are drawn from has a diameter above {diameter:.6g}: "
            "give an upper bound on the distance of any two points, or None"
        )
    return min(diameter, round_up(Fraction(cost) + Fraction(diameter) * _deviation(n, m, alpha)))


def permutation_p_value(values_x: Any, values_y: Any, permutations: int = 999, seed: int = 0) -> float:
    """How likely a difference of means at least as large is, if both samples are of one distribution.

    p = (1 + #)/(B + 1), where # counts those of B random divisions of all values in which the mean of the first part
    minus that of the second is not below the one observed. Where values are exchangeable, P(p ≤ t) ≤ t exactly, for
    every B; it needs no bounds on them. One-sided: f says which mean is larger. Equal up to rounding counts as equal.

    Args:
        values_x: f at held-out points of the first sample, (n,); f must be chosen without them.
        values_y: f at held-out points of the second sample, (m,).
        permutations: B; p is never below 1/(B + 1).
        seed: Of the divisions.

    Returns:
        p, in [1/(B + 1), 1].

    Raises:
        TightlipError: if values are missing or not finite, or the other numbers are none.

    >>> permutation_p_value(torch.arange(20.0) + 30, torch.arange(20.0))
    0.001
    """
    x, y = _values("values_x", values_x), _values("values_y", values_y)
    count, seed = integer("permutations", permutations), integer("seed", seed, least=0)
    pool = torch.cat((x, y)).numpy()
    pool = pool / max(float(np.abs(pool).max()), 2.0**-1000)  # a monotone map of each value: exchangeable still
    pool = pool - math.fsum(pool) / len(pool)  # fsum rounds once, so it does not depend on the order
    slack = 4 * gamma(len(pool)) * float(np.abs(pool).sum())
    least, draws = float(pool[: len(x)].sum()) - slack, np.random.default_rng(seed)
    reached = sum(float(draws.permutation(pool)[: len(x)].sum()) >= least for _ in range(count))
    return (1 + reached) / (count + 1)


def _checked(values_x: Any, values_y: Any, reach: Any, alpha: Any) -> tuple[Tensor, Tensor, float, float]:
    x, y = _values("values_x", values_x), _values("values_y", values_y)
    reach, alpha = number("reach", reach, least=0), probability("alpha", alpha, usual=0.05)
    lowest, highest = min(float(x.min()), float(y.min())), max(float(x.max()), float(y.max()))
    if Fraction(highest) - Fraction(lowest) > Fraction(reach):
        raise TightlipError(
            f"values from {lowest:.17g} to {highest:.17g} are in no interval of length {reach:.17g}: clip the function "
            "to [a, b] and give b − a, rounded up"
        )
    return x, y, reach, alpha


def _values(name: str, values: Any) -> Tensor:
    row = as_tensor(values, name)
    if row.dim() != 1 or not len(row):
        raise TightlipError(
            f"{name} has shape {tuple(row.shape)}: give one number for each held-out point, at least one"
        )
    refuse_inexact(row, name)
    refuse_non_finite(row, name)
    return widened(row)


def _mean_down(values: Tensor) -> Fraction:
    """At most the mean: fsum rounds once, to nearest; large values are halved often enough not to overflow."""
    total = math.fsum((values.numpy() * 2.0**-64).tolist())
    least = Fraction(math.nextafter(total, -math.inf)) * 2**64
    return least / len(values) - Fraction(len(values), 2**1000)  # what halving takes from the smallest


def _log_up(of: float, alpha: float) -> float:
    """At least ln(of/α), for of ≥ 1 > α: no two terms of different signs."""
    return (math.log(of) - math.log(alpha)) * (1 + 8 * UNIT_ROUNDOFF)


def _deviation(n: int, m: int, alpha: float) -> Fraction:
    """At least √((1/n + 1/m)·ln(1/α)/2)."""
    return Fraction(sqrt_up(round_up((Fraction(1, n) + Fraction(1, m)) * Fraction(_log_up(1.0, alpha)) / 2)))


def _bernstein_deviation(values: Tensor, reach: float, alpha: float) -> float:
    """At least √(2·V·L/n) + 7·R·L/(3·(n − 1)) with L = ln(4/α).

    (n − 1)·V ≤ Σ(v − c)² for every number c, so c may be a mean that was rounded.
    """
    n, center = len(values), float(values.mean())
    log = Fraction(_log_up(4.0, alpha))
    spread = float(norm_above(values - center, 2, 0)) * (1 + 4 * UNIT_ROUNDOFF) + FLUSHED
    if not math.isfinite(spread):
        return math.inf
    share = Fraction(sqrt_up(round_up(2 * log / (n * (n - 1)))))
    return round_up(Fraction(spread) * share + Fraction(7, 3) * Fraction(reach) * log / (n - 1))
