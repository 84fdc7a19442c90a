"""The fast gradient sign attack: one step of a whole radius along which cross-entropy rises fastest.

    x' = x + eps·sign(∇_x ce(f(x), y))   for p = ∞,

and the like in other norms. Source: Goodfellow, Shlens & Szegedy 2015.
"""

import math
from typing import Any

from torch import Tensor, nn

from .margins import cross_entropy
from .problem import posed


def fgs(
    network: nn.Module,
    x: Any,
    y: Any,
    eps: float | Tensor,
    p: float = math.inf,
    clamp: tuple[float, float] | None = (0.0, 1.0),
    targets: Any = None,
) -> Tensor:
    """Each input after one step of radius eps in the p-norm along which its cross-entropy rises fastest.

    A weak attack: it asks the network once, and what resists it may fall to `pgd`. For p = 1 the steepest coordinate
    moves as far as the box lets it, then the next one. Where the network is so sure that the gradient is lost in
    rounding, the input comes back as it was.

    Args:
        network: Any classifier, (batch, classes) logits.
        x: Inputs (batch, …), floating-point numbers; a tensor, or an array of numpy.
        y: The class that the attack tries to leave, (batch,), integers in [0, classes).
        eps: Radius, one for all or one per input (batch,), in units of x.
        p: 1, 2 or ``math.inf``.
        clamp: The box of valid inputs, or None for all of space.
        targets: Classes to be reached, (batch,), each another than in y: then the cross-entropy of the target falls.

    Returns:
        Points of the shape of x.

    Raises:
        TightlipError: for negative radii, inputs outside the box, labels out of range, misfit shapes, or a network
            that does not return one tensor of at least two logits per input.
    """
    problem = posed(network, x, y, eps, p, clamp, targets)
    _, gradient = problem.evaluated(problem.x, cross_entropy)
    return problem.moved(problem.leap(gradient))
