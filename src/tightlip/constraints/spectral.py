"""The spectral ball {‖W‖₂ ≤ 1}: spectral normalization, the baseline that caps the largest singular value only."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..linalg.geometry import Geometry
from .constraint import Constraint
from .spectral_kernels import SpectralKernels


class SpectralBall(Constraint):
    """Matrices with ‖W‖₂ ≤ 1; the map divides by the largest singular value where it exceeds 1.

    Unlike `Orthonormal` it does not preserve gradient norm: the other singular values may be anything below.
    The norm is taken from a decomposition, not from power iteration, which would be an estimate from below.
    Sources: paper §4.2.1; Miyato et al. 2018.
    """

    norms: tuple[float, float] = (2.0, 2.0)

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """W / max(1, ‖W‖₂); where the norm overflows, W is divided by its largest entry first."""
        if not torch.isfinite(weight).all():
            raise TightlipError("a weight is NaN or infinite and has no spectral norm: lower the learning rate")
        norm = torch.linalg.matrix_norm(weight, 2)
        if not norm < math.inf:
            weight = weight / weight.detach().abs().amax()
            norm = torch.linalg.matrix_norm(weight, 2)
        return weight / norm.clamp(min=1.0)

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How much the largest singular value exceeds 1."""
        return spectral_excess(weight)

    def on_kernels(self, shape: Sequence[int], geometry: Geometry) -> Constraint:
        """Kernels whose convolution, with its padding, is proven to have norm ≤ 1."""
        return SpectralKernels(self, geometry)


def spectral_excess(weight: Float[Tensor, "out in"]) -> float:
    """max(0, ‖W‖₂ − 1), as exact as a decomposition; ∞ for weights that are not finite."""
    if not torch.isfinite(weight).all():
        return math.inf
    return max(float(torch.linalg.matrix_norm(weight, 2)) - 1.0, 0.0)
