"""Orthonormal matrices through torch's own `torch.nn.utils.parametrizations.orthogonal`, to compare with.

The set is `Orthonormal`'s. What differs is how it is walked on: W = W₀·φ(A), with A a skew matrix made of the free
parameter and φ the Cayley transform (I + A/2)(I − A/2)⁻¹ or the matrix exponential. Both solve or exponentiate a
square matrix of the larger size in each forward pass. Sources: Lezcano-Casado & Martínez-Rubio 2019; Trockman &
Kolter 2021 (Cayley).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..linalg.geometry import Geometry
from .constraint import Hold
from .orthonormal import Orthonormal


class _Trivialized(Orthonormal):
    """Orthonormal matrices on one of torch's charts; held by "forward" only."""

    holds: ClassVar[tuple[Hold, ...]] = ("forward",)
    _map: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()

    def chart(self, weight: Float[Tensor, "out in"]) -> nn.Module:
        """Torch's parametrization, started at ``weight``."""
        rows, columns = weight.shape
        carrier = nn.Linear(columns, rows, bias=False, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            carrier.weight.copy_(weight)
        parametrizations.orthogonal(carrier, orthogonal_map=self._map)
        return carrier.parametrizations.weight[0]  # type: ignore[union-attr, index, return-value]

    def on_kernels(self, shape: Sequence[int], geometry: Geometry) -> None:
        """None: torch's charts are those of matrices."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Cayley(_Trivialized):
    """Orthonormal matrices by the Cayley transform, as torch computes it.

    >>> from tightlip import constrain
    >>> constrain(nn.Linear(2, 2), Cayley(), hold="forward").weight.shape
    torch.Size([2, 2])
    """

    _map = "cayley"


class MatrixExponential(_Trivialized):
    """Orthonormal matrices by the matrix exponential, as torch computes it.

    In float32 torch's exponential loses orthonormality as the parameter grows: |σ − 1| reaches 1.6e-5 after three steps
    of Adam at 0.05, and more after large steps. `freeze` puts that right; Cayley's transform does not have it.

    >>> from tightlip import constrain
    >>> constrain(nn.Linear(2, 2), MatrixExponential(), hold="forward").weight.shape
    torch.Size([2, 2])
    """

    _map = "matrix_exp"
    rounding: ClassVar[float] = 256.0
