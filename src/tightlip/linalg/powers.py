"""Proven bounds on ‖W‖_{p→∞} for any p ≥ 1: the largest ‖w‖_q of a row, 1/p + 1/q = 1.

Powers are taken with IEEE's correctly rounded operations alone: whole ones by squaring, and for the rest of an exponent

    x^(b₁/2 + b₂/4 + …) = Π x^(bₖ/2ᵏ),    x^(1/2ᵏ) by k square roots, each of which halves the error so far.

Exponents are rounded so that a bound can only grow: ‖w‖_q falls as q grows, so q is rounded down; and Σ ≥ 1 is raised
to a 1/q that is rounded up.
"""

from fractions import Fraction

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .rounding import FLUSHED, UNDERFLOW, UNIT_ROUNDOFF, gamma, norm_above, normalize_exactly, scaled_up

FINE = 40
"""Binary digits of q after the point."""

FINER = 70
"""Binary digits of 1/q after the point."""

LARGEST = 2**30
"""Of q: beyond, a norm of n entries is less than a share n^(2⁻³⁰) − 1 above the largest of them."""


def row_norm_above(weight: Float[Tensor, "out *rest"], p: float) -> float:
    """A proven upper bound on ‖W‖_{p→∞} for any p ≥ 1, each w of the first axis flattened.

    It is the largest dual norm of a row, up to a share of 1e-6 at most. Source: paper §2.2 (Hölder's inequality).

    Raises:
        TightlipError: if an entry is NaN or infinite, or this thread flushes denormal numbers to zero.
    """
    matrix, exponent = normalize_exactly(weight)
    if not matrix.any():
        return 0.0
    return scaled_up(float(_norms(matrix.flatten(1), p).max()), exponent)


def _norms(matrix: Float64[Tensor, "out in"], p: float) -> Float64[Tensor, " out"]:
    if p in (1.0, 2.0, torch.inf):
        return norm_above(matrix, {1.0: torch.inf, 2.0: 2.0, torch.inf: 1.0}[p], -1)
    exact = Fraction(p) / (Fraction(p) - 1)
    return norm_of_order_above(matrix, max(Fraction(1), min(_down(exact, FINE), Fraction(LARGEST))))


def norm_of_order_above(matrix: Float64[Tensor, "out in"], q: Fraction) -> Float64[Tensor, " out"]:
    """An upper bound on (Σ|w|^q)^(1/q) of each row, for 1 ≤ q ≤ `LARGEST` with at most `FINE` binary digits.

    **Proof.** Let m be the largest |w|, or 2⁻⁹⁰⁰ if that is more, and xᵢ = fl(|wᵢ|/m) ≤ 1. A power x^q by products has
    fewer than q roundings; of a root at most 2 remain, and one more product, `FINE` times; xᵢ has one, which counts q
    times; a sum of n has n. So Σ(wᵢ/m)^q ≤ S·(1 + γ) with 2q + 3·`FINE` + n roundings, and 2·`FINE` to spare. Underflow
    takes less than 2⁻⁹⁰⁰, since all factors are ≤ 1. The larger of this and 1 is raised to the power 1/q, with at most
    3·`FINER` roundings more. ∎
    """
    size = matrix.abs()
    scale = size.amax(-1, keepdim=True).clamp(min=UNDERFLOW)
    total = power(size / scale, q).sum(-1)
    total = (total * (1.0 + 2.0 * gamma(2 * int(q) + 5 * FINE + matrix.shape[-1] + 16)) + UNDERFLOW).clamp(min=1.0)
    root = power(total, _up(1 / q, FINER)) * (1.0 + 2.0 * gamma(5 * FINER + 16))
    return scale.squeeze(-1) * root * (1.0 + 4.0 * UNIT_ROUNDOFF) + FLUSHED


def power(x: Float64[Tensor, "*shape"], exponent: Fraction) -> Float64[Tensor, "*shape"]:
    """x^exponent for x ≥ 0 and an exponent ≥ 0 with finitely many binary digits, by products and square roots."""
    result, square, whole = torch.ones_like(x), x, int(exponent)
    while whole:
        result = result * square if whole & 1 else result
        whole >>= 1
        square = square * square if whole else square
    root, rest = x, exponent - int(exponent)
    while rest:
        root, rest = root.sqrt(), 2 * rest
        if rest >= 1:
            result, rest = result * root, rest - 1
    return result


def _down(value: Fraction, digits: int) -> Fraction:
    return Fraction(value * 2**digits // 1, 2**digits)


def _up(value: Fraction, digits: int) -> Fraction:
    return -_down(-value, digits)
