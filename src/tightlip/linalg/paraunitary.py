"""How far a convolution is from having all singular values 1, for images of any size without an edge.

With stride s, the taps s·q + r of a kernel are the taps q of s times as many channels. Let K be that kernel, or its
transpose if it has more rows than columns. The operator has singular values 1 exactly if K is paraunitary, that is if

    R_u = Σ_t K_{t+u} K_tᵀ

is the identity at u = 0 and zero elsewhere. Source: Vaidyanathan 1993, chapter 14.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .kernel_shape import KernelShape
from .rounding import full_precision


def correlations(kernel: Float[Tensor, "..."], shape: KernelShape) -> Float[Tensor, "..."]:
    """R_u of kernels (*batch, out, in, *taps), as (batch, small, small, *u), with u = 0 in the middle."""
    phases = _polyphase(kernel, shape)
    batch, small, _, *taps = phases.shape
    signal = phases.movedim(0, 1).flatten(1, 2)
    convolution = F.conv1d if len(taps) == 1 else F.conv2d
    with full_precision(kernel, convolves=True):
        found = convolution(signal, phases.flatten(0, 1), padding=[n - 1 for n in taps], groups=batch)
    return found.unflatten(1, (batch, small)).movedim(1, 0)


def deviation(kernel: Float[Tensor, "..."], shape: KernelShape) -> float:
    """Σ_u ‖R_u − δ_u‖_F, the largest over a batch: a bound on every |σ² − 1| of the convolutions, up to rounding."""
    found = correlations(kernel, shape).flatten(3)
    found[..., found.shape[-1] // 2].diagonal(dim1=1, dim2=2).sub_(1.0)
    return float(torch.linalg.matrix_norm(found, dim=(1, 2)).sum(-1).amax())


def _polyphase(kernel: Tensor, shape: KernelShape) -> Tensor:
    """(batch, small, large, *q): a kernel of stride 1, transposed if it is tall."""
    axes = len(shape.kernel)
    phases = kernel.reshape(-1, *kernel.shape[-2 - axes :])
    for axis, stride in enumerate(shape.patch):  # pixels between patches are not read, and have no residue
        fill = [0, 0] * (axes - 1 - axis) + [0, -shape.kernel[axis] % stride]
        split = F.pad(phases, fill).unflatten(3 + axis, (-1, stride))
        phases = split.movedim(4 + axis, 3).flatten(2, 3)
    return phases.transpose(1, 2) if phases.shape[1] > phases.shape[2] else phases
