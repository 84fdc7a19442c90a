"""Proven upper bounds on operator norms of the matrix that is really stored.

1→q and p→∞ are maxima of vector norms: computed in float64 and inflated by their own rounding bound. For 2→2,

    λI − WᵀW  has a Cholesky factor in floating point   ⟹   ‖W‖₂² ≤ λ + c,

where c collects the rounding of the Gram matrix (γ_m‖W‖_F²) and of the factorization (γ_{n+1}·trace / (1 − γ_{n+1})).
λ is first the largest computed eigenvalue and grows until the factorization succeeds, so the result is tight to
about 1e-10 for any matrix, orthonormal or not, and never rests on the eigenvalue solver.
Sources: Higham §10.1, Theorems 10.3 and 10.5; Rump, "Verification of positive definiteness" (BIT 2006).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..norms import as_norm, dual, norm_name
from .rounding import UNDERFLOW, UNIT_ROUNDOFF, gamma, normalize_exactly, sqrt_up


def operator_norm_bound(weight: Float[Tensor, "out in"], p: float, q: float) -> float:
    """A proven upper bound on ‖W‖_{p→q}, for p ≤ q in {1, 2, ∞}; exact arithmetic on the stored entries.

    Raises:
        TightlipError: if the weights are not finite, or p > q.
    """
    p, q = as_norm(p), as_norm(q)
    if p > q:
        raise TightlipError(f"no bound on {norm_name(p)}→{norm_name(q)} norms is known here: ask for p ≤ q")
    matrix, exponent = normalize_exactly(weight)
    if not matrix.any():
        return 0.0
    if p == q == 2:
        return _scale(_spectral_bound(matrix), exponent)
    order, dim = (q, -2) if p == 1 else (dual(p), -1)
    return _scale(_largest_vector_norm(matrix, order, dim), exponent)


def _scale(value: float, exponent: int) -> float:
    try:
        scaled = math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
    exact = math.ldexp(scaled, -exponent) == value
    return scaled if exact else math.nextafter(scaled, math.inf)


def _largest_vector_norm(matrix: Float[Tensor, "out in"], order: float, dim: int) -> float:
    if order == math.inf:
        return float(matrix.abs().max())
    if order == 2:
        value = float(matrix.square().sum(dim).max())
    else:
        value = float(matrix.abs().sum(dim).max())
    value = value * (1.0 + 2.0 * gamma(matrix.shape[dim] + 4)) + UNDERFLOW
    return sqrt_up(value) if order == 2 else value


def _spectral_bound(matrix: Float[Tensor, "out in"]) -> float:
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.mT
    rows, columns = matrix.shape
    gram = matrix.mT @ matrix
    energy = float(matrix.square().sum()) * (1.0 + 2.0 * gamma(rows * columns + 4))
    excess = 2.0 * float(columns) * UNIT_ROUNDOFF
    largest = float(torch.linalg.eigvalsh(gram)[-1])
    while True:
        shift = max(largest, 0.25) * (1.0 + excess)
        shifted = -gram
        shifted.diagonal().add_(shift)
        if int(torch.linalg.cholesky_ex(shifted).info) == 0:
            break
        excess *= 4.0
    factor = gamma(columns + 1) / (1.0 - gamma(columns + 1))
    trace = float(shifted.diagonal().abs().sum()) * (1.0 + 2.0 * gamma(columns + 4))
    slack = factor * trace + UNIT_ROUNDOFF * 2.0 * shift + gamma(rows) * energy
    return sqrt_up((shift + 1.01 * slack + UNDERFLOW) * (1.0 + 4.0 * UNIT_ROUNDOFF))
