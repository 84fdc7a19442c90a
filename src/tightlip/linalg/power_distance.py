"""Distances ‖x − w‖_p of all inputs from all rows of a matrix, for p = ∞ and, as its relaxation, p = 2, 4, 8, ….

With d = |x − w| and m = max d, ‖d‖_p = m·(Σ (d/m)^p)^(1/p): k squarings make the power 2^k, and nothing overflows. The
derivative is (d/‖d‖_p)^(p−1), the product of the squarings before the last. Shares whose power would be no normal
number are left out: they add nothing, and processors are up to a hundred times slower with such numbers. Where
``torch.compile`` finds a compiler no tensor of batch × out × in numbers is made, and elsewhere pieces of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fusing import fused

PIECE = 2**20
"""Most numbers of a piece, where nothing is compiled."""


def power_distance(
    x: Float[Tensor, "batch in"],
    w: Float[Tensor, "out in"],
    octave: int | None,
    keep: Float[Tensor, "out in"] | None = None,
) -> Float[Tensor, "batch out"]:
    """‖(x_i − w_j)·keep_j‖_p for every pair, with p = 2^octave, octave ≥ 1, or p = ∞ for None; differentiable once.

    ``keep`` is of zeros and ones. Where entries share a maximum, each is its derivative.
    """
    return _PowerDistance.apply(x, w, octave, keep)  # type: ignore[no-untyped-call, no-any-return]


class _PowerDistance(torch.autograd.Function):
    """The distances, and their derivatives without the graph of the squarings."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, octave: int | None, keep: Tensor | None) -> Tensor:
        distance = torch.cat(_computed(_distances, x, w, keep, octave), 1)
        ctx.save_for_backward(x, w, keep, distance)
        ctx.octave = octave
        return distance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, w, keep, distance = ctx.saved_tensors
        of_x = of_w = None
        if ctx.needs_input_grad[0]:
            of_x = functools.reduce(torch.add, _computed(_of_inputs, x, w, keep, ctx.octave, distance, gradient))
        if ctx.needs_input_grad[1]:
            of_w = torch.cat(_computed(_of_weights, x, w, keep, ctx.octave, distance, gradient))
        return of_x, of_w, None, None


def _tiny(x: Tensor) -> float:
    """Distances below this count as no distance."""
    return max(1e-30, torch.finfo(x.dtype).tiny)


def _counted(share: Tensor, octave: int) -> Tensor:
    """Shares of the whole, 0 for those whose power 2^octave, times a usual gradient, would be no normal number."""
    least = torch.finfo(share.dtype).tiny ** (0.8 * 0.5**octave)
    return torch.where(share.abs() < least, 0.0, share)


def _apart(x: Tensor, w: Tensor, keep: Tensor | None) -> Tensor:
    apart = x[:, None] - w[None]
    return apart if keep is None else apart * keep[None]


def _distances(x: Tensor, w: Tensor, keep: Tensor | None, octave: int | None) -> Tensor:
    """m·(Σ (d/m)^p)^(1/p)."""
    distance = _apart(x, w, keep).abs()
    largest = distance.amax(-1, keepdim=True)
    if octave is None:
        return largest.squeeze(-1)
    power = _counted(distance * largest.clamp(min=_tiny(x)).reciprocal(), octave).square()
    for _ in range(octave - 1):
        power = power * power
    return largest.squeeze(-1) * power.sum(-1) ** (0.5**octave)


def _slopes(
    x: Tensor, w: Tensor, keep: Tensor | None, octave: int | None, distance: Tensor, gradient: Tensor
) -> Tensor:
    """∂‖x − w‖_p/∂x, ((x − w)/‖x − w‖_p)^(p−1) for an even p, times the gradient, (batch, out, in)."""
    apart = _apart(x, w, keep)
    if octave is None:
        return torch.where(apart.abs() == distance[..., None], apart.sign(), 0.0) * gradient[..., None]
    share = _counted(apart * distance.clamp(min=_tiny(x)).reciprocal()[..., None], octave)
    slope, power = share, share * share
    for _ in range(octave - 1):
        slope, power = slope * power, power * power
    return slope * gradient[..., None]


def _of_inputs(
    x: Tensor, w: Tensor, keep: Tensor | None, octave: int | None, distance: Tensor, gradient: Tensor
) -> Tensor:
    return _slopes(x, w, keep, octave, distance, gradient).sum(1)


def _of_weights(
    x: Tensor, w: Tensor, keep: Tensor | None, octave: int | None, distance: Tensor, gradient: Tensor
) -> Tensor:
    return -_slopes(x, w, keep, octave, distance, gradient).sum(0)


def _computed(
    function: Callable[..., Tensor],
    x: Tensor,
    w: Tensor,
    keep: Tensor | None,
    octave: int | None,
    *columns: Tensor,
) -> list[Tensor]:
    """What a function makes of all rows of w at once, compiled, or else of a few of them at a time.

    ``columns`` are (batch, out).
    """
    if (whole := fused(function, (x, w, keep, octave, *columns), x.numel() * len(w))) is not None:
        return [whole]
    rows = max(1, PIECE // max(1, x.numel()))
    kept = [None] * len(w) if keep is None else keep.split(rows)
    parts = zip(w.split(rows), kept, *(column.split(rows, 1) for column in columns), strict=False)
    return [function(x, part, keeping, octave, *rest) for part, keeping, *rest in parts]
