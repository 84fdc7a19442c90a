"""The polar factor: the nearest matrix whose singular values are all 1, and its derivative.

`polar` is the exact one. It measures ‖I − WᵀW‖₂ from above and runs Björck's order 3 below 1, order 1 below 2 (both
inside their basins), and takes the factor from a float64 singular value decomposition elsewhere, so it neither diverges
nor stalls on a small singular value. `orthonormalize` runs a fixed `Schedule` instead, after scaling by a true bound.

The derivative of `polar` is closed (`polar_derivative`); truncated schedules are differentiated by unrolling.
"""

import logging
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..arguments import matrix as checked_matrix
from ..errors import TightlipError
from .polar_derivative import batched, derivative
from .rounding import all_finite, full_precision
from .schedules import Polynomial, Schedule, series

logger = logging.getLogger(__name__)

MAX_STEPS = 30
"""Iterations after which a small singular value is left to the exact decomposition."""


def residual(weight: Float[Tensor, "*batch out in"]) -> Float[Tensor, "*batch k k"]:
    """I − WᵀW, or I − WWᵀ where W is wide: zero exactly where all singular values are 1; k = min(out, in)."""
    tall = weight if weight.shape[-2] >= weight.shape[-1] else weight.mT
    with full_precision(weight):
        error = torch.neg(tall.mT @ tall)
    error.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return error


def iterate(weight: Float[Tensor, "*batch out in"], schedule: Schedule) -> Float[Tensor, "*batch out in"]:
    """The steps of ``schedule`` on the weight as it is, differentiable by unrolling; ‖W‖₂ ≤ 1 is kept."""
    tall = weight.shape[-2] >= weight.shape[-1]
    matrix = weight if tall else weight.mT
    with full_precision(weight):
        for polynomial in schedule.polynomials:
            matrix = _step(matrix, residual(matrix), polynomial)
    return matrix if tall else matrix.mT


def orthonormalize(
    weight: Float[Tensor, "*batch out in"], schedule: Schedule | None = None
) -> Float[Tensor, "*batch out in"]:
    """The polar factor, or with a ``schedule`` what its steps make of W, first divided by a true bound where needed.

    ‖W‖₂ is bounded by the least of ‖W‖_F, √(‖W‖₁‖W‖_∞) and √(1 + ‖E⁴‖_F^(1/4)), E = I − WᵀW. Up to the middle of the
    schedule's reach W is used as it is; beyond, it is divided down to there. So ‖result‖₂ ≤ 1, converged or not.
    (The division by √(rows·columns) of the original experiments is a bound only where no entry exceeds 1.)

    Source: paper §4.2.1 and Appendix B.3 (few iterations in training).

    Raises:
        TightlipError: if an entry is NaN or infinite.

    >>> from tightlip.linalg.schedules import bjorck
    >>> orthonormalize(torch.tensor([[0.5]]), bjorck(1))
    tensor([[0.6875]])
    """
    if schedule is None:
        return polar(weight)
    weight = checked_matrix("weight", weight)
    if not isinstance(schedule, Schedule):
        raise TightlipError(f"schedule must be a Schedule such as bjorck(3), got {schedule!r}")
    if not all_finite(weight):
        raise TightlipError("a weight is NaN or infinite and cannot be orthonormalized: lower the learning rate")
    with full_precision(weight):
        bound = norm_bound(weight)[..., None, None]
        if not all_finite(bound):  # it overflows: such a weight is divided by its largest entry first
            largest = weight.detach().abs().amax((-2, -1), keepdim=True)
            weight = weight / torch.where(torch.isfinite(bound), 1.0, largest)
            bound = norm_bound(weight)[..., None, None]
        excess = bound / ((1.0 + schedule.reach) / 2.0)
        return iterate(weight / excess.clamp(min=1.0), schedule)


def norm_bound(weight: Float[Tensor, "*batch out in"]) -> Float[Tensor, "*batch"]:
    """An upper bound on ‖W‖₂ up to rounding, differentiable: the least of three that are tight in different places."""
    if weight.dim() == 2:  # forward-mode derivatives of numbers without an axis come out in float64
        return norm_bound(weight[None])[0]
    scale = weight.detach().abs().amax((-2, -1), keepdim=True).clamp(min=1.0)  # fourth powers would overflow
    weight = weight / scale
    error = residual(weight)
    square = error @ error
    tiny = torch.finfo(weight.dtype).tiny  # keeps the derivatives of roots finite at zero
    near = (1.0 + (torch.linalg.matrix_norm(square @ square) + tiny) ** 0.25).sqrt()  # tight at orthonormal matrices
    rows, columns = weight.abs().sum(-1).amax(-1), weight.abs().sum(-2).amax(-1)
    scale, sums = scale[..., 0, 0], (rows * columns + tiny).sqrt()
    near = near.masked_fill(scale > 1.0, torch.inf)  # unlike the others it is no multiple of its scale
    return scale * torch.minimum(torch.minimum(torch.linalg.matrix_norm(weight), sums), near)


