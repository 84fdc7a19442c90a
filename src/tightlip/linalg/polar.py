"""The polar factor: the nearest matrix whose singular values are all 1, its derivative, and Björck's iteration.

Björck and Bowie's iteration of order r (paper Eq. 2) multiplies by a truncated series of (WᵀW)^(-1/2),

    W ← W Σ_{j ≤ r} c_j (I − WᵀW)^j,   c_j = binom(2j, j) / 4^j,

and converges with order r + 1 where ‖I − WᵀW‖₂ < 1. Odd orders never push a singular value above 1.
`polar` measures ‖I − WᵀW‖₂ from above and runs order 3 below 1, order 1 below 2 (both inside their basins), and takes
the exact factor from a float64 singular value decomposition elsewhere, so it neither diverges nor stalls on a small
singular value.

Its derivative is closed, not the unrolled iteration: with W = QP and upstream gradient G,

    P S + S P = QᵀG − GᵀQ,   dL/dW = Q S + (I − QQᵀ) G P⁻¹,

which at P = I is the tangent projection G − Q sym(QᵀG).
"""

from fractions import Fraction
from math import comb
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..errors import TightlipError

MAX_STEPS = 30
"""Iterations after which a small singular value is left to the exact decomposition."""


def series(order: int) -> tuple[Fraction, ...]:
    """The coefficients c_0 … c_order of (1 − x)^(-1/2).

    >>> [str(c) for c in series(3)]
    ['1', '1/2', '3/8', '5/16']
    """
    return tuple(Fraction(comb(2 * j, j), 4**j) for j in range(order + 1))


def residual(weight: Float[Tensor, "*batch out in"]) -> Float[Tensor, "*batch k k"]:
    """I − WᵀW, or I − WWᵀ where W is wide: zero exactly where all singular values are 1; k = min(out, in)."""
    tall = weight if weight.shape[-2] >= weight.shape[-1] else weight.mT
    with _full_precision(weight):
        error = torch.neg(tall.mT @ tall)
    error.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return error


def bjorck(weight: Float[Tensor, "*batch out in"], steps: int, order: int = 1) -> Float[Tensor, "*batch out in"]:
    """``steps`` of Björck's iteration; differentiable by unrolling. From ‖W‖₂ ≤ 1 the result keeps ‖W‖₂ ≤ 1."""
    if order < 1:
        raise TightlipError(f"order = {order} is no Björck iteration: give an integer ≥ 1")
    tall = weight.shape[-2] >= weight.shape[-1]
    matrix = weight if tall else weight.mT
    with _full_precision(weight):
        for _ in range(steps):
            matrix = _step(matrix, residual(matrix), order)
    return matrix if tall else matrix.mT


def _full_precision(weight: Tensor) -> torch.autocast:
    """Autocast never touches the arithmetic of constraints."""
    return torch.autocast(weight.device.type, enabled=False)


def _step(tall: Float[Tensor, "*batch m n"], error: Float[Tensor, "*batch n n"], order: int) -> Tensor:
    """W Σ c_j E^j by Horner's rule on the small side."""
    coefficients = [float(c) for c in series(order)]
    polynomial = coefficients[order] * error
    for c in reversed(coefficients[1:order]):
        polynomial = error @ polynomial + c * error
    return tall + tall @ polynomial


def tangent(weight: Float[Tensor, "*batch out in"], gradient: Float[Tensor, "*batch out in"]) -> Tensor:
    """G − W sym(WᵀG), the gradient along the manifold at an orthonormal W (its wide form: G − sym(GWᵀ) W)."""
    if weight.shape[-2] < weight.shape[-1]:
        return tangent(weight.mT, gradient.mT).mT
    with _full_precision(weight):
        product = weight.mT @ gradient
        return gradient - weight @ ((product + product.mT) / 2)


