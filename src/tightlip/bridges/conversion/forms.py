"""What is known of a value before anything runs: which axis holds features, a number that divides how many, and axes.

A convolution says that features are on axis 1, a linear layer that they are on the last. Sorting needs no more than
that their number is even. Nothing that is proven rests on this: a layer that does not fit raises when it is called.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ...audit import Concat, Join
from ...audit.trust import original_type
from ...graphs import Bias, Offset
from ...graphs.axes import OfAxes


@dataclass(frozen=True)
class Form:
    """The axis of features (1 or -1), a divisor of their number, and how many axes there are; None: not known.

    ``shape`` is that of the value for the example that was given, with its batch.
    """

    axis: int | None = None
    width: int | None = None
    axes: int | None = None
    shape: tuple[int, ...] | None = None

    def seen(self, shape: Sequence[int]) -> "Form":
        """With what the value of an example shows."""
        axis = self.axis or (-1 if len(shape) == 2 else 1 if len(shape) > 3 else None)
        return Form(axis, None if axis is None else shape[axis], len(shape), tuple(shape))


def _convolution(layer: nn.Conv1d | nn.Conv2d, form: Form) -> Form:
    return Form(1, layer.out_channels, 2 + len(layer.kernel_size))


def _flat(layer: nn.Flatten, form: Form) -> Form:
    """From axis 1 on there are as many features as channels times pixels; from a later one on channels stay."""
    if layer.start_dim == 1 and layer.end_dim == -1:
        return Form(-1, form.width, 2)
    return replace(form, axes=None) if form.axis == 1 and layer.start_dim > 1 else Form()


def _shuffled(layer: nn.PixelShuffle, form: Form) -> Form:
    width, rest = divmod(form.width or 1, layer.upscale_factor**2)
    return replace(form, width=None if rest else width)


def _in_order(layer: nn.Sequential, form: Form) -> Form:
    for child in layer:
        form = after(child, form)
    return form


_AFTER: dict[type[nn.Module], Callable[[Any, Form], Form]] = {
    nn.Linear: lambda layer, form: Form(-1, layer.out_features, form.axes),
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Flatten: _flat,
    nn.Unflatten: lambda layer, form: Form(),
    nn.PixelShuffle: _shuffled,
    nn.PixelUnshuffle: lambda layer, form: replace(form, width=None),
    nn.Sequential: _in_order,
}


def after(layer: nn.Module, form: Form) -> Form:
    """What is known of a layer's result. Types that are not named keep their features, but for those of axes."""
    kind = original_type(layer)
    if kind in _AFTER:
        return _AFTER[kind](layer, form)
    return Form() if issubclass(kind, OfAxes) and kind not in (Bias, Offset) else form


def joined(join: Join, forms: Sequence[Form]) -> Form:
    """What is known of joined values: of a sum what is known of one, and put together along features a divisor."""
    first = next((form for form in forms if form.axis is not None), forms[0])
    if not isinstance(join, Concat) or first.axis is None:
        return first
    if first.axes is not None and (join.dim - first.axis) % first.axes:
        return first  # along another axis
    if first.axes is None and join.dim != first.axis:
        return replace(first, width=None)
    widths = [form.width for form in forms if form.width is not None]
    return replace(first, width=math.gcd(*widths) if len(widths) == len(forms) else None)
