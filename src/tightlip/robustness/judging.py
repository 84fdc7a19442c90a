"""One batch judged: logits, margins and radii, each rounded to its safe side."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import FLATTEN
from ..errors import TightlipError
from ..linalg.rounding import widened
from .evaluation import Wide, evaluate

Machines = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None
"""What a machine makes of some inputs, their targets, leads and sensitivities: margins and radii."""

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Radius, margin, prediction, correctness and target (the label, or else the prediction) of some inputs."""


def judge(
    network: Wide,
    pairs: Callable[[int], Tensor],
    deployed: Machines,
    device: torch.device | None,
    x: Tensor,
    y: Tensor | None,
) -> Columns:
    """The columns of a certificate for inputs ``x`` (batch, …), of which ``y`` are the classes, or None.

    Args:
        network: In float64, as `evaluation.wide` makes it.
        pairs: How fast the difference of each pair of so many logits can change (`pairs.pair_sensitivity`).
        deployed: (inputs, targets, leads, sensitivities) → margins and radii of a machine (`deployed.Deployed.judge`);
            None for exact arithmetic.
        device: Where the network lies; None if anywhere.
        x: Inputs.
        y: Their classes.

    Raises:
        TightlipError: if outputs are not (batch, classes), or labels are out of range.
    """
    inputs = widened(x).to(device or x.device)
    finite = torch.isfinite(inputs.flatten(1)).all(1)
    logits, error = evaluate(network, inputs if deployed is None else inputs.clone())
    if logits.dim() != 2 or not logits.shape[1]:
        advice = f"; of inputs with several axes make rows: {FLATTEN}" if logits.dim() == x.dim() > 2 else ""
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes){advice}")
    sensitivity = pairs(logits.shape[1]).to(logits.device)
    if logits.shape[1] == 1:
        y = None if y is None else _two_classes(y)
        logits = torch.cat((-logits, logits), 1) / 2  # their difference is the logit, and so is what is known of it
    prediction = logits.argmax(1)
    target = prediction if y is None else _checked(y.to(logits.device), logits)
    lead, rates = _lead(logits, target, 1.5 * error), sensitivity[target]
    margin, radius = lead.amin(1), _radius(lead, rates)
    if deployed is not None:
        margin, radius = map(torch.minimum, deployed(inputs, target, lead, rates), (margin, radius))
    finite = finite & torch.isfinite(logits).all(1)
    sound = finite & torch.isfinite(margin) & (margin > 0)
    correct = (prediction == target) & sound
    radius = torch.where(correct, radius, 0.0)
    return radius.cpu(), margin.cpu(), prediction.cpu(), correct.cpu(), target.cpu()


def _two_classes(y: Tensor) -> Tensor:
    """Labels 0 and 1, or −1 and 1, as 0 and 1."""
    negative = y == -1
    if not bool(((y == 1) | (y == 0)).all() | ((y == 1) | negative).all()):
        raise TightlipError("a network with one output tells two classes apart: give the labels 0 and 1, or -1 and 1")
    return y.masked_fill(negative, 0)


def _checked(y: Tensor, logits: Tensor) -> Tensor:
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < logits.shape[1]):
        classes = f"{logits.shape[1]} classes from 0"
        raise TightlipError(f"labels reach from {int(y.min())} to {int(y.max())}: number the {classes}")
    return y


def _lead(logits: Tensor, target: Tensor, error: Tensor) -> Tensor:
    """y_t − y_i − error, rounded down; ∞ for i = t."""
    lead = down(down(logits.gather(1, target.unsqueeze(1)) - logits) - error.unsqueeze(1))
    return lead.scatter(1, target.unsqueeze(1), math.inf)


def _radius(lead: Tensor, sensitivity: Tensor) -> Tensor:
    """min_i (y_t − y_i − error) / S_ti, rounded down; infinite where no logit can catch up."""
    return torch.where(sensitivity == 0, math.inf, down(lead / sensitivity)).amin(1).clamp(min=0.0)


def down(value: Tensor) -> Tensor:
    """The next float64 below, which covers the rounding of one operation."""
    return torch.nextafter(value, torch.full_like(value, -math.inf))
