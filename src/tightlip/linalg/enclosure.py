"""Products of matrices and diagonals, with an entrywise bound on what rounding took: at any scale, in every thread.

An `Enclosure` of A is a computed C, sizes S ≥ |C| and a share ε with

    |A − C·2^e| ≤ ε·S·2^e     entry by entry,     S ≥ `FLOOR`.

Entries of S are at most near 1. So what underflow takes, at most n·2⁻¹⁰¹⁸ for sums of n < 2³⁰ terms, is less than
u·`FLOOR` and no term of its own. With γ_n = n·u/(1 − n·u):

    a product     |A'A − fl(C'C)| ≤ ((1 + ε')(1 + ε) − 1 + γ_n + u)·S'S,   S ← S'S from above
    a diagonal    |DA − fl(dC)|   ≤ ((1 + ε_d)(1 + ε) − 1 + 2u)·|d|S,      S ← |d|S from above

Source: Higham, *Accuracy and Stability of Numerical Algorithms*, §3.5 (products), §3.3 (running errors). Diagonals are
mantissas and exponents apart, so that no product with one of them over- or underflows while it counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..norms import PAIRS
from .rounding import UNDERFLOW, UNIT_ROUNDOFF, gamma, normalize_exactly, round_up, sqrt_up

FLOOR = UNDERFLOW
"""Least of the sizes, so that a share of them is more than underflow can take."""

NormBounds = Callable[[Tensor, Sequence[tuple[float, float]]], Mapping[tuple[float, float], float]]
"""Proven operator norms of one stored array for pairs (p, q)."""


@dataclass(frozen=True)
class Scales:
    """Numbers dᵢ = mᵢ·2^eᵢ·(1 + δᵢ) with |δᵢ| ≤ share, as the diagonal of a matrix."""

    mantissa: np.ndarray
    exponent: np.ndarray
    share: float

    @classmethod
    def of(cls, numbers: Float64[Tensor, " n"], share: float = 0.0) -> "Scales":
        """These numbers, each known up to a share of it; the thread must not flush denormal numbers (`widened`)."""
        mantissa, exponent = np.frexp(numbers.numpy())
        return cls(mantissa, exponent.astype(np.int64), share)

    def __len__(self) -> int:
        return len(self.mantissa)

    def reciprocal(self) -> "Scales":
        """1/dᵢ; none may be zero."""
        mantissa, exponent = np.frexp(1.0 / self.mantissa)
        # 1/(1 + δ) is within δ/(1 − δ) of 1
        return Scales(mantissa, exponent - self.exponent, _together(1.01 * self.share, UNIT_ROUNDOFF))

    def times(self, other: "Scales") -> "Scales":
        """Products, entry by entry."""
        mantissa, exponent = np.frexp(self.mantissa * other.mantissa)
        share = _together(self.share, other.share, UNIT_ROUNDOFF)
        return Scales(mantissa, exponent + self.exponent + other.exponent, share)

    def at(self, places: np.ndarray) -> "Scales":
        """The numbers at these places."""
        return Scales(self.mantissa[places], self.exponent[places], self.share)

    def largest(self) -> Fraction:
        """Of all |dᵢ|, from above: the norm of the diagonal from p to q, for every p ≤ q."""
        counts = self.mantissa != 0
        if not counts.any():
            return Fraction(0)
        top = int(self.exponent[counts].max())
        first = np.abs(self.mantissa[counts & (self.exponent == top)]).max()
        return Fraction(float(first)) * Fraction(2) ** top * (1 + Fraction(self.share))

    def alike(self) -> bool:
        """Whether they are all one number, the sign included."""
        same = (self.mantissa == self.mantissa[0]) & (self.exponent == self.exponent[0])
        return bool(same.all())


@dataclass(frozen=True)
class Enclosure:
    """A matrix, or any array, A with |A − center·2^exponent| ≤ share·size·2^exponent and |center| ≤ size."""

    center: Float64[Tensor, "*shape"]
    size: Float64[Tensor, "*shape"]
    exponent: int
    share: float

    @classmethod
    def of(cls, weight: Float[Tensor, "*shape"]) -> "Enclosure":
        """A stored array; raises `TightlipError` as `normalize_exactly`."""
        center, exponent = normalize_exactly(weight)
        return cls(center, torch.from_numpy(np.abs(center.numpy()) + FLOOR), exponent, UNIT_ROUNDOFF)

    def scaled(self, by: Scales, shape: Sequence[int]) -> "Enclosure":
        """Each entry times its number, which ``by`` has once it is reshaped to ``shape`` and broadcast."""
        factor, power = by.mantissa.reshape(shape), by.exponent.reshape(shape)
        center, places = np.frexp(self.center.numpy())
        size, sizes = np.frexp(self.size.numpy())
        size = size * np.abs(factor) * (1.0 + 4.0 * UNIT_ROUNDOFF)
        top = int(np.max(sizes + power, initial=-(2**62), where=size > 0)) if size.any() else 0
        return Enclosure(
            torch.from_numpy(np.ldexp(center * factor, np.maximum(places + power - top, -_FAR))),
            torch.from_numpy(np.ldexp(size, np.maximum(sizes + power - top, -_FAR)) + FLOOR),
            self.exponent + top,
            _together(self.share, by.share, 2.0 * UNIT_ROUNDOFF),
        )

    def after(self: "Enclosure", inner: "Enclosure") -> "Enclosure":
        """The product of this matrix (out, mid) and ``inner`` (mid, in)."""
        terms = inner.center.shape[0]
        size = (self.size @ inner.size).numpy() * (1.0 + 2.0 * gamma(terms + 4)) + FLOOR
        top = math.frexp(float(size.max(initial=FLOOR)))[1]
        return Enclosure(
            torch.from_numpy(np.ldexp((self.center @ inner.center).numpy(), -top)),
            torch.from_numpy(np.ldexp(size, -top) + FLOOR),
            self.exponent + inner.exponent + top,
            _together(self.share, inner.share, gamma(terms), UNIT_ROUNDOFF),
        )

    def reshaped(self, change: Callable[[Tensor], Tensor]) -> "Enclosure":
        """The same entries in other places."""
        return Enclosure(change(self.center).contiguous(), change(self.size).contiguous(), self.exponent, self.share)

    def norm_bounds(self, bounds: NormBounds) -> dict[tuple[float, float], Fraction]:
        """Proven ‖A‖_{p→q} ≤ (‖C‖_{p→q} + ε·‖S‖)·2^e, for the pairs that ``bounds`` states of an array.

        ‖S‖_{2→2}² ≤ ‖S‖_{1→1}·‖S‖_{∞→∞}; ‖S‖_{1→q} ≤ ‖S‖_{1→1} and ‖S‖_{p→∞} ≤ ‖S‖_{∞→∞}, as norms fall from 1 to ∞.
        """
        found = bounds(self.center, PAIRS)
        sizes = bounds(self.size, [(1.0, 1.0), (math.inf, math.inf)])
        columns, rows = Fraction(sizes[1.0, 1.0]), Fraction(sizes[math.inf, math.inf])
        middle = Fraction(sqrt_up(round_up(columns))) * Fraction(sqrt_up(round_up(rows)))
        unit, share = Fraction(2) ** self.exponent, Fraction(self.share)
        strayed = {(p, q): columns if p == 1 else rows if q == math.inf else middle for p, q in found}
        return {pair: (Fraction(bound) + share * strayed[pair]) * unit for pair, bound in found.items()}


_FAR = 4000
"""Powers of two below which every number is zero."""


def _together(*shares: float) -> float:
    """Π (1 + εᵢ) − 1, rounded up."""
    return round_up(math.prod((1 + Fraction(share) for share in shares), start=Fraction(1)) - 1)
