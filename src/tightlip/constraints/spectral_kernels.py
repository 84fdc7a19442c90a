"""Convolutions with a proven 2-norm of at most 1: a kernel is divided by the bound of its operator if that exceeds 1.

The bound is that of `linalg.convolutions`, for images of any size and with the padding that is there. It stands up to
0.1 % above the norm itself (0.4 or 1.7 % for wide kernels), so members may be that far inside. Nothing rests on an
estimate; it takes a fraction of a second for 64 channels and more for wider ones, at each step.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..linalg.convolutions import convolution_norm_bounds
from ..linalg.geometry import Geometry, grouped, polyphase
from ..linalg.symbol_bounds import COARSEST
from .constraint import Constraint

PLACES = 16
"""Frequencies along an axis, or twice the taps where that is more, among which the largest is sought."""


class SpectralKernels(Constraint):
    """Weights (out, in, *taps) of convolutions with ‖·‖₂ ≤ 1; what `SpectralBall` is on kernels.

    Args:
        asked: The set of matrices whose place it takes.
        geometry: How the convolution walks over an image.
    """

    norms: tuple[float, float] = (2.0, 2.0)

    def __init__(self, asked: Constraint, geometry: Geometry) -> None:
        self._asked, self.geometry = asked, geometry

    @property
    def asked(self) -> Constraint:
        """The set of matrices whose place it takes."""
        return self._asked

    def map(self, weight: Float[Tensor, "out in *taps"]) -> Float[Tensor, "out in *taps"]:
        """K / max(1, bound). The derivative takes the bound for a multiple of σ at the frequency where σ is largest."""
        bound = self._bound(weight)
        if not bound < math.inf:
            weight = weight / weight.detach().abs().amax()
            bound = self._bound(weight)
        if bound <= 1.0:
            return weight
        if not weight.requires_grad:
            return weight / bound
        peak = self._peak(weight)
        return weight / (bound * (peak / peak.detach()))

    def distance(self, weight: Float[Tensor, "out in *taps"]) -> float:
        """How much the bound exceeds 1."""
        return max(self._bound(weight) - 1.0, 0.0) if torch.isfinite(weight).all() else math.inf

    def contains(self, weight: Float[Tensor, "out in *taps"]) -> bool:
        """Whether the norm exceeds 1 by no more than the bound of a member may: it need not be smooth."""
        return self.distance(weight) <= COARSEST

    def _bound(self, weight: Tensor) -> float:
        if not torch.isfinite(weight).all():
            raise TightlipError("a weight is NaN or infinite and has no spectral norm: lower the learning rate")
        return convolution_norm_bounds(weight.detach(), self.geometry, [(2.0, 2.0)])[2.0, 2.0]

    def _peak(self, weight: Tensor) -> Tensor:
        """The largest singular value of the symbol at the frequencies of a grid."""
        phases = polyphase(grouped(weight, self.geometry), self.geometry.stride, self.geometry.dilation)
        axes = range(3, phases.dim())
        with torch.no_grad():
            sizes = [max(PLACES, 2 * phases.shape[axis]) for axis in axes]
            symbols = torch.fft.fftn(phases.double(), sizes, list(axes)).flatten(3).permute(0, 3, 1, 2)
            symbol = symbols.flatten(0, 1)
            largest = int(torch.linalg.matrix_norm(symbol, 2).argmax())
            left, _, right = torch.linalg.svd(symbol[largest], full_matrices=False)
            group, place = divmod(largest, math.prod(sizes))
            spike = torch.zeros(sizes, dtype=torch.complex128, device=weight.device)
            spike.view(-1)[place] = 1.0
            wave = torch.fft.fftn(spike)[tuple(slice(phases.shape[axis]) for axis in axes)]  # e^{−iωt} at taps t
            pattern = torch.tensordot(torch.outer(left[:, 0].conj(), right[0].conj()), wave, 0).real
        return (phases[group] * pattern.to(weight.dtype)).sum()

    def __repr__(self) -> str:
        return f"{self._asked!r} of convolutions with {self.geometry!r}"
