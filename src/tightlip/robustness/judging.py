"""One batch judged: logits, margins and radii, each rounded to its safe side."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import FLATTEN
from ..errors import TightlipError
from ..linalg.rounding import widened
from .contests import own_leads
from .decision import Decision, Steepness
from .deployed import Deployed
from .evaluation import evaluate
from .examination import Examined

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Radius, margin, prediction, correctness and target (the label, or else the prediction) of some inputs."""

Evaluated = tuple[Tensor, Tensor, Tensor]
"""Which inputs and logits are finite, the logits (batch, classes), and how far each row of them may be off."""


def judge(
    known: Examined,
    decision: Decision,
    steepness: Callable[[int], Steepness],
    machine: Deployed | None,
    x: Tensor,
    y: Tensor | None,
) -> Columns:
    """The columns of a certificate for inputs ``x`` (batch, …), of which ``y`` are the labels, or None.

    Args:
        known: The network.
        decision: How its logits are read.
        steepness: How fast so many logits can change (`Decision.steepness`).
        machine: What a machine makes of the network, where the largest logit decides; None for exact arithmetic.
        x: Inputs.
        y: Their labels.

    Raises:
        TightlipError: if outputs are not (batch, classes), or labels are out of range.
    """
    return verdict(evaluated(known, x), decision, steepness, machine, x, y)


def verdict(
    said: Evaluated,
    decision: Decision,
    steepness: Callable[[int], Steepness],
    machine: Deployed | None,
    x: Tensor,
    y: Tensor | None,
) -> Columns:
    """As `judge`, of what the network says of ``x``: one evaluation for many questions."""
    finite, logits, error = said
    steep = steepness(logits.shape[1]).to(logits.device)
    found = decision.judged(logits, error, y, steep)
    if machine is not None:
        lead = own_leads(logits, error, found.target)
        margin, radius = machine.judge(widened(x).to(logits.device), found.target, lead, steep.each[found.target])
        found = found._replace(margin=margin.minimum(found.margin), radius=radius.minimum(found.radius))
    finite = finite if found.margin.dim() == 1 else finite.unsqueeze(1)
    correct = finite & torch.isfinite(found.margin) & (found.margin > 0)
    radius = torch.where(correct, found.radius, 0.0)
    return radius.cpu(), found.margin.cpu(), found.prediction.cpu(), correct.cpu(), found.target.cpu()


def evaluated(known: Examined, x: Tensor) -> Evaluated:
    """What the network says of some inputs.

    Raises:
        TightlipError: if outputs are not (batch, classes).
    """
    inputs = widened(x).to(known.device or x.device)
    finite = torch.isfinite(inputs.flatten(1)).all(1)
    logits, error = evaluate(known.wide, inputs)
    if logits.dim() != 2 or not logits.shape[1]:
        advice = f"; of inputs with several axes make rows: {FLATTEN}" if logits.dim() == x.dim() > 2 else ""
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes){advice}")
    return finite & torch.isfinite(logits).all(1), logits, error
