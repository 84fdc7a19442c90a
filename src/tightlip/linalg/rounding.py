"""Floating point made honest: bounds that hold for the numbers that are really stored.

For a sum of n products in any order, with or without fused multiply-add, the computed value is within
γ_n Σ|aᵢbᵢ| of the true one, where γ_n = n·u / (1 − n·u) and u = 2⁻⁵³ in float64.
Source: Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1. Products of bounds are taken in exact
rationals (`fractions.Fraction`) and rounded once, in the safe direction.

**Underflow.** A processor may flush denormal numbers to zero, in one thread and not in another: each thread of a
pool keeps the mode that it was born with, and cannot be asked. So nothing that is proven depends on it:

    fl(a ∘ b) = (a' ∘ b')(1 + δ) + η,    |δ| ≤ u,    |η| < t,    |a' − a| < t,    |b' − b| < t,    t = 2⁻¹⁰²²,

whatever the mode. Stored numbers are widened, and a matrix is scaled until its largest entry is near 1, in the calling
thread, whose mode is looked at (`widened`, `normalize_exactly`); from there on t is nothing beside what counts, and
`norm_above`, the one rule for sums of squares, adds what it can take.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from ..errors import TightlipError

UNIT_ROUNDOFF = 2.0**-53
"""Half the gap between 1 and the next float64."""

UNDERFLOW = 2.0**-900
"""More than underflow can take from a sum, for up to 2¹¹⁰ operations on numbers of size ≤ 1."""

FLUSHED = 2.0**-960
"""More than the 1-norm of any vector whose entries were all read as zero, for up to 2⁶⁰ entries."""

FLUSHES = "this thread treats tiny numbers as zero, so it proves nothing: call torch.set_flush_denormal(False) first"


def gamma(n: int) -> float:
    """An upper bound on γ_n = n·u / (1 − n·u), the relative error of an n-term float64 inner product."""
    return float(n + 1) * UNIT_ROUNDOFF / (1.0 - float(n + 1) * UNIT_ROUNDOFF)


def cholesky_error(matrix: Float64[Tensor, "n n"]) -> float:
    """An upper bound on ‖RᵀR − A‖₂ where a Cholesky factorization of A ran to its end: γ_{n+1}/(1 − γ_{n+1})·trace(A).

    Sources: Higham, Theorem 10.3; Rump, "Verification of positive definiteness" (BIT 2006).
    """
    factor = gamma(len(matrix) + 1) / (1.0 - gamma(len(matrix) + 1))
    return factor * float(matrix.diagonal().abs().sum()) * (1.0 + 2.0 * gamma(len(matrix) + 4))


def round_up(value: Fraction) -> float:
    """The smallest float64 that is not below ``value``; ∞ beyond the largest.

    Raises:
        TightlipError: if this thread flushes denormal numbers to zero and the result would be one.
    """
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.nextafter(math.inf, 0)
    if Fraction(nearest) >= value:
        return nearest
    above = math.nextafter(nearest, math.inf)
    if above < math.inf and Fraction(above) < value:
        raise TightlipError(FLUSHES)
    return above


def round_down(value: Fraction) -> float:
    """The largest float64 that is not above ``value``."""
    return -round_up(-value)


def sqrt_up(value: float) -> float:
    """An upper bound on √value (IEEE square roots are correctly rounded; one step up covers the rounding)."""
    return math.nextafter(math.sqrt(value), math.inf) if value > 0 else 0.0


def scaled_up(value: float, exponent: int) -> float:
    """value·2^exponent, rounded up."""
    return round_up(Fraction(value) * Fraction(2) ** exponent) if math.isfinite(value) else value


def norm_above(x: Float64[Tensor, "*shape"], order: float, dim: int) -> Float64[Tensor, "*rest"]:
    """An upper bound on the 1-, 2- or ∞-norm along ``dim``; NaN and infinity give NaN or infinity.

    Above the exact norm at every scale, whatever any thread flushes to zero; and for fewer than 2³⁰ entries by less
    than 1e-6 of it, plus `FLUSHED`.

    **Theorem.** Let m be the largest |xᵢ|, or 2⁻⁹⁰⁰ if that is more, wᵢ = fl(xᵢ/m) and S = fl(Σ fl(wᵢ²)). Then

        ‖x‖₂ ≤ m·√(S·(1 + 2γ_{n+8}) + UNDERFLOW)·(1 + 4u) + FLUSHED.

    *Proof.* Let x' be x with the entries that were read as zero replaced by zero: ‖x‖₂ ≤ ‖x'‖₂ + √n·t. Where x' is
    not zero, |x'ᵢ/m| ≤ 1 is within a factor (1 + u) and t of |wᵢ|, and so is wᵢ² of its square, up to 4t. A sum of n
    terms is within γ_n, and each addition loses up to 3t more. So Σ(x'ᵢ/m)² ≤ S(1 + γ_{n+8}) + 8nt, where
    8nt < 2⁻⁹⁰⁰ for n < 2¹¹⁰; the second γ covers the rounding of this bound. It stands under the root, in the units of
    squares. The root and the product round once each, and flushing the product takes t: √n·t + t < FLUSHED. ∎

    For the 1-norm, S·(1 + 2γ_{n+4}) + FLUSHED by the same count (4nt < FLUSHED for n < 2⁶⁰); a maximum is only read.
    """
    n = x.shape[dim]
    if n == 0:
        return x.sum(dim)
    size = x.abs()
    if order == 1:
        return size.sum(dim) * (1.0 + 2.0 * gamma(n + 4)) + FLUSHED
    largest = size.amax(dim, keepdim=True)
    if order == math.inf:
        return largest.squeeze(dim) + FLUSHED
    if order != 2:
        raise TightlipError(f"norms of order {order} have no bound here: choose 1, 2 or inf")
    scale = largest.clamp(min=UNDERFLOW)
    squares = size.div_(scale).square_().sum(dim) * (1.0 + 2.0 * gamma(n + 8)) + UNDERFLOW
    return scale.squeeze(dim) * squares.sqrt_() * (1.0 + 4.0 * UNIT_ROUNDOFF) + FLUSHED


def refuse_inexact(tensor: Shaped[Tensor, "..."], name: str = "a tensor") -> None:
    """Raise unless the tensor is dense and holds real floating-point numbers of 16 to 64 bits."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _EXACT:
        kind = f"{tensor.layout}, {tensor.dtype}, on {tensor.device}"
        raise TightlipError(
            f"{name} of this kind ({kind}) cannot be read exactly: convert it to a dense tensor of float32 or float64"
        )


def widened(tensor: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """A copy in float64 on the CPU, exact to the last denormal number: made by this thread, whose mode is looked at.

    Raises:
        TightlipError: unless the tensor is dense and holds real floating-point numbers of 16 to 64 bits, or if this
            thread flushes denormal numbers to zero.
    """
    refuse_inexact(tensor)
    source = tensor.detach().cpu().resolve_neg()
    with np.errstate(all="ignore"):
        if not np.multiply(_TINY, 1.0).all():
            raise TightlipError(FLUSHES)
        if source.dtype == torch.bfloat16:  # the upper half of a float32
            array = np.left_shift(source.view(torch.int16).numpy(), 16, dtype=np.int32).view(np.float32)
        else:
            array = source.numpy()
        return torch.from_numpy(np.array(array, dtype=np.float64))


_EXACT = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TINY = np.array([5e-324])


def normalize_exactly(weight: Shaped[Tensor, "*shape"]) -> tuple[Float64[Tensor, "*shape"], int]:
    """``weight`` as float64 on the CPU, times a power of two so that its largest entry is in [½, 1).

    Returns the matrix and the exponent e with weight = matrix · 2^e, exactly but for entries below 2⁻¹⁰²² of the
    largest, which may be off by 2⁻¹⁰⁷³ of it; a zero matrix keeps e = 0.

    Raises:
        TightlipError: as `widened`, or if an entry is NaN or infinite.
    """
    matrix = widened(weight)
    if not matrix.numel():
        return matrix, 0
    array = matrix.numpy()
    largest = max(-float(array.min()), float(array.max()))  # NaN if an entry is
    if not math.isfinite(largest):
        raise TightlipError(
            "the weights contain NaN or infinity, so nothing can be proven: restore a finite checkpoint"
        )
    if largest == 0.0:
        return matrix, 0
    exponent = math.frexp(largest)[1]
    half = -exponent // 2  # two steps, so that neither factor over- or underflows
    with np.errstate(all="ignore"):
        np.multiply(array, 2.0**half, out=array)
        np.multiply(array, 2.0 ** (-exponent - half), out=array)
    return matrix, exponent


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite. Mostly one sum tells; where it overflows, each entry is looked at."""
    return bool(torch.isfinite(tensor.detach().sum())) or bool(torch.isfinite(tensor).all())


def full_precision(tensor: Tensor, convolves: bool = False) -> AbstractContextManager[object]:
    """A context whose products are those of the tensor's dtype, whatever torch was told for those of the network.

    Autocast is off in it, and so are TF32 and bfloat16 in the place of float32, as after
    ``torch.set_float32_matmul_precision("high")`` or ``"medium"``: a held weight would stray by 5e-3 from its set.
    Of matrices, or where it ``convolves`` of kernels, for which torch takes TF32 unasked. A compiled function keeps to
    what torch was told.
    """
    kind = tensor.device.type
    plain = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
    products = _PRODUCTS[kind == "cpu"][convolves]
    if torch.compiler.is_compiling() or products.fp32_precision not in ("tf32", "bf16"):
        return plain
    return _as_stored(plain, products)


_TORCH: Any = torch.backends
_PRODUCTS = (
    (_TORCH.cuda.matmul, _TORCH.cudnn.conv),
    (_TORCH.mkldnn.matmul, _TORCH.mkldnn.conv),
)
"""Where torch is told how float32 is multiplied: on accelerators and on processors, of matrices and of kernels."""


@contextmanager
def _as_stored(plain: AbstractContextManager[object], products: Any) -> Iterator[None]:
    """``plain`` without the shortcut of these products, which is put back at its end."""
    before, products.fp32_precision = products.fp32_precision, "ieee"
    try:
        with plain:
            yield
    finally:
        products.fp32_precision = before
