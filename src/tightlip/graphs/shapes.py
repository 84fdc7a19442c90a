"""How layers change shapes: for each type, the sizes of the axes after the batch from those of its input.

A shape is a tuple of extents (`extents.py`), or an `Unknown` of which nothing is known but that layers which keep
shapes keep it too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import activations, layers
from ..audit.trust import original_type
from ..mean_shift import MeanShift
from ..shift import Shift
from .arithmetic import Bias, Mean, Offset
from .axes import Chunk, Flip, Permute, Roll, Select, Slice, Squeeze, Transpose, Unsqueeze
from .extents import Axes, Extent, Extents, Misfit
from .extremes import Max, Min
from .windows import convolved, divided, padded, pooled, shuffled, spread_out, upsampled


class Unknown:
    """Some shape, which is that of no other value but those that this one is handed to."""


Shape = Axes | Unknown


def placed(dim: int, axes: int) -> int:
    """Which axis after the batch, counted from 0, an axis of values with so many is."""
    place = dim - 1 if dim > 0 else dim + axes
    if not 0 <= place < axes or dim == 0:
        raise Misfit
    return place


def _with(shape: Axes, place: int, extent: Extent) -> Axes:
    return (*shape[:place], extent, *shape[place + 1 :])


def _keep(extents: Extents, layer: Any, shape: Axes) -> Axes:
    return shape


def _along(extents: Extents, layer: Flip | Roll, shape: Axes) -> Axes:
    placed(layer.dim, len(shape))
    return shape


def _linear(extents: Extents, layer: nn.Linear, shape: Axes) -> Axes:
    out, features = layer.weight.shape
    if not shape:
        raise Misfit
    extents.demand(shape[-1], features)
    return (*shape[:-1], out)


def _flattened(extents: Extents, layer: nn.Flatten, shape: Axes) -> Axes:
    first, last = (placed(dim, len(shape)) for dim in (layer.start_dim, layer.end_dim))
    if first > last:
        raise Misfit
    return (*shape[:first], extents.product(shape[first : last + 1]), *shape[last + 1 :])


def _unflattened(extents: Extents, layer: Any, shape: Axes) -> Axes:
    place, sizes = placed(layer.dim, len(shape)), list(layer.unflattened_size)
    number = int(np.prod([size for size in sizes if size != -1]))
    if -1 not in sizes:
        extents.demand(shape[place], number)
    made = [divided(extents, shape[place], number) if size == -1 else size for size in sizes]
    return (*shape[:place], *made, *shape[place + 1 :])


def _averaged(extents: Extents, layer: Mean | Max, shape: Axes) -> Axes:
    dims = [layer.dim] if isinstance(layer.dim, int) else layer.dim
    places = {placed(dim, len(shape)) for dim in dims}
    kept = [(1 if place in places else extent) for place, extent in enumerate(shape)]
    return tuple(extent for place, extent in enumerate(kept) if layer.keepdim or place not in places)


def _selected(extents: Extents, layer: Select, shape: Axes) -> Axes:
    place = placed(layer.dim, len(shape))
    return shape[:place] + shape[place + 1 :]


def _sliced(extents: Extents, layer: Slice, shape: Axes) -> Axes:
    def count(n: Any) -> Any:
        start = np.clip(np.where(layer.start < 0, layer.start + n, layer.start), 0, n)
        stop = n if layer.stop is None else np.clip(np.where(layer.stop < 0, layer.stop + n, layer.stop), 0, n)
        return np.maximum(stop - start, 0)

    place = placed(layer.dim, len(shape))
    return _with(shape, place, extents.turned(shape[place], count, ("slice", layer.start, layer.stop), least=0))


def _chunk(extents: Extents, layer: Chunk, shape: Axes) -> Axes:
    def count(n: Any) -> Any:
        size = -(-n // layer.chunks)
        pieces = -(-n // size)
        index = np.where(layer.index < 0, layer.index + pieces, layer.index)
        return np.where((index < 0) | (index >= pieces), 0, np.minimum(size, n - index * size))

    place = placed(layer.dim, len(shape))
    return _with(shape, place, extents.turned(shape[place], count, ("chunk", layer.chunks, layer.index)))


def _transposed(extents: Extents, layer: Transpose, shape: Axes) -> Axes:
    one, other = (placed(dim, len(shape)) for dim in (layer.dim0, layer.dim1))
    return _with(_with(shape, one, shape[other]), other, shape[one])


def _permuted(extents: Extents, layer: Permute, shape: Axes) -> Axes:
    if len(layer.dims) != len(shape) + 1:
        raise Misfit
    return tuple(shape[dim - 1] for dim in layer.dims[1:])


def _unsqueezed(extents: Extents, layer: Unsqueeze, shape: Axes) -> Axes:
    place = placed(layer.dim, len(shape) + 1)
    return (*shape[:place], 1, *shape[place:])


def _squeezed(extents: Extents, layer: Squeeze, shape: Axes) -> Shape:
    place = placed(layer.dim, len(shape))
    extent = extents.known(shape[place])
    if extents.can_be(extent) and extents.can_exceed(extent):
        return Unknown()  # two numbers of axes are possible
    return shape[:place] + shape[place + 1 :] if extent == 1 else shape


_NORMALIZED: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (1, 2),
    nn.BatchNorm2d: (3,),
    nn.BatchNorm3d: (4,),
}
"""How many axes after the batch torch's normalizations take."""


