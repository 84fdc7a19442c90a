"""Orthonormalization methods as tables: lists of odd polynomials that push singular values towards 1.

A step multiplies W by a polynomial of its residual, so each singular value moves on its own:

    W ← W Σ_j c_j (I − WᵀW)^j,      σ ← p(σ) = σ Σ_j c_j (1 − σ²)^j.

What a method promises is therefore a fact about a scalar function: if every p maps [0, 1] into [0, 1], then from
‖W‖₂ ≤ 1 *every* iterate, converged or not, keeps ‖W‖₂ ≤ 1. Rounding pushes singular values a little above 1, so a table
must also map [1, 1.001] there: a polynomial that rises through 1 would amplify it. `Schedule` refuses all others.

* `bjorck(steps, order)` truncates (1 − x)^(-1/2) = Σ binom(2j, j)/4^j x^j (paper Eq. 2). Order 1 is Newton–Schulz.
* `express(lower)` starts with the polynomials that lift the whole interval [lower, 1] fastest, each a minimax
  approximation of 1 on what its predecessor left and a little beyond 1 (Remez), divided by its largest value; it
  ends with one step of odd Björck order, which is flat at 1. Source: Amsel et al. 2025 ("Polar Express"), whose
  own polynomials overshoot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb, isfinite

import numpy as np

from ..arguments import integer, number
from ..errors import TightlipError

Polynomial = tuple[Fraction, ...]
"""c_0, c_1, … of Σ c_j (1 − σ²)^j."""

CUSHION = 1e-3
"""How far above 1 singular values may stand between steps: more than rounding in float32 can push them."""

_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Schedule:
    """The polynomials of a method, one per step, in order.

    Args:
        name: What tables and errors call it.
        polynomials: Of each step c_0, c_1, …, in powers of the residual 1 − σ².
        reach: The first step maps singular values in [0, reach] into [0, 1]; at least 1.

    Raises:
        TightlipError: if a polynomial leaves [0, 1] on [0, 1.001], or the first one does on [0, reach]; for a table
            without steps or coefficients, with numbers that are not finite, or with a reach below 1.

    >>> bjorck(2).products
    4
    """

    name: str
    polynomials: tuple[Polynomial, ...]
    reach: float = 1.0

    def __post_init__(self) -> None:
        if not self.polynomials or not all(len(p) and all(map(isfinite, p)) for p in self.polynomials):
            raise TightlipError(f"{self.name} has steps without finite coefficients: give at least one for each step")
        if not 1.0 <= self.reach <= 3.0:
            raise TightlipError(f"the reach of {self.name} is {self.reach}: give a number from 1 to 3")
        for step, polynomial in enumerate(self.polynomials):
            end = max(self.reach if step == 0 else 1.0, 1.0 + CUSHION)
            low, high = extremes(polynomial, end)
            if low < -_TOLERANCE or high > 1.0 + _TOLERANCE:
                raise TightlipError(
                    f"step {step + 1} of {self.name} maps [0, {end:.4g}] to [{low:.4g}, {high:.4g}], which is not "
                    "within [0, 1]: divide its coefficients by their largest value"
                )

    def __repr__(self) -> str:
        return self.name

    @property
    def products(self) -> int:
        """Matrix products that it takes: the Gram matrix, the powers of the residual, and the update of each step."""
        return sum(len(polynomial) for polynomial in self.polynomials)

    def singular_value(self, sigma: float) -> float:
        """Where a singular value ends.

        >>> bjorck(1).singular_value(0.5)
        0.6875
        """
        for polynomial in self.polynomials:
            sigma = value(polynomial, sigma)
        return sigma


def value(polynomial: Sequence[Fraction | float], sigma: float) -> float:
    """p(σ) = σ Σ c_j (1 − σ²)^j."""
    total = 0.0
    for c in reversed(polynomial):
        total = total * (1.0 - sigma * sigma) + float(c)
    return sigma * total


def extremes(polynomial: Sequence[Fraction | float], end: float = 1.0) -> tuple[float, float]:
    """The smallest and the largest value of p on [0, end], at its ends or where p' = 0."""
    turning = np.roots(np.polyder(_in_sigma(polynomial)))
    inside = turning.real[(np.abs(turning.imag) < 1e-3) & (turning.real > 0) & (turning.real < end)]
    values = [value(polynomial, float(sigma)) for sigma in (0.0, *inside, end)]
    return min(values), max(values)


