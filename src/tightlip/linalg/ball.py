"""Euclidean projection of every row onto the L1 ball, by Newton's method on the height of what survives.

With m = max|y_i| and depths d_i = m − |y_i|, the projection of y is sign(y)·max(t − d, 0), where t > 0 solves
Σ max(t − d_i, 0) = radius. Starting above it,

    t ← t − (Σ max(t − d_i, 0) − radius) / #{d_i < t}

falls to the solution in finitely many steps. (The usual threshold is m − t; depths do not cancel when m is large.) The
first step from where all survive leads to t = (radius + Σ d_i)/n. t only ever falls and the largest entry, d = 0, stays
below it, so it ends, also in floating point and at ties: where the sum is the radius up to rounding, or t stays. Rows
that are already inside are left alone, bit for bit (the *sphere* would push them outwards). With s the signs of the
survivors, the derivative of a row that was outside is g ↦ |s|·g − s·⟨s, g⟩ / ⟨s, s⟩.
Sources: paper §4.2.2; Condat 2016, Algorithm 1 and Michelot 1986 for the iteration.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from .rounding import all_finite

BLOCK = 1 << 19
"""Entries that are worked on at a time: what fits in a cache close to the processor."""


def project_l1_ball(weight: Float[Tensor, "*batch out in"], radius: float = 1.0) -> Float[Tensor, "*batch out in"]:
    """Each row's nearest point with L1 norm ≤ ``radius``; differentiable almost everywhere, the derivative exact.

    Raises:
        TightlipError: unless ``radius`` is positive and the weights are finite.

    >>> project_l1_ball(torch.tensor([[3.0, 1.0], [0.2, -0.3]]))
    tensor([[ 1.0000,  0.0000],
            [ 0.2000, -0.3000]])
    """
    _refuse(weight, radius)
    return _Projection.apply(weight, radius)[0]  # type: ignore[no-any-return]


@torch.no_grad()
def project_l1_ball_(weight: Float[Tensor, "out in"], radius: float = 1.0) -> Float[Tensor, "out in"]:
    """`project_l1_ball` in place, without a derivative; returns the weight.

    Raises:
        TightlipError: as `project_l1_ball` does; then the weight is as it was.
    """
    _refuse(weight, radius)
    _project_blocks_(weight, radius)
    return weight


def _refuse(weight: Tensor, radius: float) -> None:
    if not radius > 0:
        raise TightlipError(f"radius = {radius} makes no ball: give a number > 0")
    if not all_finite(weight):
        raise TightlipError("a weight is NaN or infinite and has no projection: lower the learning rate")


class _Projection(torch.autograd.Function):
    """Rows ↦ projected rows, and which of them were outside."""

    @staticmethod
    def forward(weight: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        projected = weight.clone(memory_format=torch.contiguous_format)
        rows = projected.view(-1, weight.shape[-1]) if weight.numel() else projected.new_empty(0, 1)
        outside = _project_blocks_(rows, radius)
        return projected, torch.cat(outside).view(*weight.shape[:-1], 1) if outside else projected[..., :1] > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        projected, outside = ctx.saved_tensors
        (gradient, _), signs = gradients, projected.detach().sign()
        count = signs.abs().sum(-1, keepdim=True).clamp(min=1.0)
        inward = signs.abs() * gradient - signs * ((signs * gradient).sum(-1, keepdim=True) / count)
        return torch.where(outside, inward, gradient), None


def _project_blocks_(rows: Float[Tensor, "rows in"], radius: float) -> list[Tensor]:
    """Project in place, so many rows at a time as fit in the cache; which were outside."""
    count = max(1, BLOCK // max(1, rows.shape[-1]))
    return [_project_(block, radius) for block in rows.split(count)] if rows.numel() else []


def _project_(rows: Float[Tensor, "rows in"], radius: float) -> Tensor:
    """Project in place; which rows were outside."""
    depth = rows.abs()
    norm = depth.sum(-1, keepdim=True)
    outside = norm > radius
    if not outside.any():
        return outside
    torch.sub(depth.amax(-1, keepdim=True), depth, out=depth)
    height = depth.sum(-1, keepdim=True).add_(radius).div_(depth.shape[-1]).clamp_(max=radius)
    above, survives = torch.empty_like(depth), torch.empty_like(depth)
    rounding = 4 * torch.finfo(depth.dtype).eps * radius
    while True:
        torch.sub(height, depth, out=above).clamp_(min=0.0)
        excess = above.sum(-1, keepdim=True).sub_(radius)
        if not (outside & (excess > rounding)).any():
            break
        lower = torch.minimum(height, height - excess / torch.sign(above, out=survives).sum(-1, keepdim=True))
        if torch.equal(lower, height):
            break
        height = lower
    if outside.all():
        torch.copysign(above, rows, out=rows)
    else:
        rows.copy_(torch.where(outside, torch.copysign(above, rows, out=above), rows))
    return outside
