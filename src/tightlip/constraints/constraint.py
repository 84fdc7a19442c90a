"""A constraint is a set of matrices with a proven operator norm.

It answers four questions: where a matrix maps into the set (`map`), how far a matrix is from it (`distance`), which
part of a gradient stays on it (`tangent`), and in which norms its members have operator norm ≤ 1 (`norms`).
"""

import abc

import torch
from jaxtyping import Float
from torch import Tensor


class Constraint(abc.ABC):
    """A set of matrices whose operator norm between `norms` is at most 1.

    A new constraint is one subclass; every method is a pure function of tensors, so the object holds options only.
    """

    norms: tuple[float, float]
    """(input, output) norms in which every member has operator norm ≤ 1."""

    @abc.abstractmethod
    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """A member near ``weight``, differentiably; members map to themselves up to rounding."""

    @abc.abstractmethod
    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How far from the set a matrix is: 0 for members, up to rounding."""

    def tangent(self, weight: Float[Tensor, "out in"], gradient: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The part of ``gradient`` that moves a member ``weight`` along the set; all of it where the set is solid."""
        return gradient

    def contains(self, weight: Float[Tensor, "out in"]) -> bool:
        """Whether a matrix is a member, up to the rounding of its dtype (of float32 where it was cast to float64)."""
        eps = max(torch.finfo(weight.dtype).eps, torch.finfo(torch.float32).eps)
        tolerance = 64.0 * eps * max(weight.shape) ** 0.5
        return self.distance(weight) <= tolerance  # NaN is not

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({options})"
