"""How layers of images change sizes: convolutions, pooling, padding, and pixels that become channels or back.

Along one axis with n entries, padding p, kernel k, stride s and dilation d there are
⌊(n + 2p − d(k − 1) − 1)/s⌋ + 1 windows.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .extents import Axes, Extent, Extents, Misfit


def _each(option: Any, axes: int) -> Sequence[Any]:
    return tuple(option) if isinstance(option, tuple | list) else (option,) * axes


def _image(extents: Extents, shape: Axes, axes: int, channels: int) -> None:
    if len(shape) != axes + 1:
        raise Misfit
    extents.demand(shape[0], channels)


def convolved(extents: Extents, layer: Any, shape: Axes) -> Axes:
    """A convolution."""
    out, channels, *taps = layer.weight.shape
    _image(extents, shape, len(taps), channels * layer.groups)
    if layer.padding == "same":
        return (out, *shape[1:])
    sides = _each(0 if layer.padding == "valid" else layer.padding, len(taps))
    return (out, *_windows(extents, shape[1:], taps, layer.stride, sides, layer.dilation))


def _windows(
    extents: Extents, shape: Axes, taps: Any, stride: Any, sides: Any, dilation: Any = 1, ceil: bool = False
) -> Axes:
    """How many windows fit along each axis: ⌊(n + 2p − d(k − 1) − 1)/s⌋ + 1."""
    options = [_each(option, len(shape)) for option in (taps, stride, sides, dilation)]
    made = []
    for extent, k, s, p, d in zip(shape, *options, strict=True):

        def count(n: Any, k: int = k, s: int = s, p: int = p, d: int = d) -> Any:
            room = n + 2 * p - d * (k - 1) - 1
            windows = (room + (s - 1 if ceil else 0)) // s + 1
            return windows - (ceil & ((windows - 1) * s >= n + p))

        made.append(extents.turned(extent, count, ("windows", k, s, p, d, ceil)))
    return tuple(made)


def spread_out(extents: Extents, layer: Any, shape: Axes) -> Axes:
    """A transposed convolution: (n − 1)s − 2p + d(k − 1) + extra + 1."""
    channels, out, *taps = layer.weight.shape
    _image(extents, shape, len(taps), channels)
    options = (taps, layer.stride, layer.padding, layer.dilation, layer.output_padding)
    made = []
    for extent, k, s, p, d, extra in zip(shape[1:], *options, strict=True):

        def length(n: Any, k: int = k, s: int = s, p: int = p, d: int = d, extra: int = extra) -> Any:
            return (n - 1) * s - 2 * p + d * (k - 1) + extra + 1

        made.append(extents.turned(extent, length, ("spread out", k, s, p, d, extra)))
    return (out * layer.groups, *made)


def pooled(axes: int) -> Callable[..., Axes]:
    """Pooling over the last axes; to torch, the batch may be channels then."""

    def rule(extents: Extents, layer: Any, shape: Axes) -> Axes:
        if len(shape) not in (axes, axes + 1):
            raise Misfit
        first, last = shape[:-axes], shape[-axes:]
        if hasattr(layer, "output_size"):
            sizes = _each(layer.output_size, axes)
            return (*first, *(old if size is None else size for old, size in zip(last, sizes, strict=True)))
        stride = layer.kernel_size if layer.stride is None else layer.stride
        options = layer.kernel_size, stride, layer.padding, getattr(layer, "dilation", 1), layer.ceil_mode
        return (*first, *_windows(extents, last, *options))

    return rule


def padded(extents: Extents, layer: Any, shape: Axes) -> Axes:
    """Padding of the last axes, which is stated from the last one on."""
    sides = list(zip(layer.padding[::2], layer.padding[1::2], strict=True))[::-1]
    if len(shape) < len(sides):
        raise Misfit
    last = shape[len(shape) - len(sides) :]
    made = [extents.total([extent, sum(side)]) for extent, side in zip(last, sides, strict=True)]
    return (*shape[: len(shape) - len(sides)], *made)


def upsampled(extents: Extents, layer: Any, shape: Axes) -> Axes:
    """All axes after the channels, by their factors."""
    if len(shape) < 2:
        raise Misfit
    if layer.scale_factor is None:
        return (shape[0], *_each(layer.size, len(shape) - 1))
    factors = _each(layer.scale_factor, len(shape) - 1)
    if len(factors) != len(shape) - 1:
        raise Misfit
    return (shape[0], *map(functools.partial(_scaled, extents), shape[1:], factors))


def _scaled(extents: Extents, extent: Extent, factor: float) -> Extent:
    return extents.turned(extent, lambda n: np.floor(n * factor).astype(np.int64), ("scaled", factor))


def divided(extents: Extents, extent: Extent, by: int) -> Extent:
    """A part of a size that has to be a multiple."""
    return extents.turned(extent, lambda n: np.where(n % by == 0, n // by, 0), ("divided", by))


def shuffled(extents: Extents, layer: Any, shape: Axes) -> Axes:
    """`nn.PixelShuffle` and back."""
    if len(shape) < 3:  # or torch takes the batch for channels
        raise Misfit
    channels, height, width = shape[-3:]
    up = getattr(layer, "upscale_factor", None)
    if up is not None:
        last = (
            divided(extents, channels, up * up),
            extents.product([height, up]),
            extents.product([width, up]),
        )
    else:
        by = layer.downscale_factor
        last = (
            extents.product([channels, by * by]),
            divided(extents, height, by),
            divided(extents, width, by),
        )
    return (*shape[:-3], *last)
