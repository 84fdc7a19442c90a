"""What a decision is: how logits are read, and what can be proven of that; `contests`, `groups`, `labels` have them."""

import abc
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..audit import Audit


class Steepness(NamedTuple):
    """How fast logits can change per unit of the input's norm: (t, i) pairs or single ones, and all in the 2-norm."""

    each: Tensor
    together: float = math.inf

    def to(self, device: torch.device) -> "Steepness":
        """The same where the logits are."""
        return self._replace(each=self.each.to(device))


class Judged(NamedTuple):
    """What is decided of some inputs: a radius, a margin from below, the prediction, and what was to be decided.

    One number for each input, or (batch, labels) where each label is decided for itself.
    """

    radius: Tensor
    margin: Tensor
    prediction: Tensor
    target: Tensor


class Decision(abc.ABC):
    """What a network's logits (batch, classes) are read as; `certify` certifies that it stays the same.

    Decisions are values: they hold options, and nothing of a network.
    """

    several = False
    """Whether an input has several labels, (batch, labels), or one, (batch,)."""

    @abc.abstractmethod
    def steepness(self, audited: Audit, p: float, overall: float, classes: int) -> Steepness:
        """How fast what it compares can change, for so many logits; ``overall`` is `Bound.sensitivity`.

        Raises:
            TightlipError: if so many logits do not fit the decision.
        """

    @abc.abstractmethod
    def judged(self, logits: Tensor, error: Tensor, y: Tensor | None, steep: Steepness) -> Judged:
        """The verdict on some logits, each row of which is off by less than its ``error`` in the 2-norm.

        Args:
            logits: (batch, classes), in float64.
            error: (batch,).
            y: The labels, or None for what is predicted.
            steep: What `steepness` said.

        Raises:
            TightlipError: if labels are out of range.
        """
