"""The ∞-norm ball: every row has L1 norm at most 1 (paper §4.2.2), the set of Theorem 3's hidden layers."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..linalg.ball import Guess, project_l1_ball, project_l1_ball_
from .constraint import Constraint


class RowL1Ball(Constraint):
    """Matrices with ‖W‖_∞ ≤ 1. Members are left alone bit for bit; the map is the nearest point, row by row.

    Source: paper §4.2.2 (Condat's projection) and Theorem 3.
    """

    norms: tuple[float, float] = (math.inf, math.inf)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The Euclidean projection of each row onto the L1 ball."""
        return project_l1_ball(weight)

    def map_(self, weight: Float[Tensor, "out in"], last: Tensor | None = None) -> Tensor:
        """The same in place, with no copy of the weight; the thresholds of a step ago are where it begins."""
        return torch.cat(project_l1_ball_(weight, guess=None if last is None else Guess(*last.split(1, 1))), 1)

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How much the largest row norm exceeds 1."""
        return max(float(weight.abs().sum(-1).max()) - 1.0, 0.0)  # this order keeps NaN
