"""Orthonormal matrices: all singular values 1 (paper §4.2.1), the set on which gradients keep their norm.

Tall matrices (out > in) have orthonormal columns, wide ones orthonormal rows, square ones both. The map is the polar
factor, the nearest member; the tangent space at W is {Z : WᵀZ + ZᵀW = 0}.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..linalg.polar import polar, residual, tangent
from .constraint import Constraint


class Orthonormal(Constraint):
    """Matrices with ‖W‖₂ = 1 and every singular value 1: 2→2 norm exactly 1, gradients preserved where out ≤ in.

    Source: paper §4.2.1, Eq. 2 and Theorem 2.
    """

    norms: tuple[float, float] = (2.0, 2.0)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The polar factor."""
        return polar(weight)

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """‖WᵀW − I‖_F on the small side, a bound on every |σ² − 1|."""
        return float(torch.linalg.matrix_norm(residual(weight)))

    def tangent(self, weight: Float[Tensor, "out in"], gradient: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """G − W sym(WᵀG)."""
        return tangent(weight, gradient)
