"""Parseval networks: after each step, one gradient step of β/4·‖WᵀW − I‖_F² pulls W *towards* the orthonormal matrices.

    W ← (1 + β) W − β W WᵀW,

which at β = ½ is one step of Björck's iteration of order 1. Nothing says that it arrives: singular values stay near 1
only while steps are small, and beyond σ = √(1 + 2/β) they grow. So this constraint promises no norm; the audit reports
what it finds. Source: Cisse et al. 2017, Eq. 9; paper §4.2.1 and Appendix B.1.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import number
from ..errors import TightlipError
from ..linalg.polar import residual
from ..linalg.rounding import all_finite
from .constraint import Constraint, Hold


class Parseval(Constraint):
    """No set, but a pull towards the orthonormal matrices after each step; for comparison. Held by "step" only.

    Args:
        beta: Strength of the pull, in (0, 1]; ½ is Björck's order 1, Cisse et al. used much less.

    Raises:
        TightlipError: for any other β.

    >>> Parseval(0.5).map(torch.tensor([[0.5]]))
    tensor([[0.6875]])
    """

    norms: tuple[float, float] = (2.0, 2.0)
    holds: ClassVar[tuple[Hold, ...]] = ("step",)
    projects = False
    promises: ClassVar[bool] = False

    def __init__(self, beta: float = 0.5) -> None:
        self.beta = number("beta", beta, above=0, most=1)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """(1 + β) W − β W WᵀW."""
        error = residual(weight)
        moved = weight + self.beta * (weight @ error if weight.shape[0] >= weight.shape[1] else error @ weight)
        if not all_finite(moved):
            raise TightlipError("a weight is NaN or infinite, or the iteration diverged: lower the learning rate")
        return moved

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """0 for every finite matrix: nothing is promised that could be missed."""
        return 0.0 if torch.isfinite(weight).all() else math.inf