def _step(tall: Float[Tensor, "*batch m n"], error: Float[Tensor, "*batch n n"], polynomial: Polynomial) -> Tensor:
    """W Σ c_j E^j by Horner's rule on the small side; c_0 = 1 costs nothing."""
    coefficients = [float(c) for c in polynomial]
    if len(coefficients) == 1:
        return coefficients[0] * tall
    total = coefficients[-1] * error
    for c in reversed(coefficients[1:-1]):
        total = _product_plus(error, total, error, c)
    return _product_plus(tall, total, tall, coefficients[0])


def _product_plus(a: Tensor, b: Tensor, summand: Tensor, factor: float = 1.0, sign: float = 1.0) -> Tensor:
    """sign·AB + factor·S, without a pass of its own for the sum where there is no batch, in the layout of S."""
    if summand.dim() == 2:
        if summand.mT.is_contiguous():
            return torch.addmm(summand.mT, b.mT, a.mT, beta=factor, alpha=sign).mT
        return torch.addmm(summand, a, b, beta=factor, alpha=sign)
    return factor * summand + sign * (a @ b)


def tangent(weight: Float[Tensor, "*batch out in"], gradient: Float[Tensor, "*batch out in"]) -> Tensor:
    """G − W sym(WᵀG), the gradient along the manifold at an orthonormal W (its wide form: G − sym(GWᵀ) W)."""
    if weight.shape[-2] < weight.shape[-1]:
        return tangent(weight.mT, gradient.mT).mT
    with full_precision(weight):
        product = weight.mT @ gradient
        return _product_plus(weight, product + product.mT, gradient, sign=-0.5)


def polar(weight: Float[Tensor, "*batch out in"]) -> Float[Tensor, "*batch out in"]:
    """The polar factor of each matrix: orthonormal columns (tall), rows (wide) or both (square).

    Differentiable any number of times, by a closed form; float16 and bfloat16 are computed in float32.
    Source: paper §4.2.1 and Theorem 2.

    Raises:
        TightlipError: if an entry is NaN or infinite.

    >>> polar(torch.tensor([[3.0, 0.0], [0.0, -0.1]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    weight = checked_matrix("weight", weight)
    with full_precision(weight):
        wide = weight.shape[-2] < weight.shape[-1]
        matrix = weight.mT if wide else weight
        if matrix.dtype in (torch.float16, torch.bfloat16):
            matrix = matrix.float()
        # the first costs 0.2 ms, and a trace cannot hold it
        derived = torch.is_grad_enabled() and torch._C._get_tracing_state() is None
        factor = _Polar.apply(matrix) if derived else _polar_value(matrix)
        return (factor.mT if wide else factor).to(weight.dtype)


def _polar_value(tall: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
    matrix, error = tall, residual(tall)
    size = float(torch.linalg.matrix_norm(error).max())
    if not size < math.inf and not all_finite(tall):
        raise TightlipError("a weight is NaN or infinite and has no polar factor: lower the learning rate")
    floor = 4.0 * torch.finfo(tall.dtype).eps * tall.shape[-1] ** 0.5
    for _ in range(MAX_STEPS):
        if size <= floor:
            return matrix.clone() if matrix is tall else matrix
        if floor < size**4 and size < 0.5:  # or one step more than is needed would be taken
            size = min(size, float(torch.linalg.matrix_norm(error @ error).max()) ** 0.5)
        enough = next((order for order in (1, 2, 3) if size ** (order + 1) <= floor), None)
        if enough is not None:  # what is left, c_{order+1}·‖E‖^{order+1}, is below rounding: no need to measure it
            return _step(matrix, error, series(enough))
        reach = size if size < 1.0 else _spectral_reach(error)
        if reach >= 2.0:
            break
        matrix = _step(matrix, error, series(3 if reach < 1.0 else 1))
        error = residual(matrix)
        previous, size = size, float(torch.linalg.matrix_norm(error).max())
        if size < 1e-3 and size > previous / 2:  # rounding is all that is left
            return matrix
    else:
        logger.warning(
            "%d iterations left ‖I − WᵀW‖ = %.2g, for a singular value is almost zero: the polar factor was taken from "
            "a float64 decomposition, which is exact but slower",
            MAX_STEPS,
            size,
        )
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
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        weight, q = ctx.saved_tensors
        return derivative(weight, q, grad_outputs[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        weight, q = ctx.saved_tensors
        return derivative(weight, q, tangents[0])  # it is its own adjoint

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], tall: Tensor) -> tuple[Tensor, int]:
        return _Polar.apply(*batched(in_dims, tall)), 0
