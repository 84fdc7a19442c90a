"""The derivative of the polar factor, in closed form.

With W = QP and upstream gradient G,

    P S + S P = QᵀG − GᵀQ,   dL/dW = Q S + (I − QQᵀ) G P⁻¹,

which at P = I is the tangent projection G − Q sym(QᵀG). It is its own adjoint, and can be differentiated again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..errors import TightlipError
from .rounding import full_precision


def derivative(weight: Tensor, q: Tensor, direction: Tensor) -> Tensor:
    """Q S + (I − QQᵀ) D P⁻¹ with P S + S P = QᵀD − DᵀQ."""
    with full_precision(weight):
        p = q.mT @ weight
        p = (p + p.mT) / 2
        k = q.mT @ direction
        result = q @ _Sylvester.apply(p, k - k.mT)
        if q.shape[-2] > q.shape[-1]:
            rest, singular = torch.linalg.solve_ex(p, direction - q @ k, left=False)
            result = torch.where((singular != 0)[..., None, None], torch.nan, result + rest)
    return _Finite.apply(result, direction)  # type: ignore[no-any-return]


class _Finite(torch.autograd.Function):
    """The derivative as it is, or an error where there is none."""

    @staticmethod
    def forward(result: Tensor, direction: Tensor) -> Tensor:
        if not torch.isfinite(result).all() and torch.isfinite(direction).all():
            raise TightlipError(
                "the polar factor has no finite derivative at a matrix without full rank: start from another weight, "
                "or lower the learning rate"
            )
        return result.view_as(result)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return tangents[0].view_as(tangents[0])  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], result: Tensor, direction: Tensor) -> tuple[Tensor, int]:
        return _Finite.apply(*batched(in_dims, result, direction)), 0


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
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        p, solution = ctx.saved_tensors
        with full_precision(p):
            t = _Sylvester.apply(p, grad_outputs[0])
            return -(t @ solution.mT + solution.mT @ t), t

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (p, solution), (dp, dk) = ctx.saved_tensors, tangents
        with full_precision(p):
            return _Sylvester.apply(p, dk - dp @ solution - solution @ dp)  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], p: Tensor, k: Tensor) -> tuple[Tensor, int]:
        return _Sylvester.apply(*batched(in_dims, p, k)), 0


def batched(in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The tensors with `torch.func.vmap`'s dimension first; those that have none of theirs are broadcast against it."""
    return [tensor if dim is None else tensor.movedim(dim, 0) for dim, tensor in zip(in_dims, tensors, strict=True)]
