"""How many entries an input must have along its axes so that so many are left behind the layers of a network.

A convolution or pooling with k taps, stride s and dilation d makes m entries of at most s·m + d·k. So m entries are
left of a·m + b, with a the product of the strides before. Tables of sizes must be as long to show what may happen.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from ..activations import Maxout
from ..audit.graph import Node, Nodes, fold
from ..audit.trust import original_type
from .axes import Chunk, Slice

LEAST_SEEN = 16
"""So many entries every value must be able to have before a sum of two is judged."""


_ENDLESS = 2.0**62


class _Span(NamedTuple):
    """factor·m + more entries of the input are enough for m."""

    factor: float = 1.0
    more: float = 0.0


def input_span(network: Nodes) -> Callable[[int], int]:
    """How many entries of the input are enough for so many of every value."""
    spans = [_Span()]

    def layer(node: Node, before: _Span) -> _Span:
        assert isinstance(node.operation, nn.Module)
        spans.append(_before(before, _of_layer(node.operation)))
        return spans[-1]

    fold(network, spans[0], layer, lambda node, taken: _longest(taken))
    return lambda entries: math.ceil(min(max(span.factor * entries + span.more for span in spans), _ENDLESS))


def _longest(spans: list[_Span]) -> _Span:
    return _Span(max(span.factor for span in spans), max(span.more for span in spans))


def _before(one: _Span, then: _Span) -> _Span:
    return _Span(one.factor * then.factor, one.factor * then.more + one.more)


def _of_layer(layer: Any) -> _Span:
    if isinstance(layer, Slice):
        return _Span(1, abs(layer.start) + abs(layer.stop or 0))
    if isinstance(layer, Chunk):
        return _Span(layer.chunks, layer.chunks)
    if isinstance(layer, nn.Unflatten) and -1 in layer.unflattened_size:
        return _Span(math.prod(map(abs, layer.unflattened_size)))
    if isinstance(layer, Maxout):
        return _Span(layer.group_size)
    if hasattr(layer, "output_size"):  # adaptive pooling makes one number of entries
        return _Span()
    strides = _sizes(layer, "stride") or _sizes(layer, "kernel_size")
    if "Transpose" in original_type(layer).__name__ and strides:
        return _Span(1 / max(min(strides), 1), 2 * max(_sizes(layer, "padding"), default=0) + max(strides))
    taps = max(_sizes(layer, "kernel_size"), default=0) * max(_sizes(layer, "dilation"), default=1)
    shrunk = max([*strides, *_sizes(layer, "downscale_factor"), 1])
    grown = min([*_sizes(layer, "scale_factor"), *_sizes(layer, "upscale_factor")], default=1)
    return _Span(shrunk / max(grown, 1), taps)


def _sizes(layer: Any, name: str) -> list[float]:
    """An option of a layer that is one number, or one for each axis."""
    option = getattr(layer, name, None)
    return [n for n in (option if isinstance(option, tuple | list) else [option]) if isinstance(n, int | float)]
