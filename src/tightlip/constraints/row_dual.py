"""The p→∞ ball, Theorem 3's first layer: every row has dual norm ‖w‖_{p*} at most 1."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..linalg.ball import project_l1_ball
from ..norms import as_exponent, dual, norm_name
from .constraint import Constraint


class RowDualBall(Constraint):
    """Matrices with ‖W‖_{p→∞} ≤ 1 for any p ≥ 1: rows of dual norm ‖w‖_q ≤ 1, 1/p + 1/q = 1.

    For p = 1, 2, ∞: entries in [-1, 1], rows of 2-norm ≤ 1, rows of L1 norm ≤ 1; there ``map`` is the Euclidean
    projection. For any other p it divides a row outside by its dual norm, which leaves members alone, and is not the
    nearest point. With `RowL1Ball` on the layers after it, this is the class of Theorem 3, universal for the p-norm
    (paper §6). `lipschitz` takes any p; `certify` and `pgd` take 1, 2 and ∞ only.

    Raises:
        TightlipError: for p below 1, or what is no number.

    >>> RowDualBall(2).map(torch.tensor([[3.0, 4.0], [0.1, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.1000, 0.0000]])
    """

    norms: tuple[float, float]

    def __init__(self, p: float = 2) -> None:
        self.norms = (as_exponent(p), math.inf)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """Each row inside its ball: projected for p = 1, 2 and ∞, else divided by its dual norm."""
        order = dual(self.norms[0])
        if order == math.inf:
            return weight.clamp(-1.0, 1.0)
        if order == 1:
            return project_l1_ball(weight)
        scale = weight.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)  # powers of large entries would overflow
        scaled = weight / scale
        return scaled / torch.linalg.vector_norm(scaled, order, dim=-1, keepdim=True).clamp(min=1.0 / scale)

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How much the largest dual norm of a row exceeds 1."""
        scale = weight.abs().amax(-1).clamp(min=1.0)
        norms = scale * torch.linalg.vector_norm(weight / scale[..., None], dual(self.norms[0]), dim=-1)
        return max(float(norms.max()) - 1.0, 0.0)  # this order keeps NaN

    def __repr__(self) -> str:
        return f"RowDualBall(p={norm_name(self.norms[0])})"
