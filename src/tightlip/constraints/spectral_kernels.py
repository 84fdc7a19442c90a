"""Convolutions with a proven 2-norm of at most 1: a kernel is divided by the bound of its operator if that exceeds 1.

The bound is that of `linalg.convolutions`, for images of any size and with the padding that is there. It stands up to
0.1 % above the norm itself (0.4 or 1.7 % for wide kernels), so members may be that far inside. Nothing rests on an
estimate; it takes a fraction of a second for 64 channels and more for wider ones, at each step.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..linalg.convolutions import convolution_norm_bounds
from ..linalg.geometry import Geometry, grouped, polyphase
from ..linalg.symbol_bounds import COARSEST
from .constraint import Constraint

FREQUENCIES = 16
"""How many along an axis, or twice the taps where that is more, among which that of the largest σ is sought."""


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
        scale = weight.detach().abs().amax().clamp(min=1.0)  # or the bound might overflow
        scaled = weight / scale
        wanted = torch.is_grad_enabled() or torch._C._functorch.is_functorch_wrapped_tensor(weight)
        return scaled / _Bound.apply(scaled, self.geometry, wanted)[0].clamp(min=1.0 / scale)

    def distance(self, weight: Float[Tensor, "out in *taps"]) -> float:
        """How much the bound exceeds 1."""
        return max(_bound(weight, self.geometry) - 1.0, 0.0) if torch.isfinite(weight).all() else math.inf

    def contains(self, weight: Float[Tensor, "out in *taps"]) -> bool:
        """Whether the norm exceeds 1 by no more than the bound of a member may: it need not be smooth."""
        return self.distance(weight) <= COARSEST

    def __repr__(self) -> str:
        return f"{self._asked!r} of convolutions with {self.geometry!r}"


def _bound(weight: Tensor, geometry: Geometry) -> float:
    return convolution_norm_bounds(weight.detach(), geometry, [(2.0, 2.0)])[2.0, 2.0]


class _Bound(torch.autograd.Function):
    """Kernel ↦ its bound, and the derivative of that, which is taken for constant."""

    @staticmethod
    def forward(weight: Tensor, geometry: Geometry, differentiable: bool) -> tuple[Tensor, Tensor]:
        if not torch.isfinite(weight).all():
            raise TightlipError("a weight is NaN or infinite and has no spectral norm: lower the learning rate")
        bound = _bound(weight, geometry)
        slope = _slope(weight, geometry).mul_(bound) if differentiable else torch.zeros_like(weight)
        return weight.new_tensor(bound), slope

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> Any:  # type: ignore[override]
        return upstream * ctx.saved_tensors[0], None, None

    @staticmethod
    def jvp(ctx: Any, direction: Tensor, *_: Any) -> Any:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return (slope * direction).sum(), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, weights: Tensor, *options: Any) -> Any:
        found = [_Bound.apply(weight, *options) for weight in weights.movedim(in_dims[0], 0)]
        return tuple(map(torch.stack, zip(*found, strict=True))), (0, 0)


def _slope(weight: Tensor, geometry: Geometry) -> Tensor:
    """The derivative of log σ, σ the largest singular value of the symbol at the frequencies of a grid."""
    places = torch.arange(1, weight.numel() + 1, dtype=torch.float64, device=weight.device).view(weight.shape)
    places = polyphase(grouped(places, geometry), geometry.stride, geometry.dilation).long()  # 0: no tap
    phases = torch.cat([weight.new_zeros(1), weight.flatten()])[places].double()
    axes = list(range(3, phases.dim()))
    sizes = [max(FREQUENCIES, 2 * phases.shape[axis]) for axis in axes]
    symbols = torch.fft.fftn(phases, sizes, axes).flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
    largest = int(torch.linalg.matrix_norm(symbols, 2).argmax())
    left, values, right = torch.linalg.svd(symbols[largest], full_matrices=False)
    group, frequency = divmod(largest, math.prod(sizes))
    one = torch.zeros(sizes, dtype=symbols.dtype, device=weight.device)
    one.view(-1)[frequency] = 1.0
    wave = torch.fft.fftn(one)[tuple(slice(phases.shape[axis]) for axis in axes)]  # e^{−iωt} at the taps t
    pattern = torch.tensordot(torch.outer(left[:, 0].conj(), right[0].conj()), wave, 0).real / values[0].clamp(
        min=1e-300
    )
    slope = torch.zeros(weight.numel() + 1, dtype=torch.float64, device=weight.device)
    slope[places[group].flatten()] = pattern.flatten()
    return slope[1:].view(weight.shape).to(weight.dtype)
