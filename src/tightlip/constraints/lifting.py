"""Convolutions whose orthonormal kernels cannot be found again from their entries, as two that can.

The first layers of most image networks are tall: 1 → 6 channels by 5×5, 3 → 64 by 3×3 at stride 2. A square kernel is
always found again, so such a layer becomes an isometric 1×1 convolution into as many channels as the kernel gives out,
and a square kernel; a layer with far fewer outputs than inputs becomes a square kernel and a 1×1 convolution after it.
"""

from typing import Any

from torch import nn

from ..linalg.kernel_shape import KernelShape
from ..rules.convolution import geometry_of
from .carrier import Layer, refuse_repeated_pixels
from .constraining import constrain_sample
from .constraint import Constraint, Hold
from .orthonormal import Orthonormal


def lifted(layer: Layer, constraint: Constraint | None = None, hold: Hold = "step") -> nn.Module:
    """A layer like this one with a random weight on the set, as two layers in order where one alone cannot be held.

    Such are orthonormal kernels with more taps than their stride from few channels to more than four times as many, or
    from many to a quarter or less: `constrain` refuses them. Here they are an ``nn.Sequential`` of a 1×1 convolution
    without a bias, and one with a square kernel and the layer's stride, padding, dilation, groups and bias; or, from
    many to few, the other way round.

    Args:
        layer: A plain ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d``. Its own weight is not kept: a pair has another
            shape.
        constraint: The set, default `Orthonormal()`.
        hold: As in `constrain`.

    Returns:
        The same layer if it can be held, else the pair.

    Raises:
        TightlipError: as `constrain`.

    >>> lifted(nn.Conv2d(1, 6, 5, padding=2))
    Sequential(
      (0): Conv2d(1, 6, kernel_size=(1, 1), stride=(1, 1), bias=False)
      (1): Conv2d(6, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    )
    """
    constraint = Orthonormal() if constraint is None else constraint
    shape = _unheld(layer, constraint)
    if shape is None:
        return constrain_sample(layer, constraint, hold)
    assert not isinstance(layer, nn.Linear)
    square, groups = shape.square, layer.groups
    tall = square.inputs > shape.inputs
    kernel = _convolution(layer, square.inputs * groups, square.outputs * groups, bias=tall and layer.bias is not None)
    sides = (shape.inputs, square.inputs) if tall else (square.outputs, shape.outputs)
    point = _convolution(
        layer, *(side * groups for side in sides), kernel_size=1, stride=1, padding=0, dilation=1,
        bias=not tall and layer.bias is not None,
    )  # fmt: skip
    return nn.Sequential(
        *(constrain_sample(part, constraint, hold) for part in ((point, kernel) if tall else (kernel, point)))
    )


def _unheld(layer: Any, constraint: Constraint) -> KernelShape | None:
    """The shape of orthonormal kernels that cannot be held; None for all else."""
    if type(layer) not in (nn.Conv1d, nn.Conv2d) or type(constraint) is not Orthonormal:
        return None
    shape = KernelShape.of(layer.weight.shape, layer.stride, layer.dilation, layer.groups)
    if not shape.axes or shape.factorable or shape.places is not None:
        return None
    refuse_repeated_pixels(constraint, tuple(layer.weight.shape), geometry_of(layer))
    return shape


def _convolution(layer: nn.Conv1d | nn.Conv2d, inputs: int, outputs: int, **options: Any) -> nn.Conv1d | nn.Conv2d:
    """A convolution like this one, but for these options."""
    kept = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    weight = layer.weight
    given = {name: getattr(layer, name) for name in kept} | {"device": weight.device, "dtype": weight.dtype}
    return type(layer)(inputs, outputs, **given | options)
