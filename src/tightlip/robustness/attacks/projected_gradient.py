"""Projected gradient descent: steps of steepest ascent, each drawn back onto the ball of radius ε around the input.

Each step climbs the Carlini–Wagner margin max_{i≠t} y_i − y_t, or cross-entropy.
Source: paper §7.3; Madry et al. 2018; Carlini & Wagner 2017.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...arguments import flag, integer
from ...choices import chosen
from .margins import LOSSES
from .problem import Problem, posed


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
    loss: str = "cw",
    targets: Any = None,
    early_stop: bool = False,
) -> Tensor:
    """The strongest perturbed inputs found within ‖x' − x‖_p ≤ eps; an input that resists comes back as tried last.

    The network is attacked in the mode that it is in: call ``network.eval()`` before, or batch norms move with it.

    The first restart begins at x, later ones at random points of the ball; the step size falls from
    ε/4 (more where there are few steps) by a factor of 25. Of the points on the way the one of largest margin is kept,
    whatever is climbed. Inputs whose class has already changed are not attacked again.

    Args:
        network: Any classifier, (batch, classes) logits.
        x: Inputs (batch, …), floating-point numbers; a tensor, or an array of numpy.
        y: The class that the attack tries to leave, (batch,), integers in [0, classes).
        eps: Radius, one for all or one per input (batch,), in units of x.
        p: 1, 2 or ``math.inf``. In the 1-norm each step moves the 0.2 % of the coordinates that gain most.
        steps: Gradient steps per restart.
        restarts: Starting points.
        clamp: The box of valid inputs, or None for all of space.
        seed: Of the random starts.
        progress: Show a progress bar on a terminal, if it takes longer than a second; it goes when the attack is over.
        loss: What is climbed: "cw", the margin, or "ce", cross-entropy; its slope is lost where a network is very sure.
        targets: Classes to be reached, (batch,), each another than in y; then only these count as success.
        early_stop: Leave an input at the first point of success, not at the worst on the way: faster, and nearer.

    Returns:
        Points of the shape of x.

    Raises:
        TightlipError: for negative radii, inputs outside the box, labels out of range, misfit shapes, an unknown loss,
            or a network that does not return one tensor of at least two logits per input.
    """
    problem = posed(network, x, y, eps, p, clamp, targets)
    steps, restarts = integer("steps", steps, least=0), integer("restarts", restarts)
    climbed, early_stop = chosen("loss", loss, LOSSES), flag("early_stop", early_stop)
    if not bool((problem.radius > 0).any()):
        steps, restarts = 0, 1  # there is one point to try
    generator = torch.Generator().manual_seed(seed)
    best = problem.x.clone()
    standing = torch.arange(len(best), device=best.device)
    total, shown = restarts * (steps + 1), None if progress else True
    with tqdm(total=total, desc="attack", unit="step", delay=1.0, leave=False, disable=shown) as bar:
        for restart in range(restarts):
            if len(standing) == 0:
                break
            part = problem.among(standing)
            start = part.start(generator) if restart else torch.zeros_like(part.x)
            best[standing], flipped = _climb(part, start, steps, climbed, early_stop, bar)
            standing = standing[~flipped]
    return best


def _climb(
    problem: Problem,
    delta: Tensor,
    steps: int,
    climbed: Callable[[Tensor, Tensor], Tensor],
    early_stop: bool,
    bar: "tqdm[Any]",
) -> tuple[Tensor, Tensor]:
    """One restart: the point of largest margin on the way, and whether it is a success."""
    best, best_margin = problem.x.clone(), torch.full_like(problem.radius, -math.inf)
    going, part = torch.arange(len(best), device=best.device), problem
    for step in range(steps + 1):
        point = part.moved(delta)
        margin, gradient = part.evaluated(point, climbed)
        better = margin > best_margin[going]
        best[going[better]], best_margin[going[better]] = point[better], margin[better]
        size = max(0.25, 27.0 / max(1, steps)) * 0.04 ** (step / max(1, steps))  # steps add up to 2 radii at least
        delta = point - part.x + part.step(gradient, point, size)
        bar.update()
        if early_stop and bool((margin > 0).any()):
            stay = ~(margin > 0)
            going, delta, part = going[stay], delta[stay], part.among(stay)
            if len(going) == 0:
                break
    return best, best_margin > 0
