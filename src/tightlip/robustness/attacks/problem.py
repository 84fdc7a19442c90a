"""What an attack is asked, checked before anything is computed: inputs, the classes that are wanted, ball and box."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...arguments import FLATTEN, called
from ...errors import TightlipError
from ...norms import as_norm
from ...tensors import as_tensor
from .directions import column, direction, filled, project, project_l1, spread
from .margins import cw_loss


@dataclass(frozen=True)
class Problem:
    """Inputs (batch, …) with a radius and a class each; what ``posed`` makes, and what an attack works on."""

    network: nn.Module
    x: Tensor
    goal: Tensor
    """The class of each input that is to be left, or reached, (batch,)."""
    sign: float
    """1 where it is to be left, −1 where it is to be reached."""
    radius: Tensor
    """One for each input, (batch,)."""
    p: float
    clamp: tuple[float, float] | None

    def among(self, index: Tensor) -> "Problem":
        """Only the inputs at these places."""
        return replace(self, x=self.x[index], goal=self.goal[index], radius=self.radius[index])

    def evaluated(self, point: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The margin at each point, positive where the attack has succeeded, and the gradient of what is climbed."""
        point = point.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = _logits(called(self.network, point), point)
            margin = self.sign * cw_loss(logits, self.goal)
            climbed = margin if loss is cw_loss else self.sign * loss(logits, self.goal)
            (gradient,) = torch.autograd.grad(climbed.sum(), point)
        return margin.detach(), torch.nan_to_num(gradient, 0.0, 0.0, 0.0)  # what has no slope is not climbed

    def moved(self, delta: Tensor) -> Tensor:
        """The points x + δ, drawn back into the ball and then into the box, which x is in."""
        if self.p == 1:
            inside = project_l1(delta, self.radius, self.room(delta, self.x))
        else:
            inside = project(delta, self.radius, self.p)
        point = (self.x + inside).detach()
        return point if self.clamp is None else point.clamp(*self.clamp)

    def step(self, gradient: Tensor, point: Tensor, size: float) -> Tensor:
        """A step of ``size`` radii in the p-norm, along which a linear function rises steeply."""
        if self.p == 1:
            return spread(gradient, self.room(gradient, point), size * self.radius)
        return column(size * self.radius, gradient) * direction(gradient, self.p)

    def leap(self, gradient: Tensor) -> Tensor:
        """The step from x by a whole radius; for p = 1 and ∞ no other raises a linear function more inside the box."""
        if self.p == 1:
            return filled(gradient, self.room(gradient, self.x), self.radius)
        return self.step(gradient, self.x, 1.0)

    def room(self, gradient: Tensor, point: Tensor) -> Tensor:
        """How far each coordinate can move along its slope before it meets the box; two radii where there is none."""
        free = column(2 * self.radius, point).expand_as(point)
        if self.clamp is None:
            return free
        return torch.where(gradient > 0, self.clamp[1] - point, point - self.clamp[0]).minimum(free)

    def start(self, generator: torch.Generator) -> Tensor:
        """A random move in the ball; its size is the same share of every radius."""
        noise = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype).to(self.x.device)
        return direction(noise, self.p) * column(self.radius * torch.rand(1, generator=generator).item(), self.x)


def posed(
    network: nn.Module,
    x: Any,
    y: Any,
    eps: float | Tensor,
    p: float,
    clamp: tuple[float, float] | None,
    targets: Any = None,
) -> Problem:
    """What an `Attack` is called with, as a problem.

    Raises:
        TightlipError: for other norms than 1, 2 and inf, negative radii, inputs outside the box, misfit shapes, and
            targets that are the classes to be left; in torch.inference_mode, which keeps no gradients.
    """
    if torch.is_inference_mode_enabled():
        raise TightlipError("an attack follows gradients, and torch.inference_mode keeps none: call it outside")
    p = as_norm(p)
    x, y = as_tensor(x, "x"), as_tensor(y, "y")
    if not x.is_floating_point():
        raise TightlipError(f"x must be floating point, so that it can be moved a little, got {x.dtype}")
    goal, sign = _classes("y", y, x), 1.0
    _refuse_outside(x, clamp)
    if targets is not None:
        goal, sign = _targets(as_tensor(targets, "targets"), goal, x), -1.0
    return Problem(network, x, goal, sign, _radii(eps, x), p, clamp)


def _classes(name: str, y: Tensor, x: Tensor) -> Tensor:
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise TightlipError(
            f"{name} must hold one integer for each of {len(x)} inputs, got {tuple(y.shape)} of {y.dtype}"
        )
    return y.long().to(x.device)


def _targets(targets: Tensor, y: Tensor, x: Tensor) -> Tensor:
    targets = _classes("targets", targets, x)
    same = int((targets == y).sum())
    if same:
        raise TightlipError(
            f"targets must be other classes than y, and {same} of {len(y)} are the same: choose others, or leave these "
            "inputs out"
        )
    return targets


def _refuse_outside(x: Tensor, clamp: tuple[float, float] | None) -> None:
    if clamp is not None and not (isinstance(clamp, Sequence) and len(clamp) == 2):
        raise TightlipError(f"clamp must be (lowest, highest), or None for all of space, got {clamp!r}")
    if clamp is not None and len(x) and not clamp[0] <= float(x.min()) <= float(x.max()) <= clamp[1]:
        raise TightlipError(
            f"the attack keeps inputs in clamp={clamp}, and these reach from {float(x.min()):.4g} to "
            f"{float(x.max()):.4g}: give their range as clamp, or clamp=None"
        )


def _radii(eps: float | Tensor, x: Tensor) -> Tensor:
    """A radius for each input."""
    try:
        radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError):
        radius = x.new_full((), math.nan)
    if radius.shape not in ((), x.shape[:1]) or not bool((radius >= 0).all()):
        raise TightlipError(f"eps must be a number ≥ 0, or one for each of {len(x)} inputs, got {eps!r}")
    return radius.expand(len(x))


def _logits(outputs: Any, x: Tensor) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1:
        return outputs
    if isinstance(outputs, Tensor) and outputs.dim() == x.dim() > 2:
        raise TightlipError(f"the attack needs logits (batch, classes), got shape {tuple(outputs.shape)}: {FLATTEN}")
    kind = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
    raise TightlipError(
        f"the attack needs logits (batch, classes ≥ 2), got {kind}: wrap the network so that it returns them, for one "
        "score s per input as (−s, s)"
    )
