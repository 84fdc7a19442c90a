"""A constraint is a set of matrices with a proven operator norm.

It answers four questions: where a matrix maps into the set (`map`), how far a matrix is from it (`distance`), which
part of a gradient stays on it (`tangent`), and in which norms its members have operator norm ≤ 1 (`norms`). Three
flags tell the rarer kinds apart: those whose map moves members too, that promise nothing, or that are held in one way.
"""

import abc
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import TightlipError
from ..linalg.geometry import Geometry
from ..linalg.rounding import all_finite

Hold = Literal["step", "forward"]
"""The paper's two ways to hold a constraint (§4.2.1): pull back after each step, or map within the forward pass."""


class Constraint(abc.ABC):
    """A set of matrices whose operator norm between `norms` is at most 1.

    A new constraint is one subclass; the object holds options only, and every method but `map_` is a pure function.
    """

    norms: tuple[float, float]
    """(input, output) norms in which every member has operator norm ≤ 1."""

    holds: ClassVar[tuple[Hold, ...]] = ("step", "forward")
    """The ways to hold it that make sense."""

    projects: bool = True
    """Whether ``map`` leaves members alone. Where it does not, `freeze` keeps the weight that was trained."""

    promises: ClassVar[bool] = True
    """Whether members have operator norm ≤ 1 at all; without a promise, the audit alone says what a weight is."""

    rounding: ClassVar[float] = 64.0
    """How far members may be off: so many units of rounding, times √(rows or columns)."""

    @abc.abstractmethod
    def map(self, weight: Float[Tensor, "out in *taps"]) -> Float[Tensor, "out in *taps"]:
        """A member near ``weight``, differentiably; members map to themselves up to rounding."""

    def map_(self, weight: Float[Tensor, "out in *taps"], last: Tensor | None = None) -> Tensor | None:
        """The map in place, without a derivative; a weight that has no member near it is left as it is.

        Args:
            weight: Overwritten.
            last: What this returned for nearly the same weight, or None: a map that searches may begin there.

        Raises:
            TightlipError: if the weight, or what becomes of it, is not finite.
        """
        if not all_finite(weight):
            raise TightlipError("a step left NaN or infinity in a weight: lower the learning rate")
        member = self.map(weight)
        if not all_finite(member):
            raise TightlipError("a step left a weight too large to be pulled back: lower the learning rate")
        weight.copy_(member)
        return None

    @abc.abstractmethod
    def distance(self, weight: Float[Tensor, "out in *taps"]) -> float:
        """How far from the set a matrix is: 0 for members, up to rounding."""

    def tangent(
        self, weight: Float[Tensor, "out in *taps"], gradient: Float[Tensor, "out in *taps"]
    ) -> Float[Tensor, "out in *taps"]:
        """The part of ``gradient`` that moves a member ``weight`` along the set; all of it where the set is solid."""
        return gradient

    def sample(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Float[Tensor, "out in *taps"]:
        """A random weight to begin a training with, which `constrain` maps into the set: orthonormal as a matrix."""
        return nn.init.orthogonal_(torch.empty(*shape), generator=generator)

    def finish(self, weight: Float[Tensor, "out in *taps"]) -> Float[Tensor, "out in *taps"]:
        """What `freeze` stores of a trained weight, before its audit."""
        return self.map(weight) if self.projects else weight

    def chart(self, weight: Float[Tensor, "out in *taps"]) -> nn.Module | None:
        """For ``hold="forward"``: a module V ↦ W with a ``right_inverse``, starting at ``weight``; None means `map`."""
        return None

    def on_kernels(self, shape: Sequence[int], geometry: Geometry) -> "Constraint | None":
        """For 2→2 sets: the set of convolution weights (out, in, *taps) that takes this one's place.

        Asked for where the operator of a convolution is more than its weight as a matrix. None: there is none.
        """
        return None

    @property
    def asked(self) -> "Constraint":
        """The set that `constrain` was given, if this is what has become of it for a layer's weight."""
        return self

    def contains(self, weight: Float[Tensor, "out in *taps"]) -> bool:
        """Whether a matrix is a member, up to the rounding of its dtype (of float32 where it was cast to float64)."""
        eps = max(torch.finfo(weight.dtype).eps, torch.finfo(torch.float32).eps)
        tolerance = self.rounding * eps * max(weight.shape) ** 0.5
        return self.distance(weight) <= tolerance  # NaN is not

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({options})"
