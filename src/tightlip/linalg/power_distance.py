"""Distances ‖x − w‖_p of all inputs from all rows of a matrix, for p = 2, 4, 8, …, as a relaxation of p = ∞.

With d = |x − w| and m = max d, ‖d‖_p = m·(Σ (d/m)^p)^(1/p): k squarings make the power 2^k, and nothing overflows. The
derivative is (d/‖d‖_p)^(p−1), the product of the squarings before the last. Where ``torch.compile`` finds
a compiler no tensor of batch × out × in numbers is made, and elsewhere pieces of it.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch._dynamo
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger(__name__)

T = TypeVar("T")

PIECE = 2**20
"""Most numbers of a piece, where nothing is compiled."""

TINY = 1e-30
"""Distances below this count as no distance."""

COMPILED = 64
"""How many variants of a function torch may compile: one for each power, and few for shapes."""

SMALL = 2**22
"""Products of batch, out and in below which nothing is compiled: compiling takes seconds."""


def power_distance(x: Float[Tensor, "batch in"], w: Float[Tensor, "out in"], octave: int) -> Float[Tensor, "batch out"]:
    """‖x_i − w_j‖_p with p = 2^octave, octave ≥ 1, for every pair; differentiable once."""
    return _PowerDistance.apply(x, w, octave)  # type: ignore[no-untyped-call, no-any-return]


class _PowerDistance(torch.autograd.Function):
    """The distances, and their derivatives without the graph of the squarings."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, octave: int) -> Tensor:
        largest, total = (torch.cat(parts, 1) for parts in zip(*_computed(_powers, x, w, octave), strict=True))
        distance = largest * total ** (0.5**octave)
        ctx.save_for_backward(x, w, distance)
        ctx.octave = octave
        return distance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, w, distance = ctx.saved_tensors
        inverse = distance.clamp(min=TINY).reciprocal()
        of_x = of_w = None
        if ctx.needs_input_grad[0]:
            of_x = functools.reduce(torch.add, _computed(_of_inputs, x, w, ctx.octave, inverse, gradient))
        if ctx.needs_input_grad[1]:
            of_w = torch.cat(list(_computed(_of_weights, x, w, ctx.octave, inverse, gradient)))
        return of_x, of_w, None


def _powers(x: Tensor, w: Tensor, octave: int) -> tuple[Tensor, Tensor]:
    """Max d and Σ (d/max d)^p."""
    distance = (x[:, None] - w[None]).abs()
    largest = distance.amax(-1, keepdim=True)
    power = (distance * largest.clamp(min=TINY).reciprocal()).square()
    for _ in range(octave - 1):
        power = power * power
    return largest.squeeze(-1), power.sum(-1)


def _slopes(x: Tensor, w: Tensor, octave: int, inverse: Tensor, gradient: Tensor) -> Tensor:
    """∂‖x − w‖_p/∂x, ((x − w)/‖x − w‖_p)^(p−1) for an even p, times the gradient, (batch, out, in)."""
    share = (x[:, None] - w[None]) * inverse[..., None]
    slope, power = share, share * share
    for _ in range(octave - 1):
        slope, power = slope * power, power * power
    return slope * gradient[..., None]


def _of_inputs(x: Tensor, w: Tensor, octave: int, inverse: Tensor, gradient: Tensor) -> Tensor:
    return _slopes(x, w, octave, inverse, gradient).sum(1)


def _of_weights(x: Tensor, w: Tensor, octave: int, inverse: Tensor, gradient: Tensor) -> Tensor:
    return -_slopes(x, w, octave, inverse, gradient).sum(0)


def _computed(function: Callable[..., T], x: Tensor, w: Tensor, octave: int, *columns: Tensor) -> list[T]:
    """What a function makes of all rows of w at once, compiled, or else of a few of them at a time.

    ``columns`` are (batch, out).
    """
    large = x.numel() * len(w) >= SMALL
    if large and function not in _BROKEN and not torch.compiler.is_compiling():
        with torch._dynamo.config.patch(recompile_limit=COMPILED):
            try:
                return [_compile(function)(x, w, octave, *columns)]
            except Exception as problem:  # noqa: BLE001  a compiler has many ways to be absent
                reason = (str(problem).splitlines() or [type(problem).__name__])[0]
                logger.warning("torch.compile does not work here (%.100s): distances are computed in pieces", reason)
                _BROKEN.add(function)
    rows = max(1, PIECE // max(1, x.numel()))
    parts = zip(w.split(rows), *(column.split(rows, 1) for column in columns), strict=True)
    return [function(x, part, octave, *rest) for part, *rest in parts]


_BROKEN: set[Any] = set()
"""Functions that torch could not compile here."""


@functools.cache
def _compile(function: Callable[..., T]) -> Callable[..., T]:
    return torch.compile(function, dynamic=True)  # type: ignore[no-any-return]
