"""Linear layers and convolutions are held on the set of the norm, beginning with their own weights put on it.

| p | set |
| --- | --- |
| 2 | `Orthonormal`: all singular values 1 |
| ∞ | `RowL1Ball`: rows of L1 norm 1 at most |
| 1 | `ColumnL1Ball`: columns of it |

Where no orthonormal kernel can be held, there are two ways. `lifted` makes two orthonormal layers of one. It draws new
weights, so a layer whose weight is another's too, or whose padding repeats pixels, is held in the `SpectralBall`. So is
a kernel from one channel to one: an orthonormal one would be a shift of pixels.
"""

import math
from typing import Any

import torch
from torch import nn

from ...constraints import (
    ColumnL1Ball,
    Constraint,
    Orthonormal,
    RowL1Ball,
    SpectralBall,
    constrain,
    constraint_of,
    lifted,
)
from ...constraints.carrier import by
from ...errors import TightlipError
from ...graphs import Transposed
from ...norms import norm_name
from .registry import Change, Place, conversion

SETS: dict[float, Constraint] = {1.0: ColumnL1Ball(), 2.0: Orthonormal(), math.inf: RowL1Ball()}
"""The set for each norm."""

_PUT = "its own weights, put on the set"


@conversion(nn.Linear)
def _linear(layer: nn.Linear, place: Place) -> Change:
    return Change(constrain(layer, SETS[place.norm]), _PUT)


@conversion(nn.Conv1d, nn.Conv2d)
def _convolution(layer: nn.Conv1d | nn.Conv2d, place: Place) -> Change:
    wanted = SETS[place.norm]
    if place.norm == 2 and _is_depthwise(layer):
        return Change(constrain(layer, SpectralBall()), "an orthonormal kernel of one channel only shifts pixels")
    try:
        return Change(constrain(layer, wanted), _PUT)
    except TightlipError:
        if place.norm != 2:
            raise
        return _otherwise(layer, place)


def _is_depthwise(layer: nn.Conv1d | nn.Conv2d) -> bool:
    one = layer.in_channels == layer.out_channels == layer.groups
    return one and any(k > s for k, s in zip(layer.kernel_size, layer.stride, strict=True))


def _otherwise(layer: nn.Conv1d | nn.Conv2d, place: Place) -> Change:
    """What a convolution becomes where its orthonormal kernels cannot be held."""
    shape = f"{by(layer.kernel_size)} from {layer.in_channels} to {layer.out_channels} channels"
    if layer.padding_mode == "zeros" and not place.tied:
        return Change(lifted(layer), f"{shape} alone cannot be held orthonormal; the weights are new")
    constrain(layer, SpectralBall())
    cause = shape if layer.padding_mode == "zeros" else f"with {layer.padding_mode} padding it"
    return Change(layer, f"{cause} cannot be held orthonormal; its norm is capped")


@conversion(nn.ConvTranspose2d)
def _transposed_convolution(layer: nn.ConvTranspose2d, place: Place) -> Change:
    """Without overlaps it is a matrix at each pixel, whose results are laid out as patches."""
    side, patches = layer.stride[0], layer.kernel_size == layer.stride == (layer.stride[0],) * 2
    plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding == layer.output_padding == (0, 0)
    if not (patches and plain):
        raise TightlipError(
            "its patches overlap, and no set is known for such kernels: give nn.Upsample and nn.Conv2d, or a "
            "ConvTranspose2d whose kernel is its stride, without padding"
        )
    weight = layer.weight.detach()
    options: Any = {"device": weight.device, "dtype": weight.dtype}
    point = nn.Conv2d(layer.in_channels, layer.out_channels * side**2, 1, bias=layer.bias is not None, **options)
    with torch.no_grad():
        point.weight.copy_(weight.flatten(1).mT[:, :, None, None])
        if point.bias is not None and layer.bias is not None:
            point.bias.copy_(layer.bias.repeat_interleave(side**2))
    constrain(point, SETS[place.norm])
    return Change(nn.Sequential(point, nn.PixelShuffle(side)), f"the same map, as a matrix at each pixel; {_PUT}")


@conversion(nn.ConvTranspose1d, nn.ConvTranspose3d, nn.Conv3d)
def _other_convolution(layer: nn.Module, place: Place) -> Change:
    raise TightlipError(f"no set is known for {type(layer).__name__}: nn.Conv1d and nn.Conv2d can be held")


@conversion(Transposed)
def _tied(layer: Transposed, place: Place) -> Change:
    """In the 2-norm a matrix and its transpose have one norm; in the others columns take the place of rows."""
    if place.norm != 2:
        raise TightlipError(
            f"it has the weight of another layer, transposed, which is held for the {norm_name(place.norm)}-norm of "
            "its rows: give p=2, or a weight of its own"
        )
    if constraint_of(layer.of) is None:
        constrain(layer.of, SETS[place.norm])
    return Change(layer, "its weight is that of another layer, transposed, and is held there")
