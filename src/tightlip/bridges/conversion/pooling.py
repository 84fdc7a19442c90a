"""Pooling stays; averages, which shrink differences, are brought to norm 1, so that they take nothing of the slope.

An average over windows of 2×2 has norm ½ in the 2-norm, so it is doubled. An adaptive average does not say how many
entries it averages: with an example it becomes one that does.
"""

import math
from typing import Any

from torch import nn

from ...graphs import Mean
from ...layers import Scale
from .keeping import kept
from .registry import Change, Place, conversion

_UNCOUNTED = "; give example= to count what it averages, and its norm becomes 1"


@conversion(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def _average(layer: nn.Module, place: Place) -> Change:
    return Change(layer, kept(layer, place.norm), full=True)


@conversion(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
def _adaptive(layer: Any, place: Place) -> Change:
    """Where the sizes divide, the windows are those of an average pooling."""
    axes, shape = (1 if type(layer) is nn.AdaptiveAvgPool1d else 2), place.form.shape
    given = layer.output_size if isinstance(layer.output_size, tuple | list) else [layer.output_size] * axes
    if shape is None or place.norm == math.inf:
        return Change(layer, kept(layer, place.norm) + (_UNCOUNTED if place.norm < math.inf else ""))
    sides = [n or side for n, side in zip(given, shape[-axes:], strict=True)]
    if any(side % n for n, side in zip(sides, shape[-axes:], strict=True)):
        return Change(layer, kept(layer, place.norm))
    window = [side // n for n, side in zip(sides, shape[-axes:], strict=True)]
    pool: nn.Module = nn.AvgPool1d(window[0]) if axes == 1 else nn.AvgPool2d((window[0], window[1]))
    return Change(pool, "the same windows, counted", full=True)


@conversion(Mean)
def _mean(layer: Mean, place: Place) -> Change:
    shape = place.form.shape
    if layer.count is not None or place.norm == math.inf:
        return Change(layer, kept(layer, place.norm), full=True)
    if shape is None:
        return Change(layer, kept(layer, place.norm) + _UNCOUNTED)
    dims = [layer.dim] if isinstance(layer.dim, int) else list(layer.dim)
    count = math.prod(shape[dim] for dim in dims)
    return Change(Mean(layer.dim, layer.keepdim, count), f"{count} entries, counted", full=True)


@conversion(nn.Upsample, nn.UpsamplingNearest2d)
def _upsample(layer: Any, place: Place) -> Change:
    """One factor is for as many axes as there are, and each of these counts."""
    axes, factor = place.form.axes, layer.scale_factor
    if axes is not None and axes > 2 and isinstance(factor, int | float):
        layer = nn.Upsample(scale_factor=(factor,) * (axes - 2), mode=layer.mode)
    return Change(layer, kept(layer, place.norm))


@conversion(Scale)
def _scale(layer: nn.Module, place: Place) -> Change:
    return Change(None, "the constant has one place, at the end")
