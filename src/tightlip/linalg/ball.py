"""Euclidean projection of every row onto the L1 ball, by Newton's method on the threshold.

The projection of y is sign(y)·max(|y| − t, 0), where t > 0 solves f(t) = Σ max(|y_i| − t, 0) − radius = 0. As f is
convex, piecewise linear and falling,

    t ← t + f(t) / #{|y_i| > t}

never overshoots, whatever t it starts from, and rises to the solution in finitely many steps. It begins where the step
from all survivors leads, (‖y‖₁ − radius)/n. It ends, also in floating point and at ties, where the sum is the radius up
to rounding, or t stays. Rows that are inside already have t = 0 and are left alone, bit for bit (the *sphere* would
push them outwards). Far from the ball differences of large numbers would cancel, and max|y_i| is taken off first.

After an optimizer's step the solution lies near the last one, relative to how far the row is outside. A `Guess` holds
it; two cheap evaluations of f, without counting, by the last count and then by the secant, lead on from there.

With s the signs of the survivors, the derivative of a row that was outside is g ↦ |s|·g − s·⟨s, g⟩ / ⟨s, s⟩.
Sources: paper §4.2.2; Condat 2016, Algorithm 1 and Michelot 1986 for the iteration.
"""

from numbers import Real
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import tensor
from ..errors import TightlipError
from .rounding import all_finite

BLOCK = 1 << 19
"""Entries processed at a time, so that they stay in the processor's cache."""

