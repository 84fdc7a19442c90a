"""Formats of floating point, and what a sum of so many terms may lose in each.

In a format with unit roundoff u, each operation rounds by a factor (1 + δ), |δ| ≤ u, and loses at most t, the smallest
normal number, more, whether denormal numbers are kept or flushed. A term of a sum of n products passes through at most
n roundings, in any order and parenthesization, with or without fused multiply-add; so the sum is off by

    γ_n·Σ|aᵢbᵢ|,     γ_n = n·u / (1 − n·u).

Where a kernel adds blocks of at most B terms, and then the ⌈n/B⌉ sums, a term passes through B + ⌈n/B⌉ at most.
Direct sums are meant: Strassen's, Winograd's and Fourier's products, and TF32 in the place of float32, are others.
Source: Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1 and §4.2.
"""

import math
from dataclasses import dataclass

import torch

from ..choices import chosen
from ..errors import TightlipError
from .rounding import UNIT_ROUNDOFF

BLOCK = 64
"""Terms of a block, in the arithmetics that add by blocks."""


@dataclass(frozen=True)
class Arithmetic:
    """How a machine computes: in which format, and how it adds.

    Args:
        name: Its name in files and sentences.
        dtype: In which numbers are stored: weights, inputs, and what layers make.
        unit: Unit roundoff of products and sums.
        underflow: The smallest normal number, of both.
        largest: The largest number, of the smaller range.
        stored: Unit roundoff of what is stored, where that is coarser than what is added; else 0.
        block: Terms of a block, where sums are taken by blocks; None for any order.
    """

    name: str
    dtype: torch.dtype
    unit: float
    underflow: float
    largest: float
    stored: float = 0.0
    block: int | None = None

    def gamma(self, count: int) -> float:
        """γ of sums of so many terms, or of so many operations on one number: from above; ∞ where it says nothing.

        >>> ARITHMETICS["float32"].gamma(4096) > 0.0002
        True
        >>> ARITHMETICS["float32-blocks"].gamma(4096) < 0.00001
        True
        """
        if self.block is not None:
            count = min(count, self.block + -(-count // self.block) + 2)
        share = float(count + 1) * self.unit if count else 0.0
        return share / (1.0 - share) if share < 1.0 else math.inf

    @property
    def words(self) -> str:
        """What a certificate for it speaks of."""
        how = "in any order" if self.block is None else f"by blocks of at most {self.block} terms"
        return f"{self.name}, sums taken {how}, without TF32, Winograd, Strassen or Fourier products"

    def __str__(self) -> str:
        return self.name


def _made(name: str, dtype: torch.dtype, adds: torch.dtype | None = None, block: int | None = None) -> Arithmetic:
    kept, added = torch.finfo(dtype), torch.finfo(adds or dtype)
    coarser = kept.eps > added.eps
    return Arithmetic(
        name=name,
        dtype=dtype,
        unit=added.eps / 2,
        underflow=max(kept.tiny, added.tiny),
        largest=min(kept.max, added.max),
        stored=kept.eps / 2 if coarser else 0.0,
        block=block,
    )


ARITHMETICS = {
    arithmetic.name: arithmetic
    for arithmetic in (
        _made("float64", torch.float64),
        _made("float32", torch.float32),
        _made("float32-blocks", torch.float32, block=BLOCK),
        _made("bfloat16/float32", torch.bfloat16, torch.float32),
        _made("bfloat16/float32-blocks", torch.bfloat16, torch.float32, BLOCK),
    )
}
"""By name: numbers of one format added in the same, in any order; -blocks, by blocks of at most `BLOCK` terms;
bfloat16/float32, stored in the first and added in the second."""

FLOAT64 = ARITHMETICS["float64"]
assert FLOAT64.unit == UNIT_ROUNDOFF


def arithmetic_of(given: object) -> Arithmetic:
    """An arithmetic by its name, or as it is.

    Raises:
        TightlipError: for an unknown name, or a unit or block that none can have.
    """
    if isinstance(given, str):
        return chosen("arithmetic", given, ARITHMETICS)
    if not isinstance(given, Arithmetic):
        raise TightlipError(f"arithmetic must be one of {', '.join(ARITHMETICS)}, got {given!r}")
    if given.block is not None and (type(given.block) is not int or given.block < 1):
        raise TightlipError(f"sums are taken by blocks of at least one term, got block={given.block!r}")
    return given
