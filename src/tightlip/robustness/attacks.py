"""Projected gradient descent, the attack that puts certificates to the test: an upper bound on robust accuracy.

Each step follows the steepest ascent direction of the Carlini–Wagner margin max_{i≠t} y_i − y_t in the p-norm and
projects back onto the ball of radius ε around the input (paper §7.3; Madry et al. 2018; Carlini & Wagner 2017).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import FLATTEN, called, integer
from ..errors import TightlipError
from ..norms import as_norm
from ..tensors import as_tensor


def pgd(
    network: nn.Module,
    x: Any,
    y: Any,
    eps: float | Tensor,
    p: float = 2,
    steps: int = 200,
    restarts: int = 5,
    clamp: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """The strongest perturbed inputs found within ‖x' − x‖_p ≤ eps; an input that resists comes back as tried last.

    The first restart begins at x, later ones at random points of the ball; the step size falls from
    ε/4 (more where there are few steps) by a factor of 25.
    Inputs whose class has already changed are not attacked again.

    Args:
        network: Any classifier, (batch, classes) logits.
        x: Inputs (batch, …), floating-point numbers; a tensor, or an array of numpy.
        y: The class that the attack tries to leave, (batch,), integers in [0, classes).
        eps: Radius, one for all or one per input (batch,), in units of x.
        p: 2 or ``math.inf``.
        steps: Gradient steps per restart.
        restarts: Starting points.
        clamp: The box of valid inputs, or None for all of space.
        seed: Of the random starts.
        progress: Show a progress bar on a terminal, if it takes longer than a second; it goes when the attack is over.

    Raises:
        TightlipError: for p = 1, negative radii, inputs outside the box, labels out of range, misfit shapes, or a
            network that does not return one tensor of at least two logits per input.
    """
    p = as_norm(p)
    if p == 1:
        raise TightlipError("this attack knows the 2-norm and the inf-norm: choose p=2 or p=inf")
    steps, restarts = integer("steps", steps, least=0), integer("restarts", restarts)
    x, y = _checked(x, y, clamp)
    radius = _radii(eps, x)
    if not bool((radius > 0).any()):
        steps, restarts = 0, 1  # there is one point to try
    generator = torch.Generator().manual_seed(seed)
    best = x.clone()
    standing = torch.arange(len(x), device=x.device)
    total, shown = restarts * (steps + 1), None if progress else True
    with tqdm(total=total, desc="attack", unit="step", delay=1.0, leave=False, disable=shown) as bar:
        for restart in range(restarts):
            if len(standing) == 0:
                break
            start = torch.zeros_like(x[standing])
            if restart:
                noise = torch.randn(start.shape, generator=generator, dtype=x.dtype).to(x.device)
                start = _step(noise, p) * _column(radius[standing] * torch.rand(1, generator=generator).item(), x)
            found, flipped = _descend(network, x[standing], y[standing], radius[standing], start, p, steps, clamp, bar)
            best[standing] = found
            standing = standing[~flipped]
    return best


def _checked(x: Any, y: Any, clamp: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Inputs and labels as tensors that fit each other and the box."""
    x, y = as_tensor(x, "x"), as_tensor(y, "y")
    if not x.is_floating_point():
        raise TightlipError(f"x must be floating point, so that it can be moved a little, got {x.dtype}")
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise TightlipError(f"y must hold one integer for each of {len(x)} inputs, got {tuple(y.shape)} of {y.dtype}")
    if clamp is not None and not (isinstance(clamp, Sequence) and len(clamp) == 2):
        raise TightlipError(f"clamp must be (lowest, highest), or None for all of space, got {clamp!r}")
    if clamp is not None and len(x) and not clamp[0] <= float(x.min()) <= float(x.max()) <= clamp[1]:
        raise TightlipError(
            f"the attack keeps inputs in clamp={clamp}, and these reach from {float(x.min()):.4g} to "
            f"{float(x.max()):.4g}: give their range as clamp, or clamp=None"
        )
    return x, y.long().to(x.device)


def _radii(eps: float | Tensor, x: Tensor) -> Tensor:
    """A radius for each input."""
    try:
        radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError):
        radius = x.new_full((), math.nan)
    if radius.shape not in ((), x.shape[:1]) or not bool((radius >= 0).all()):
        raise TightlipError(f"eps must be a number ≥ 0, or one for each of {len(x)} inputs, got {eps!r}")
    return radius.expand(len(x))


def _descend(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: Tensor,
    delta: Tensor,
    p: float,
    steps: int,
    clamp: tuple[float, float] | None,
    bar: "tqdm[Any]",
) -> tuple[Tensor, Tensor]:
    """One restart: the point of largest CW loss on the way, and whether its class has changed."""
    best, best_loss = x.clone(), torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
    for step in range(steps + 1):
        point = (x + _project(delta, radius, p)).detach()
        if clamp is not None:
            point = point.clamp(*clamp)
        point.requires_grad_(True)
        with torch.enable_grad():
            loss = cw_loss(_logits(called(network, point), point), y)
            (gradient,) = torch.autograd.grad(loss.sum(), point)
        better = loss.detach() > best_loss
        best[better], best_loss[better] = point.detach()[better], loss.detach()[better]
        size = max(0.25, 27.0 / max(1, steps)) * 0.04 ** (step / max(1, steps))  # steps add up to 2 radii at least
        delta = point.detach() - x + _column(size * radius, x) * _step(gradient, p)
        bar.update()
    return best, best_loss > 0


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


def cw_loss(logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """max_{i≠t} y_i − y_t: positive where the class has changed. Source: Carlini & Wagner 2017, as in paper §7.3."""
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < logits.shape[1]):
        raise TightlipError(f"labels must be from 0 to {logits.shape[1] - 1}, got {int(y.min())} to {int(y.max())}")
    true = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    return logits.scatter(1, y.unsqueeze(1), -math.inf).amax(1) - true


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _step(gradient: Tensor, p: float) -> Tensor:
    """The unit vector of the p-norm along which a linear function rises fastest."""
    if p == math.inf:
        return gradient.sign()
    size = gradient.flatten(1).norm(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
    return gradient / _column(size, gradient)


def _project(delta: Tensor, radius: Tensor, p: float) -> Tensor:
    if p == math.inf:
        bound = _column(radius, delta)
        return delta.clamp(-bound, bound)
    size = delta.flatten(1).norm(dim=1)
    return delta * _column((radius / size.clamp(min=torch.finfo(delta.dtype).tiny)).clamp(max=1.0), delta)
