"""Convolution kernels with more taps than their stride, all of whose singular values are 1: products of factors.

The map finds the factors of a kernel and composes them (`linalg.peeling`, `linalg.blocks`): it leaves products as they
are, and takes any other kernel to a product near it. Not every orthonormal kernel in two dimensions is a product.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..linalg.blocks import compose, sample
from ..linalg.kernel_shape import KernelShape
from ..linalg.paraunitary import deviation
from ..linalg.peeling import factor
from .carrier import by
from .constraint import Constraint, Hold

TRIALS, ITSELF = 8, 1e-3
"""How often factors are found again, and by how much entries may move of a product that is itself."""


class OrthonormalKernels(Constraint):
    """Weights (out, in, *taps) of convolutions with norm 1, for images of any size; what `Orthonormal` is on kernels.

    With circular padding and stride 1 all singular values are 1. Zero padding cuts the edges off: there they are ≤ 1.

    Args:
        asked: The set of matrices whose place it takes.
        shape: Of the kernel of one group.
        groups: Of the convolution.

    Raises:
        TightlipError: for a shape whose factors cannot be found again from a kernel.
    """

    norms: tuple[float, float] = (2.0, 2.0)
    holds: ClassVar[tuple[Hold, ...]] = ("step",)

    def __init__(self, asked: Constraint, shape: KernelShape, groups: int = 1) -> None:
        shape.refuse_unfactorable()
        self._asked, self.shape, self.groups = asked, shape, groups

    @property
    def asked(self) -> Constraint:
        """The set of matrices whose place it takes."""
        return self._asked

    def map(self, weight: Float[Tensor, "out in *taps"]) -> Float[Tensor, "out in *taps"]:
        """The product of the factors that are found, again until it is found to be itself; without a derivative.

        Of a product with few channels another may be found: one that comes back is as good, and stays what it is.
        """
        kernels = self._kernels(weight)
        for _ in range(TRIALS):
            product = compose(factor(kernels, self.shape))
            moved, kernels = float((product - kernels).abs().amax()), product
            if moved <= ITSELF:
                break
        return kernels.reshape(weight.shape)

    def distance(self, weight: Float[Tensor, "out in *taps"]) -> float:
        """A bound on every |σ² − 1|, the largest over the groups."""
        return deviation(self._kernels(weight), self.shape)

    def map_(self, weight: Float[Tensor, "out in *taps"], last: Tensor | None = None) -> None:
        """The same in place."""
        weight.copy_(self.map(weight))

    def sample(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Float[Tensor, "out in *taps"]:
        """The product of factors drawn uniformly."""
        return compose(sample(self.shape, (self.groups,), generator=generator)).reshape(*shape)

    def _kernels(self, weight: Tensor) -> Tensor:
        return weight.detach().unflatten(0, (self.groups, -1))

    def __repr__(self) -> str:
        shape = self.shape
        return f"{self._asked!r} of {by(shape.kernel)} kernels at stride {by(shape.stride)}, groups {self.groups}"
