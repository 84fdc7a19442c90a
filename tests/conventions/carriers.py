"""Convolutions to try conventions on: each way in which a weight is a matrix, a family of them, or more than those.

Shapes are small: 8 channels, images of 6 × 6, signals of 12.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

MATRICES = {"turned-8", "ambient", "schedule", "parseval", "spectral-power", "orthonormal", "cayley", "exponential"}
"""Sets of matrices, as `cells` names them: not for kernels with more taps than their stride."""

TURNED = {"turned-8", "turned-1"}
"""Turned in a given number of blocks, where a weight is one matrix."""

DUAL = {"row-dual-1", "row-dual-2"}
"""Sets whose promise goes from one norm to another, which circular padding breaks."""


@dataclass(frozen=True)
class Convolution:
    """Two layers, of which the second keeps the shape; the size of the images; and the sets that are refused."""

    first: Callable[[], nn.Module]
    square: Callable[[], nn.Module]
    size: tuple[int, ...]
    refused: frozenset[str] = frozenset()


CARRIERS = {
    "1x1": Convolution(lambda: nn.Conv2d(8, 8, 1), lambda: nn.Conv2d(8, 8, 1), (6, 6)),
    "patch": Convolution(lambda: nn.Conv2d(2, 8, 2, stride=2), lambda: nn.Conv2d(8, 8, 1), (6, 6)),
    "grouped": Convolution(
        lambda: nn.Conv2d(8, 8, 1, groups=2), lambda: nn.Conv2d(8, 8, 1, groups=2), (6, 6), frozenset(TURNED)
    ),
    "3x3": Convolution(
        lambda: nn.Conv2d(8, 8, 3, padding=1), lambda: nn.Conv2d(8, 8, 3, padding=1), (6, 6), frozenset(MATRICES)
    ),
    "1d": Convolution(
        lambda: nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular"),
        lambda: nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular"),
        (12,),
        frozenset(MATRICES | DUAL),
    ),
}
"""A family of one matrix, of wide patches, of two matrices; kernels in two dimensions and around a circle."""

KERNELS = {"3x3", "1d"}
"""Carriers that are more than matrices."""


def singular_value_deviation(layer: nn.Module) -> float:
    """The largest |σ² − 1| of a convolution: of its matrices, or of its symbol at the frequencies of 16 pixels."""
    weight, taps = layer.weight.detach().double(), layer.weight.shape[2:]
    if math.prod(taps) == 1 or layer.stride == layer.kernel_size:
        symbols = weight.flatten(1).unflatten(0, (layer.groups, -1))
    else:
        symbols = torch.fft.fftn(weight, [16] * len(taps), dim=tuple(range(2, weight.dim()))).flatten(2).movedim(2, 0)
    return float((torch.linalg.svdvals(symbols).square() - 1).abs().max())
