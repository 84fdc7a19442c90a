"""Indices, pieces and shapes of a trace as layers: which entries a node takes, or how it arranges them anew.

What could take entries of other examples, or one entry twice, is refused.
"""

import operator
from typing import Any

from torch import fx, nn

from . import operations as ops
from .axes import Chunk, Select, Slice
from .overwriting import FxNode, refused

_NAMES = {"split_size_or_sections": "sizes", "split_size": "sizes", "chunks": "sizes", "input": "tensor"}


def indexed(node: FxNode) -> tuple[FxNode, nn.Module]:
    """x[…]: the tensor and the layer of a node that takes an index of it."""
    source, index = node.args
    if isinstance(source, fx.Node) and source.target in ops.PIECES:
        return _piece(node, source, index)
    index = index if isinstance(index, tuple) else (index,)
    if index[:1] == (Ellipsis,):
        dims = list(range(1 - len(index), 0))
    elif len(index) > 1 and index[0] == slice(None):
        dims = list(range(1, len(index)))
    else:
        dims = []
    layers = [_taken(node, dim, part) for dim, part in zip(dims, index[1:], strict=False) if part != slice(None)]
    if not layers:
        raise refused(
            node, "indexes in a way that may repeat entries or mix examples: use x[:, 2:5], x[:, 0] or x[..., 0]"
        )
    if dims[0] > 0:
        layers.reverse()  # a number takes its axis away, and those after it move up
    return source, layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _taken(node: FxNode, dim: int, part: Any) -> nn.Module:
    if type(part) is int:
        return Select(dim, part)
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise refused(node, "indexes in a way that may repeat entries: use numbers, and slices such as x[:, 2:5]")
    start, stop = part.start or 0, part.stop
    if not all(end is None or type(end) is int for end in (start, stop)):
        raise refused(node, "slices at an end that is not a number")
    return Slice(dim, start, stop)


def _piece(node: FxNode, source: FxNode, index: Any) -> tuple[FxNode, nn.Module]:
    tensor, sizes, dim = pieces(source)
    if type(index) is not int or index < 0:
        raise refused(node, "takes a piece that is not a number from 0")
    if source.target in ops.UNBIND:
        return tensor, Select(dim, index)
    if source.target in ops.CHUNK:
        return tensor, Chunk(sizes, dim, index)
    if isinstance(sizes, int):
        return tensor, Slice(dim, index * sizes, (index + 1) * sizes)
    if index >= len(sizes):
        raise refused(node, f"takes a piece of {len(sizes)} that is not there")
    return tensor, Slice(dim, sum(sizes[:index]), sum(sizes[: index + 1]))


def pieces(node: FxNode) -> tuple[FxNode, Any, int]:
    """The tensor of a split, its sizes (1 of an unbind), and its axis."""
    unbound = node.target in ops.UNBIND
    order = ("tensor", "dim") if unbound else ("tensor", "sizes", "dim")
    given = dict(zip(order, node.args, strict=False)) | {_NAMES.get(key, key): v for key, v in node.kwargs.items()}
    dim, sizes = given.get("dim", 0), 1 if unbound else given.get("sizes")
    whole = sizes if isinstance(sizes, list | tuple) and node.target in ops.SPLIT else [sizes]
    if type(dim) is not int or dim == 0 or not all(type(size) is int and size > 0 for size in whole):
        raise refused(node, "splits along the axis of the batch, or into sizes that are not numbers")
    return given["tensor"], sizes, dim


def reshaped(node: FxNode) -> tuple[FxNode, nn.Module]:
    """x.view(…): the tensor and the layer of a node that reshapes it and keeps examples apart."""
    source, *sizes = node.args
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = list(sizes[0])
    first, rest = (sizes[0] if sizes else None), sizes[1:]
    own = isinstance(first, fx.Node) and examples_of(first) is not None  # of any value: all have as many
    numbers = bool(rest) and all(type(size) is int and (size > 0 or size == -1) for size in rest)
    if not numbers or rest.count(-1) > (1 if own else 0) or not (own or first == -1):
        raise refused(
            node,
            "reshapes what may mix examples, or by computed sizes: use torch.flatten(x, 1), x.flatten(2), nn.Unflatten",
        )
    if rest == [-1]:
        return source, nn.Flatten()
    return source, nn.Sequential(nn.Flatten(), nn.Unflatten(1, tuple(rest)))  # which refuses other sizes


def is_size(node: FxNode) -> bool:
    """Whether a node is the shape of a value, or one of its numbers."""
    return (node.target is getattr and node.args[1] == "shape") or examples_of(node) is not None


def examples_of(node: FxNode) -> FxNode | None:
    """x, if the node is x.size(0), x.shape[0] or len(x): how many examples there are."""
    if node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
        return node.args[0]
    if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
        shape = node.args[0]
        if isinstance(shape, fx.Node) and shape.target is getattr and shape.args[1] == "shape":
            return shape.args[0]
    return None
