"""Decisions between classes, of which one is the input's: how far the input may move before it is no longer on top.

With S[t, i] the sensitivity of a pair (`pairs`), logit i catches up with logit t only where

    ‖δ‖ ≥ r_ti = (y_t − y_i) / S[t, i],            0 where it is level or above already.

**Top k.** Label t leaves the k largest logits only if k others are level with it or above. Within the k-th smallest of
its r_ti fewer than k are, so that is a radius. k = 1 is the largest logit. For k > 1 several leads must all be gone,
and where the 2-norm of the logits is bounded `overtaking` knows more than the k-th r_ti; the larger of the two holds.
Sources: the pairwise argument is Tsuzuku et al. 2018; another relaxation of the top class, to sets of predictions that
stay as they are, is Leino & Fredrikson 2021, "Relaxing Local Robustness".
"""

import abc
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..arguments import integer
from ..audit import Audit
from ..errors import TightlipError
from ..linalg.rounding import UNDERFLOW, round_up
from ..norms import as_norm
from .decision import Decision, Judged, Steepness
from .overtaking import all_gone, down
from .pairs import pair_sensitivity


class Contest(Decision):
    """Decisions between classes, one of which is the input's. One logit z is the pair (−z/2, z/2)."""

    @abc.abstractmethod
    def _refuse(self, classes: int) -> None:
        """Raise unless there is something to decide between so many classes."""

    @abc.abstractmethod
    def _margin(self, logits: Tensor, target: Tensor) -> Tensor:
        """By how much the decision is right, rounded down."""

    @abc.abstractmethod
    def _radius(self, logits: Tensor, target: Tensor, error: Tensor, steep: Steepness) -> Tensor:
        """How far the input may move, rounded down; differences of logits are off by less than ``error``."""

    def steepness(self, audited: Audit, p: float, overall: float, classes: int) -> Steepness:
        """Of every pair, and of all logits together in the 2-norm where that is proven."""
        self._refuse(max(classes, 2))
        known = audited.total.table.get((as_norm(p), 2.0))
        together = math.inf if known is None or classes == 1 else round_up(Fraction(known))
        return Steepness(pair_sensitivity(audited, p, overall, classes), max(together, UNDERFLOW) if together else 0.0)

    def judged(self, logits: Tensor, error: Tensor, y: Tensor | None, steep: Steepness) -> Judged:
        """The verdict; a difference of two logits is off by √2 times the error at most."""
        if logits.shape[1] == 1:
            y = None if y is None else _two_classes(y)
        logits = as_contest(logits)
        prediction = logits.argmax(1)
        target = prediction if y is None else _checked(y.to(logits.device), logits)
        margin = self._margin(logits, target) - 1.5 * error
        return Judged(self._radius(logits, target, 1.5 * error, steep), margin, prediction, target)


@dataclass(frozen=True)
class TopK(Contest):
    """The label is among the k largest logits; without labels, the predicted class stays among them.

    Where two of them are level at the border, neither counts as among them.

    Args:
        k: From 1, which is the usual decision, to one below the number of classes.

    >>> from tightlip import certify
    >>> x = torch.tensor([[0.9, 0.5, 0.1]])
    >>> [round(float(certify(torch.nn.Identity(), x, torch.tensor([1]), decision=TopK(k)).radius), 3) for k in (1, 2)]
    [0.0, 0.283]
    """

    k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", integer("k", self.k))

    def _refuse(self, classes: int) -> None:
        if self.k >= classes:
            raise TightlipError(f"the label is always among the {self.k} largest of {classes} logits: give a smaller k")

    def _margin(self, logits: Tensor, target: Tensor) -> Tensor:
        others = logits.scatter(1, target.unsqueeze(1), -math.inf)
        rival = others.amax(1) if self.k == 1 else others.topk(self.k, 1).values[:, -1]
        return down(logits.gather(1, target.unsqueeze(1)).squeeze(1) - rival)

    def _radius(self, logits: Tensor, target: Tensor, error: Tensor, steep: Steepness) -> Tensor:
        own = logits.gather(1, target.unsqueeze(1))
        leads = leads_of(own, logits, error.unsqueeze(1))
        radii = lasting(leads, steep.each[target]).scatter(1, target.unsqueeze(1), math.inf)
        if self.k == 1:
            return radii.amin(1)
        nearest = leads.scatter(1, target.unsqueeze(1), math.inf).topk(self.k, 1, largest=False).values
        return torch.maximum(radii.kthvalue(self.k, 1).values, all_gone(nearest, steep.together))


LARGEST = TopK()
"""The usual decision: the largest logit."""


def as_contest(logits: Tensor) -> Tensor:
    """One logit z as the pair (−z/2, z/2): their difference is the logit, and so is what is known of it."""
    return torch.cat((-logits, logits), 1) / 2 if logits.shape[1] == 1 else logits


def leads_of(own: Tensor, others: Tensor, error: Tensor) -> Tensor:
    """y_t − y_i − error, rounded down at each step."""
    return down(down(own - others) - error)


def own_leads(logits: Tensor, error: Tensor, target: Tensor) -> Tensor:
    """Those of each input's class over the others, (batch, classes); ∞ over itself."""
    logits = as_contest(logits)
    leads = leads_of(logits.gather(1, target.unsqueeze(1)), logits, 1.5 * error.unsqueeze(1))
    return leads.scatter(1, target.unsqueeze(1), math.inf)


def lasting(leads: Tensor, table: Tensor) -> Tensor:
    """How far each lead lasts, rounded down; for ever where nothing can change."""
    radius = torch.where(table == 0, torch.where(leads > 0, math.inf, 0.0), down(leads / table))
    return radius.clamp(min=0.0)


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
