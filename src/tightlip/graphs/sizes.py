"""Sizes of values in a trace, and views by them, as layers that keep the axes apart whose sizes are named.

x.view(B, C, H * W) with B, C, H, W = x.shape is x.flatten(2). The number of examples may be that of any value, since
all have as many; the other sizes have to be those of the value that is arranged anew, in their order.
"""

import operator
from typing import Any

from torch import fx, nn

from .axes import Squeeze
from .overwriting import FxNode, refused


def is_size(node: FxNode) -> bool:
    """Whether a node is the shape of a value, one of its numbers, or a product of some."""
    return _is_shape(node) or axes_of(node) is not None


def axes_of(node: Any) -> tuple[FxNode, tuple[int, ...]] | None:
    """The value and its axes whose sizes a node multiplies: (x, (2, 3)) of x.size(2) * x.shape[3]."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return _axis(node.args[0], node.args[1])
    if node.target is operator.getitem and _is_shape(node.args[0]):
        return _axis(node.args[0].args[0], node.args[1])  # type: ignore[union-attr]
    if node.target is operator.mul:
        factors = [axes_of(factor) for factor in node.args]
        if len(factors) == 2 and factors[0] and factors[1] and factors[0][0] is factors[1][0]:
            return factors[0][0], factors[0][1] + factors[1][1]
    return None


def _axis(value: Any, axis: Any) -> tuple[FxNode, tuple[int, ...]] | None:
    return (value, (axis,)) if type(axis) is int and axis >= 0 else None


def _is_shape(node: Any) -> bool:
    if not isinstance(node, fx.Node):
        return False
    called = node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs
    return called or (node.target is getattr and node.args[1] == "shape")


def reshaped(node: FxNode) -> tuple[FxNode, nn.Module]:
    """x.view(…): the tensor and the layer of a node that reshapes it and keeps examples apart."""
    given: list[Any] = [node.kwargs[name] for name in ("input", "shape") if name in node.kwargs]
    source, *sizes = list(node.args) + given
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = list(sizes[0])
    first, rest = (sizes[0] if sizes else None), sizes[1:]
    own = axes_of(first)
    by_examples = own is not None and own[1] == (0,)
    if not rest and (by_examples or first == -1):
        return source, nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1,)), Squeeze(1))  # which refuses other sizes
    if by_examples:
        return source, _kept(node, source, rest)
    if first != -1 or -1 in rest or not _are_numbers(rest):
        raise refused(
            node,
            "reshapes what may mix examples, or by computed sizes: use torch.flatten(x, 1), x.flatten(2), nn.Unflatten",
        )
    return source, nn.Sequential(nn.Flatten(), nn.Unflatten(1, tuple(rest)))  # which refuses other sizes


def _kept(node: FxNode, source: FxNode, sizes: list[Any]) -> nn.Module:
    """What comes after the examples: named axes in their order, then numbers for all that is left."""
    layers: list[nn.Module] = []
    axis, named = 1, 0
    for size in sizes:
        found = axes_of(size)
        if found is None:
            break
        last = axis + len(found[1])
        if found[0] is not source or found[1] != tuple(range(axis, last)):
            raise refused(node, "reshapes by sizes of other values, or in another order: use x.flatten or x.transpose")
        named += 1
        layers += [nn.Flatten(named, named + len(found[1]) - 1)] if len(found[1]) > 1 else []
        axis = last
    numbers = sizes[named:]
    if not numbers:  # what is left has one entry, or torch would have refused
        return nn.Sequential(*layers, nn.Flatten(named))
    if not _are_numbers(numbers) or numbers.count(-1) > 1:
        raise refused(node, "reshapes by computed sizes: use x.flatten(2) or nn.Unflatten")
    flat = nn.Flatten(named + 1)
    if numbers == [-1] and not layers:
        return flat
    split = [] if numbers == [-1] else [nn.Unflatten(named + 1, tuple(numbers))]
    return nn.Sequential(*layers, flat, *split)


def _are_numbers(sizes: list[Any]) -> bool:
    return bool(sizes) and all(type(size) is int and (size > 0 or size == -1) for size in sizes)
