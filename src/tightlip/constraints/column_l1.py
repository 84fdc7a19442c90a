"""The 1-norm ball: every column has L1 norm at most 1."""

from jaxtyping import Float
from torch import Tensor

from ..linalg.ball import project_l1_ball
from .constraint import Constraint


class ColumnL1Ball(Constraint):
    """Matrices with ‖W‖₁ ≤ 1 (1→1): the transposes of `RowL1Ball`'s. Members are left alone bit for bit.

    Source: paper §2.2 for the norm; the projection is §4.2.2's, column by column.
    """

    norms: tuple[float, float] = (1.0, 1.0)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The Euclidean projection of each column onto the L1 ball."""
        return project_l1_ball(weight.mT).mT

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How much the largest column norm exceeds 1."""
        return max(float(weight.abs().sum(-2).max()) - 1.0, 0.0)  # this order keeps NaN