def polar(weight: Float[Tensor, "*batch out in"]) -> Float[Tensor, "*batch out in"]:
    """The polar factor of each matrix: orthonormal columns (tall), rows (wide) or both (square).

    Differentiable any number of times by the closed form above; float16 and bfloat16 are computed in float32.
    Source: paper §4.2.1 and Theorem 2.

    Raises:
        TightlipError: if an entry is NaN or infinite.

    >>> polar(torch.tensor([[3.0, 0.0], [0.0, -0.1]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    with _full_precision(weight):
        wide = weight.shape[-2] < weight.shape[-1]
        matrix = weight.mT if wide else weight
        if matrix.dtype in (torch.float16, torch.bfloat16):
            matrix = matrix.float()
        factor = _Polar.apply(matrix)
        return (factor.mT if wide else factor).to(weight.dtype)


def _polar_value(tall: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
    if not torch.isfinite(tall).all():
        raise TightlipError("a weight is NaN or infinite and has no polar factor: lower the learning rate")
    matrix, error = tall, residual(tall)
    size = float(torch.linalg.matrix_norm(error).max())
    floor = 4.0 * torch.finfo(tall.dtype).eps * tall.shape[-1] ** 0.5
    for _ in range(MAX_STEPS):
        if size <= floor:
            return matrix.clone() if matrix is tall else matrix
        enough = next((order for order in (1, 2, 3) if size ** (order + 1) <= floor), None)
        if enough is not None:  # what is left, c_{order+1}·‖E‖^{order+1}, is below rounding: no need to measure it
            return _step(matrix, error, enough)
        reach = size if size < 1.0 else _spectral_reach(error)
        if reach >= 2.0:
            break
        matrix = _step(matrix, error, order=3 if reach < 1.0 else 1)
        error = residual(matrix)
        previous, size = size, float(torch.linalg.matrix_norm(error).max())
        if size < 1e-3 and size > previous / 2:  # rounding is all that is left
            return matrix
    u, _, vh = torch.linalg.svd(tall.double(), full_matrices=False)
    return (u @ vh).to(tall.dtype)


def _spectral_reach(error: Float[Tensor, "*batch k k"]) -> float:
    """An upper bound on ‖E‖₂ for symmetric E: its Schatten 8-norm, ‖E⁴‖_F^(1/4)."""
    square = error @ error
    return float(torch.linalg.matrix_norm(square @ square).max()) ** 0.25


class _Polar(torch.autograd.Function):
    """W ↦ Q for tall W, with the closed-form derivative written in differentiable operations."""

    @staticmethod
    def forward(tall: Tensor) -> Tensor:
        return _polar_value(tall)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        weight, q = ctx.saved_tensors
        (gradient,) = grad_outputs
        with _full_precision(weight):
            p = q.mT @ weight
            p = (p + p.mT) / 2
            k = q.mT @ gradient
            result = q @ _Sylvester.apply(p, k - k.mT)
            if q.shape[-2] > q.shape[-1]:
                result = result + torch.linalg.solve(p, gradient - q @ k, left=False)
            return result


class _Sylvester(torch.autograd.Function):
    """The S with P S + S P = K, for symmetric positive P: a Jacobi iteration near P = I, else float64 eigenvectors."""

    @staticmethod
    def forward(p: Tensor, k: Tensor) -> Tensor:
        error = p.clone()
        error.diagonal(dim1=-2, dim2=-1).sub_(1.0)
        tolerance = torch.finfo(p.dtype).eps * float(torch.linalg.matrix_norm(k).max())
        solution = k / 2
        if float(torch.linalg.matrix_norm(error).max()) < 0.1:
            for _ in range(20):
                update = (k - error @ solution - solution @ error) / 2 - solution
                solution = solution + update
                if float(torch.linalg.matrix_norm(update).max()) <= tolerance:
                    return solution
        values, vectors = torch.linalg.eigh(p.double())
        sums = values.unsqueeze(-1) + values.unsqueeze(-2)
        sums = sums.clamp(min=torch.finfo(p.dtype).eps * float(values.abs().max()))
        rotated = vectors.mT @ k.double() @ vectors
        return (vectors @ (rotated / sums) @ vectors.mT).to(p.dtype)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        p, solution = ctx.saved_tensors
        with _full_precision(p):
            t = _Sylvester.apply(p, grad_outputs[0])
            return -(t @ solution.mT + solution.mT @ t), t
