"""Proven upper bounds on operator norms of the matrix that is really stored.

1→q and p→∞ are maxima of vector norms: `rounding.norm_above`. For 2→2,

    λI − WᵀW  has a Cholesky factor in floating point   ⟹   ‖W‖₂² ≤ λ + c,

where c collects the rounding of the Gram matrix (γ_m‖W‖_F²) and of the factorization (γ_{n+1}·trace / (1 − γ_{n+1})),
and what underflow can take from either: W is scaled until its largest entry is near 1, so each product, sum or pivot
loses less than 2⁻¹⁰²⁰, n²(m + n) of them less than `UNDERFLOW`, whether a thread flushes denormal numbers or not.
λ is first an estimate of the largest eigenvalue and grows until the factorization succeeds, so the result never rests
on the estimate. For most matrices it comes from an eigenvalue solver, and the bound is tight to about 1e-10. Where WᵀW
is nearly a multiple of I, a few products with vectors give it to within half of the distance: to about 1e-8 for a
frozen orthonormal float32 weight, at the price of half a Gram matrix and the factorization.
Sources: Higham §10.1, Theorems 10.3 and 10.5; Rump, "Verification of positive definiteness" (BIT 2006).
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..norms import PAIRS, as_norm, dual, norm_name
from .rotation import largest_eigenvalue
from .rounding import UNDERFLOW, UNIT_ROUNDOFF, cholesky_error, gamma, norm_above, normalize_exactly, scaled_up, sqrt_up

NEARLY = 1e-6
"""How far WᵀW may be from a multiple of I, in parts of it, for its largest eigenvalue to be estimated cheaply."""

ESTIMATED_FROM = 512
"""Fewest columns for which the estimate replaces the eigenvalue solver."""

ROOM = 2.0**-40
"""Share of a square that is added to what is proven here, so that who adds in another order can prove it too."""


def operator_norm_bound(weight: Float[Tensor, "out in"], p: float, q: float) -> float:
    """A proven upper bound on ‖W‖_{p→q}, for p ≤ q in {1, 2, ∞}; exact arithmetic on the stored entries.

    Raises:
        TightlipError: if the weights are not finite, or p > q.
    """
    pair = as_norm(p), as_norm(q)
    if pair[0] > pair[1]:
        raise TightlipError(f"no bound on {norm_name(p)}→{norm_name(q)} norms is known here: ask for p ≤ q")
    return operator_norm_bounds(weight, [pair])[pair]


def operator_norm_bounds(
    weight: Float[Tensor, "out in"], pairs: Sequence[tuple[float, float]] = PAIRS
) -> dict[tuple[float, float], float]:
    """`operator_norm_bound` for several pairs (p, q) with p ≤ q at once.

    Raises:
        TightlipError: if the weights are not finite.
    """
    matrix, exponent = normalize_exactly(weight)
    if not matrix.any():
        return dict.fromkeys(pairs, 0.0)
    return {pair: scaled_up(_bound(matrix, *pair), exponent) for pair in pairs}


def frobenius_norm_bound(weight: Float[Tensor, "out in"]) -> float:
    """A proven upper bound on ‖W‖_F of the stored entries.

    Raises:
        TightlipError: if the weights are not finite.
    """
    matrix, exponent = normalize_exactly(weight)
    return scaled_up(float(norm_above(matrix.flatten(), 2, 0)), exponent) if matrix.any() else 0.0


def _bound(matrix: Float[Tensor, "out in"], p: float, q: float) -> float:
    if p == q == 2:
        return _spectral_bound(matrix)
    return _largest_vector_norm(matrix, q, -2) if p == 1 else _largest_vector_norm(matrix, dual(p), -1)


def _largest_vector_norm(matrix: Float[Tensor, "out in"], order: float, dim: int) -> float:
    return float(norm_above(matrix, order, dim).max())


def _spectral_bound(matrix: Float[Tensor, "out in"]) -> float:
    entries = matrix.flatten()
    energy = float(entries @ entries) * (1.0 + 2.0 * gamma(len(entries) + 4))
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.mT
    rows, columns = matrix.shape
    gram = _gram(matrix)
    diagonal = gram.diagonal().clone()
    largest, excess = _estimated_largest(gram), 2.0 * float(columns) * UNIT_ROUNDOFF
    shifted = gram.neg_()
    while True:
        shift = max(largest, 0.25) * (1.0 + excess)
        shifted.diagonal().copy_(shift - diagonal)
        if int(torch.linalg.cholesky_ex(shifted).info) == 0:
            break
        excess *= 4.0
    slack = cholesky_error(shifted) + UNIT_ROUNDOFF * 2.0 * shift + gamma(rows) * energy
    return sqrt_up((shift + 1.01 * slack + UNDERFLOW) * (1.0 + ROOM))


def _gram(matrix: Float[Tensor, "out in"], panels: int = 8) -> Float[Tensor, "in in"]:
    """WᵀW in panels of rows, of which nothing above the diagonal panels is computed; it is filled in from below."""
    gram = matrix.new_empty(matrix.shape[1], matrix.shape[1])
    edges = [len(gram) * i // panels for i in range(panels + 1)]
    for first, last in itertools.pairwise(edges):
        torch.mm(matrix[:, first:last].mT, matrix[:, :last], out=gram[first:last, :last])
        gram[:first, first:last] = gram[first:last, :first].mT
    return gram


def _estimated_largest(gram: Float[Tensor, "n n"]) -> float:
    """About the largest eigenvalue of a symmetric matrix, from above where it is cheap. Its diagonal is overwritten."""
    middle = float(gram.diagonal().mean())
    gram.diagonal().sub_(middle)
    if len(gram) >= ESTIMATED_FROM:
        distance = largest_eigenvalue(gram.float())
        if distance < NEARLY * middle:
            return middle + distance
    return middle + float(torch.linalg.eigvalsh(gram)[-1])
