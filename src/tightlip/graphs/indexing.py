"""Indices and pieces of a trace as layers: which entries a node takes.

What could take entries of other examples, or one entry twice, is refused.
"""

import operator
from collections.abc import Collection
from typing import Any

from torch import fx, nn

from . import operations as ops
from .axes import Chunk, Select, Slice, Unsqueeze
from .calls import arguments, made
from .overwriting import FxNode, refused

_NAMES = {"split_size_or_sections": "sizes", "split_size": "sizes", "chunks": "sizes", "input": "tensor"}


_PLACES = "takes the places of extreme entries, which jump: take the values, as in x.max(1).values"


def unused(node: FxNode) -> bool:
    """Whether a node only unpacks places of extremes that nothing is made of, as in ``values, _ = x.max(1)``."""
    return node.target is operator.getitem and not node.users and _is(node.args[0], ops.EXTREMES)


def attribute(node: FxNode) -> tuple[FxNode, nn.Module]:
    """x.mT, x.max(1).values: the tensor, and the layer of a node that reads an attribute of it."""
    source, name = node.args
    if not _is(source, ops.EXTREMES) and name in ops.ATTRIBUTES:
        return source, ops.ATTRIBUTES[name]()
    if _is(source, ops.EXTREMES) and name == "values":
        return _extreme(source)
    raise refused(node, _PLACES if name == "indices" else f"reads {name}, of which no rule speaks")


def _is(node: Any, targets: Collection[Any]) -> bool:
    return isinstance(node, fx.Node) and node.target in targets


def several(node: FxNode) -> None:
    """Refuse what no rule speaks of in a node that returns several tensors: pieces, or extremes and their places."""
    (_extreme if node.target in ops.EXTREMES else pieces)(node)


def _extreme(node: FxNode) -> tuple[FxNode, nn.Module]:
    """What x.max(1) and the like compare, and the layer of the values."""
    args, kwargs = arguments(node)
    if any(isinstance(a, fx.Node) for a in (*args[1:], *kwargs.values())):
        raise refused(node, "takes one of two values, the larger or the smaller, of which no rule speaks")
    return args[0], made(node, ops.EXTREMES[node.target], args[1:], kwargs)


def indexed(node: FxNode) -> tuple[FxNode, nn.Module]:
    """x[…]: the tensor and the layer of a node that takes an index of it."""
    source, index = node.args
    if _is(source, ops.EXTREMES):
        if index != 0:
            raise refused(node, _PLACES)
        return _extreme(source)
    if _is(source, ops.PIECES):
        return _piece(node, source, index)
    index = index if isinstance(index, tuple) else (index,)
    if index[:1] == (Ellipsis,):
        dims = list(range(1 - len(index), 0))
    elif len(index) > 1 and index[0] == slice(None):
        dims = list(range(1, len(index)))
    else:
        dims = []
    parts = index[1:] if dims else ()
    if None in parts:
        return source, _new_axes(node, dims, parts)
    layers = [_taken(node, dim, part) for dim, part in zip(dims, parts, strict=True) if part != slice(None)]
    if not layers:
        raise refused(
            node, "indexes in a way that may repeat entries or mix examples: use x[:, 2:5], x[:, 0] or x[..., 0]"
        )
    if dims[0] > 0:
        layers.reverse()  # a number takes its axis away, and those after it move up
    return source, layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _new_axes(node: FxNode, dims: list[int], parts: tuple[Any, ...]) -> nn.Module:
    """x[:, None], x[..., None]: axes are counted as they are in the end, so they are made from where one counts."""
    if not all(part is None or part == slice(None) for part in parts):
        raise refused(node, "makes a new axis and takes entries in one index: do one after the other")
    made = [Unsqueeze(dim) for dim, part in zip(dims, parts, strict=True) if part is None]
    if dims[0] < 0:
        made.reverse()
    return made[0] if len(made) == 1 else nn.Sequential(*made)


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
    if type(index) is not int or (index < 0 and type(sizes) is int and source.target in ops.SPLIT):
        raise refused(node, "takes a piece that is not a number, or from the end of pieces that are not counted")
    if source.target in ops.UNBIND:
        return tensor, Select(dim, index)
    if source.target in ops.CHUNK:
        return tensor, Chunk(sizes, dim, index)
    if isinstance(sizes, int):
        return tensor, Slice(dim, index * sizes, (index + 1) * sizes)
    if not -len(sizes) <= index < len(sizes):
        raise refused(node, f"takes a piece of {len(sizes)} that is not there")
    start = sum(sizes[: index % len(sizes)])
    return tensor, Slice(dim, start, start + sizes[index])


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