def _in_sigma(polynomial: Sequence[Fraction | float]) -> np.ndarray:
    """Coefficients of p in powers of σ, highest first."""
    total = np.poly1d([0.0])
    for c in reversed(polynomial):
        total = total * np.poly1d([-1.0, 0.0, 1.0]) + float(c)
    return np.asarray((total * np.poly1d([1.0, 0.0])).coeffs)


def series(order: int) -> Polynomial:
    """The coefficients c_0 … c_order of (1 − x)^(-1/2).

    >>> [str(c) for c in series(3)]
    ['1', '1/2', '3/8', '5/16']
    """
    return tuple(Fraction(comb(2 * j, j), 4**j) for j in range(order + 1))


@cache
def bjorck(steps: int, order: int = 1) -> Schedule:
    """``steps`` steps of Björck's iteration (Björck & Bowie 1971, paper Eq. 2); order 1 is Newton–Schulz's.

    Odd orders also accept singular values somewhat above 1 (order 1: to √3), even orders would push those beyond.

    Raises:
        TightlipError: unless both are integers ≥ 1 and the order is at most 20.
    """
    if not all(isinstance(number, int) for number in (steps, order)) or not 1 <= order <= 20 or steps < 1:
        raise TightlipError(
            f"steps must be an integer ≥ 1, and order one from 1 to 20, got steps = {steps} and order = {order}"
        )
    return Schedule(f"bjorck({steps}, order={order})", (series(order),) * steps, _reach(order))


def _reach(order: int) -> float:
    """For odd orders the first zero of p beyond 1, where p has fallen from 1 to 0; from below."""
    if order % 2 == 0:
        return 1.0
    low, high = 1.0, 2.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if value(series(order), middle) > 0 else (low, middle)
    return low


@cache
def express(lower: float = 1e-3, degree: int = 5, finish: int = 3) -> Schedule:
    """The fastest lift of [lower, 1], until ‖I − WᵀW‖₂ < 0.01, and one step of Björck's of order ``finish``.

    Args:
        lower: The smallest singular value that is to arrive, relative to the largest, in (0, 1).
        degree: Of the polynomials: 3, 5 or 7.
        finish: An odd order, so that nothing ends above 1.

    Raises:
        TightlipError: for options out of these ranges.
    """
    lower = number("lower", lower, least=1e-9, most=1)
    finish = integer("finish", finish)
    if lower == 1 or degree not in (3, 5, 7) or finish % 2 != 1:
        raise TightlipError(
            f"lower must be < 1, degree 3, 5 or 7, and finish odd, got lower = {lower}, degree = {degree} and "
            f"finish = {finish}"
        )
    polynomials, start = [], lower
    while 1.0 - start**2 > 0.01:
        coefficients, error = _minimax(start, degree)
        polynomials.append(_in_residual(coefficients / (1.0 + error)))
        start = (1.0 - error) / (1.0 + error)
    name = f"express({lower:g}, degree={degree}, finish={finish})"
    return Schedule(name, (*polynomials, series(finish)))


def _minimax(start: float, degree: int) -> tuple[np.ndarray, float]:
    """The odd polynomial nearest to 1 on [start, 1.001], lowest power first, and its distance (Remez's exchange)."""
    end = 1.0 + CUSHION
    count = (degree + 1) // 2
    odd = 2 * np.arange(count) + 1
    points = (start + end) / 2 - (end - start) / 2 * np.cos(np.pi * np.arange(count + 1) / count)
    for _ in range(50):
        system = np.column_stack([points[:, None] ** odd, (-1.0) ** np.arange(count + 1)])
        *coefficients, error = np.linalg.solve(system, np.ones(count + 1))
        turning = np.sqrt(np.roots((odd * coefficients)[::-1]).real)  # p' is a polynomial in σ²
        moved = np.array([start, *np.sort(turning), end])
        if np.abs(moved - points).max() < 1e-13:
            break
        points = moved
    return np.array(coefficients), abs(float(error))


def _in_residual(coefficients: np.ndarray) -> Polynomial:
    """From powers of σ² to powers of 1 − σ², exactly."""
    powers = [Fraction(float(c)) for c in coefficients]
    return tuple(
        sum((c * comb(k, j) * (-1) ** j for k, c in enumerate(powers) if k >= j), Fraction(0))
        for j in range(len(powers))
    )
