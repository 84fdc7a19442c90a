"""One batch judged: logits, margins and radii, each rounded to its safe side."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import FLATTEN
from ..errors import TightlipError
from ..linalg.rounding import widened
from .evaluation import Wide, evaluate

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Radius, margin, prediction, correctness and target (the label, or else the prediction) of some inputs."""


class Answers(NamedTuple):
    """What a network says of some inputs (batch, …), before anything is known of how fast that can change.

    ``logits`` are those of ``classes``, two for a single one, and ``error`` is what a difference of two may be off by.
    ``target`` is the label, or else the prediction; ``correct`` says where both are one beyond rounding.
    """

    classes: int
    logits: Tensor
    error: Tensor
    prediction: Tensor
    target: Tensor
    margin: Tensor
    correct: Tensor

    def radius(self, sensitivity: Tensor) -> Tensor:
        """How far each input may move, if |Δ(y_t − y_i)| ≤ ``sensitivity``[t, i] per unit; 0 where it is wrong."""
        found = _radius(self.logits, self.target, self.error, sensitivity.to(self.logits.device))
        return torch.where(self.correct, found, 0.0)


def judge(
    network: Wide, pairs: Callable[[int], Tensor], device: torch.device | None, x: Tensor, y: Tensor | None
) -> Columns:
    """The columns of a certificate for inputs ``x`` (batch, …), of which ``y`` are the classes, or None.

    Args:
        network: In float64, as `evaluation.wide` makes it.
        pairs: How fast the difference of each pair of so many logits can change (`pairs.pair_sensitivity`).
        device: Where the network lies; None if anywhere.
        x: Inputs.
        y: Their classes.

    Raises:
        TightlipError: as `answers`.
    """
    said = answers(network, device, x, y)
    radius = said.radius(pairs(said.classes))
    return radius.cpu(), said.margin.cpu(), said.prediction.cpu(), said.correct.cpu(), said.target.cpu()


def answers(network: Wide, device: torch.device | None, x: Tensor, y: Tensor | None) -> Answers:
    """What the network says of inputs ``x`` (batch, …), as for `judge`.

    Raises:
        TightlipError: if outputs are not (batch, classes), or labels are out of range.
    """
    inputs = widened(x).to(device or x.device)
    finite = torch.isfinite(inputs.flatten(1)).all(1)
    logits, error = evaluate(network, inputs)
    if logits.dim() != 2 or not logits.shape[1]:
        advice = f"; of inputs with several axes make rows: {FLATTEN}" if logits.dim() == x.dim() > 2 else ""
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes){advice}")
    classes = logits.shape[1]
    if classes == 1:
        y = None if y is None else _two_classes(y)
        logits = torch.cat((-logits, logits), 1) / 2  # their difference is the logit, and so is what is known of it
    prediction = logits.argmax(1)
    target = prediction if y is None else _checked(y.to(logits.device), logits)
    error = 1.5 * error
    margin = _margin(logits, target) - error
    finite = finite & torch.isfinite(logits).all(1)
    sound = finite & torch.isfinite(margin) & (margin > 0)
    return Answers(classes, logits, error, prediction, target, margin, (prediction == target) & sound)


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


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    """y_t − max_{i≠t} y_i, rounded down."""
    others = logits.scatter(1, target.unsqueeze(1), -math.inf).amax(1)
    return _down(logits.gather(1, target.unsqueeze(1)).squeeze(1) - others)


def _radius(logits: Tensor, target: Tensor, error: Tensor, pairs: Tensor) -> Tensor:
    """min_i (y_t − y_i − error) / S[t, i], rounded down at each step; infinite where no logit can catch up."""
    lead = logits.gather(1, target.unsqueeze(1)) - logits
    lead = _down(_down(lead) - error.unsqueeze(1))
    radius = _down(lead / pairs[target])
    radius = torch.where(pairs[target] == 0, math.inf, radius)
    return radius.scatter(1, target.unsqueeze(1), math.inf).amin(1).clamp(min=0.0)


def _down(value: Tensor) -> Tensor:
    """The next float64 below, which covers the rounding of one operation."""
    return torch.nextafter(value, torch.full_like(value, -math.inf))