UNSHIFTED = 4.0
"""Largest norm, in radii, for which thresholds are computed without a shift; beyond it two bits would be lost."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Guess(NamedTuple):
    """The result of the last projection of nearly the same rows, from which the next one starts."""

    relative_threshold: Float[Tensor, "rows 1"]
    """The threshold, divided by what it would be if every entry were above it."""

    survivors: Float[Tensor, "rows 1"]
    """How many entries were above the threshold."""

    def suits(self, rows: Tensor) -> bool:
        """Whether these are rows of such a matrix."""
        return self.relative_threshold.shape[0] == len(rows) and (
            self.relative_threshold.dtype,
            self.relative_threshold.device,
        ) == (
            rows.dtype,
            rows.device,
        )


def project_l1_ball(weight: Float[Tensor, "*batch out in"], radius: float = 1.0) -> Float[Tensor, "*batch out in"]:
    """Each row's nearest point with L1 norm ≤ ``radius``; differentiable almost everywhere, the derivative exact.

    Raises:
        TightlipError: unless ``radius`` is positive and the weights are finite.

    >>> project_l1_ball(torch.tensor([[3.0, 1.0], [0.2, -0.3]]))
    tensor([[ 1.0000,  0.0000],
            [ 0.2000, -0.3000]])
    """
    _refuse_radius(radius)
    weight = tensor("weight", weight)
    return _Projection.apply(weight, radius)[0]  # type: ignore[no-any-return]


@torch.no_grad()
def project_l1_ball_(weight: Float[Tensor, "out in"], radius: float = 1.0, guess: Guess | None = None) -> Guess:
    """`project_l1_ball` in place, without a derivative; returns a guess for the next call on nearly this weight.

    Raises:
        TightlipError: as `project_l1_ball` does; then the weight is as it was.
    """
    _refuse_radius(radius)
    _refuse_values(weight)
    return _project_blocks_(weight, radius, guess)[1]


def _refuse_radius(radius: float) -> None:
    if not isinstance(radius, Real) or not radius > 0:
        raise TightlipError(f"radius must be > 0, got {radius!r}")


def _refuse_values(weight: Tensor) -> None:
    if not all_finite(weight):
        raise TightlipError("a weight is NaN or infinite and has no projection: lower the learning rate")


class _Projection(torch.autograd.Function):
    """Rows ↦ projected rows, and which of them were outside."""

    @staticmethod
    def forward(weight: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        _refuse_values(weight)
        projected = weight.clone(memory_format=torch.contiguous_format)
        rows = projected.view(-1, weight.shape[-1]) if weight.numel() else projected.new_empty(0, 1)
        outside, _ = _project_blocks_(rows, radius)
        return projected, outside.view(*weight.shape[:-1], 1) if weight.numel() else projected[..., :1] > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        projected, outside = ctx.saved_tensors
        return _along(projected, outside, gradients[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        projected, outside = ctx.saved_tensors
        return _along(projected, outside, tangents[0]), None  # a projection, so its own adjoint

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], weight: Tensor, radius: float) -> tuple[tuple[Tensor, Tensor], Any]:
        return _Projection.apply(weight.movedim(in_dims[0], 0), radius), (0, 0)


def _along(projected: Tensor, outside: Tensor, direction: Tensor) -> Tensor:
    signs = projected.detach().sign()
    count = signs.abs().sum(-1, keepdim=True).clamp(min=1.0)
    inward = signs.abs() * direction - signs * ((signs * direction).sum(-1, keepdim=True) / count)
    return torch.where(outside, inward, direction)


def _project_blocks_(rows: Float[Tensor, "rows in"], radius: float, guess: Guess | None = None) -> tuple[Tensor, Guess]:
    """Project in place, so many rows at a time as fit in the cache; which were outside, and how it ended."""
    count = max(1, BLOCK // max(1, rows.shape[-1]))
    blocks = rows.split(count)
    guesses: list[Guess | None] = [None] * len(blocks)
    if guess is not None and guess.suits(rows):
        guesses = [Guess(*parts) for parts in zip(*(part.split(count) for part in guess), strict=True)]
    ends = [_project_(block, radius, last) for block, last in zip(blocks, guesses, strict=True)]
    outside, relative_threshold, survivors = (torch.cat(parts) for parts in zip(*ends, strict=True))
    return outside, Guess(relative_threshold, survivors)


def _project_(rows: Float[Tensor, "rows in"], radius: float, guess: Guess | None) -> tuple[Tensor, Tensor, Tensor]:
    """Project in place; which rows were outside, and the parts of a `Guess`."""
    size, n = rows.abs(), rows.shape[-1]
    norm = size.sum(-1, keepdim=True)
    outside, survivors = norm > radius, torch.full_like(norm, n)
    if not outside.any():
        return outside, torch.ones_like(norm), survivors
    far = bool((norm / UNSHIFTED > radius).any())
    start = threshold = ((norm - radius) / n).clamp_(min=0.0)
    above = torch.empty_like(size)
    if far:
        size.sub_(size.amax(-1, keepdim=True).mul_(outside))
        start = threshold = ((size.sum(-1, keepdim=True) - radius) / n).clamp_(min=-radius).mul_(outside)
    elif guess is not None:
        threshold = _newton_from_guess(
            size, start * guess.relative_threshold, guess.survivors, outside, radius, above
        ).maximum(start)
    rounding = 4 * torch.finfo(rows.dtype).eps * radius
    risen, stays = threshold.new_full((), -torch.inf), False
    while True:
        torch.sub(size, threshold, out=above).relu_()
        excess = above.sum(-1, keepdim=True).sub_(radius).mul_(outside)
        if stays or (excess.abs() <= rounding).all():  # NaN is not: it came with the guess, and `start` follows
            break
        survivors = above.sign_().sum(-1, keepdim=True)
        risen = torch.maximum(torch.where(survivors > 0, threshold + excess / survivors, start), risen)
        stays, threshold = torch.equal(risen, threshold), risen
    if stays:  # what is above has finer digits than the threshold, whose last bit counts for every survivor
        above.sub_(excess.clamp_(min=0.0).div_(survivors.clamp_(min=1.0))).relu_()
    bits = _BITS[rows.element_size()]
    rows.view(bits).bitwise_and_(torch.iinfo(bits).min).bitwise_or_(above.view(bits))  # the size, the sign that was
    return (
        outside,
        torch.ones_like(start) if far else torch.where(outside, threshold / start, 1.0),
        survivors.clamp_(1.0),
    )


def _newton_from_guess(
    size: Tensor, threshold: Tensor, survivors: Tensor, outside: Tensor, radius: float, buffer: Tensor
) -> Tensor:
    """A threshold closer to the solution than ``threshold``, on either side of it."""

    def excess(threshold: Tensor) -> Tensor:
        total = torch.maximum(size, threshold, out=buffer).sum(-1, keepdim=True)
        return total.sub_(threshold, alpha=size.shape[-1]).sub_(radius).mul_(outside)

    first = excess(threshold)
    closer = threshold + first / survivors
    second = excess(closer)
    slope = (first - second) / (closer - threshold)  # NaN where nothing moved
    return closer + second / torch.where(slope >= 1.0, slope, survivors)