def _channels(extents: Extents, layer: Any, shape: Axes) -> Axes:
    if not shape or len(shape) not in _NORMALIZED.get(original_type(layer), (len(shape),)):
        raise Misfit
    if isinstance(layer, Bias):
        extents.demand(shape[placed(layer.dim, len(shape))], layer.features)
    if isinstance(layer, MeanShift):
        extents.demand(shape[0], layer.features)
    count = layer.num_features if hasattr(layer, "num_features") else 1
    count = max(layer.mean.numel(), layer.std.numel()) if isinstance(layer, layers.Normalize) else count
    if count > 1 or hasattr(layer, "num_features"):
        extents.demand(shape[0], count)
    return shape


def _largest(extents: Extents, layer: activations.Maxout, shape: Axes) -> Axes:
    place = placed(layer.dim, len(shape))
    return _with(shape, place, divided(extents, shape[place], layer.group_size))


RULES: dict[type[nn.Module], Callable[..., Shape]] = {
    nn.Linear: _linear,
    Flip: _along,
    Roll: _along,
    nn.Flatten: _flattened,
    nn.Unflatten: _unflattened,
    **dict.fromkeys((Mean, Max, Min), _averaged),
    Select: _selected,
    Slice: _sliced,
    Chunk: _chunk,
    Transpose: _transposed,
    Permute: _permuted,
    Squeeze: _squeezed,
    Unsqueeze: _unsqueezed,
    activations.Maxout: _largest,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolved),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), spread_out),
    **dict.fromkeys((nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d), pooled(1)),
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d), pooled(2)),
    **dict.fromkeys((nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool3d), pooled(3)),
    **dict.fromkeys(
        [
            getattr(nn, f"{kind}Pad{axes}d")
            for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")
            for axes in (1, 2, 3)
        ],
        padded,
    ),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d), upsampled),
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle), shuffled),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, layers.Normalize, MeanShift, Bias), _channels),
    **dict.fromkeys((nn.Identity, nn.ChannelShuffle, Offset, Shift, layers.Scale), _keep),
    **dict.fromkeys((activations.GroupSort, activations.MaxMin, activations.FullSort), _keep),
    **dict.fromkeys((activations.Abs, activations.Householder), _keep),
}

_KEEPING = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
"""Where torch has layers that act on each number alone, or along an axis."""


def after(extents: Extents, layer: nn.Module, shape: Shape) -> Shape:
    """The shape of what a layer makes.

    Raises:
        Misfit: if it takes no such input.
    """
    kind = original_type(layer)
    keeps = kind.__module__ in _KEEPING or RULES.get(kind) in (_keep, _along, _channels)
    if isinstance(shape, Unknown):
        return shape if keeps else Unknown()
    if kind in RULES:
        return RULES[kind](extents, layer, shape)
    return shape if keeps else _tried(extents, layer, shape)


@torch.no_grad()
def _tried(extents: Extents, layer: nn.Module, shape: Axes) -> Shape:
    """A layer that no rule here speaks of keeps the shape if it kept that of a few inputs that it took."""
    made = set()
    like = next(iter(layer.parameters()), torch.zeros(()))
    hints = {size for tensor in layer.parameters() for size in tensor.shape}
    hints |= {value for value in vars(layer).values() if type(value) is int}
    for n in sorted({1, 2, 3, 4, 6, 8, 12, 16, *hints} & set(extents.examples()))[:16]:
        sizes = [extents.at(extent, n) for extent in shape]
        if None in sizes:
            return Unknown()
        try:
            result = layer(torch.zeros(2, *(size or 0 for size in sizes), dtype=like.dtype, device=like.device))
            made.add(tuple(result.shape[1:]) == tuple(sizes))
        except Exception:  # noqa: BLE001  # of the author's own: it does not take this shape
            continue
    return shape if made == {True} else Unknown()
