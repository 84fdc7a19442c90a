"""Decisions between groups of classes: superclasses, and one class against the rest.

The group G of the label loses only if one logit i outside is level with *all* of G, the strongest member included. By
the pairs of `contests` that needs ‖δ‖ ≥ max_{t∈G} r_ti, so the radius is

    min_{i∉G} max_{t∈G} r_ti,

or more where `overtaking` says that logit i cannot rise above all of G by then.
"""

import abc
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import integer
from ..errors import TightlipError
from .contests import Contest, lasting, leads_of
from .decision import Steepness
from .overtaking import all_gone, down

PIECE = 2**22
"""Leads of members over others that are held at once."""


class GroupContest(Contest):
    """The largest logit lies in the group of the label."""

    @abc.abstractmethod
    def _members(self, classes: int) -> list[list[int]]:
        """The groups, of which every class is in one."""

    def _refuse(self, classes: int) -> None:
        self._members(classes)

    def _margin(self, logits: Tensor, target: Tensor) -> Tensor:
        inside = self._inside(logits)[target]
        own, rival = (logits.masked_fill(mask, -math.inf).amax(1) for mask in (~inside, inside))
        return down(own - rival)

    def _radius(self, logits: Tensor, target: Tensor, error: Tensor, steep: Steepness) -> Tensor:
        radius, inside = torch.zeros(len(logits), dtype=logits.dtype, device=logits.device), self._inside(logits)
        for group in self._members(logits.shape[1]):
            rivals = (~inside[group[0]]).nonzero()[:, 0]
            rows = inside[target, group[0]].nonzero()[:, 0]
            table = steep.each[group][:, rivals]
            for part in rows.split(max(1, PIECE // table.numel())):
                leads = leads_of(logits[part][:, group, None], logits[part][:, None, rivals], error[part, None, None])
                gone = torch.maximum(lasting(leads, table).amax(1), all_gone(leads.mT, steep.together))
                radius[part] = gone.amin(1)
        return radius

    def _inside(self, logits: Tensor) -> Tensor:
        """Whether class i is in the group of class t, (t, i)."""
        number = torch.empty(logits.shape[1], dtype=torch.int64, device=logits.device)
        for place, group in enumerate(self._members(logits.shape[1])):
            number[group] = place
        return number[:, None] == number


@dataclass(frozen=True)
class Groups(GroupContest):
    """The largest logit lies in the group of the label, such as one superclass; within it, it may be any.

    Labels and predictions are classes still; an input is correct where both are of one group.

    Args:
        groups: Lists or arrays of classes; each class is in exactly one, and there are at least two.

    >>> from tightlip import certify
    >>> x = torch.tensor([[0.5, 0.5, 0.1]])
    >>> round(float(certify(torch.nn.Identity(), x, decision=Groups([[0, 1], [2]])).radius), 3)
    0.327
    """

    groups: Any

    def __post_init__(self) -> None:
        if isinstance(self.groups, Tensor | np.ndarray):
            object.__setattr__(self, "groups", self.groups.tolist())
        if isinstance(self.groups, str) or not isinstance(self.groups, Sequence):
            raise TightlipError(f"groups must be lists of classes, such as [[0, 1], [2, 3]], got {self.groups!r:.60}")
        groups = tuple(tuple(integer("a class", i, least=0) for i in _listed(group)) for group in self.groups)
        if len(groups) < 2:
            raise TightlipError(f"{len(groups)} group{'s' * (len(groups) != 1)} leaves nothing to decide: give two")
        object.__setattr__(self, "groups", groups)

    def _members(self, classes: int) -> list[list[int]]:
        counts = Counter(i for group in self.groups for i in group)
        wrong = [i for i in range(classes) if counts[i] != 1] or [i for i in counts if i >= classes]
        if wrong:
            raise TightlipError(f"class {wrong[0]} is not in exactly one group of {classes} classes: put it into one")
        return [list(group) for group in self.groups]


@dataclass(frozen=True)
class OneVsRest(GroupContest):
    """Whether the largest logit is that of one class: a detector. Labels are classes; all others are the rest.

    An input of the rest keeps its answer as long as *any* other logit is above that of the class.

    Args:
        positive: The class.

    >>> from tightlip import certify
    >>> x = torch.tensor([[0.9, 0.8, 0.1]])  # it stops being 1 or 2 only where both have fallen below 0.1
    >>> round(float(certify(torch.nn.Identity(), x, decision=OneVsRest(2)).radius), 3)
    0.616
    """

    positive: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "positive", integer("positive", self.positive, least=0))

    def _members(self, classes: int) -> list[list[int]]:
        if self.positive >= classes:
            raise TightlipError(f"there is no class {self.positive} among {classes}: number the classes from 0")
        return [[self.positive], [i for i in range(classes) if i != self.positive]]


def _listed(group: Any) -> Sequence[int]:
    group = group.tolist() if isinstance(group, Tensor | np.ndarray) else group
    if isinstance(group, str) or not isinstance(group, Sequence) or not len(group):
        raise TightlipError(f"a group must be a list of classes, such as [0, 1], got {group!r:.60}")
    return group
