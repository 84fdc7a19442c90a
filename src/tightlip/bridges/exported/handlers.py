"""What exported programs do that is no layer of one value: sums, products with tensors, reshapes, pieces, `MaxMin`.

| operator | becomes |
| --- | --- |
| x + y, x − y, c·x, x/c | `Sum` |
| x + b with one number for each entry of an axis | `Bias` |
| the same as a product, as a quotient | a batch normalization, a `Normalize` |
| the entries of an axis, compared and put together in order (`orders`) | `MaxMin`, `GroupSort` |
"""

import abc
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...activations import FullSort, GroupSort, MaxMin
from ...audit import Concat, Join, Sum
from ...errors import TightlipError
from ...graphs import Bias, Chunk, Offset, Select, Slice, Squeeze, Unsqueeze
from ...graphs.operations import is_zero
from ...graphs.reading import reciprocal
from ...layers import Normalize
from .operators import NORMALIZATIONS, batch_norm
from .orders import MOST_SORTED, Order, entry, is_sorted

Given = Mapping[str, Any]


class Name(str):
    """The name of a value, or of a tensor of the program."""


class Size(str):
    """The name of a number that is a size of a value."""


class Program(abc.ABC):
    """What handlers are told of a program, and what they add to its graph.

    ``constants`` are its tensors by the names that nodes call them, ``orders`` what comparisons make of pieces.
    """

    constants: dict[str, Tensor]
    orders: dict[str, Order]

    @abc.abstractmethod
    def shape(self, name: str) -> list[Any]:
        """The sizes of a value: numbers, or what stands for one that is free."""

    @abc.abstractmethod
    def filled(self, value: Any) -> Any:
        """An argument, with the tensor of the program that it names."""

    @abc.abstractmethod
    def owner(self, tensors: Sequence[Any]) -> str:
        """The module of the first of these that is a tensor of the program."""

    @abc.abstractmethod
    def row(self, output: str, operation: str | Join, *sources: str) -> None:
        """A row that makes a value of others."""

    @abc.abstractmethod
    def layer(self, output: str, layer: nn.Module, source: str, owner: str = "") -> None:
        """A row that calls a layer: by the module that has its weight, or else by the value that it makes."""

    @abc.abstractmethod
    def piece(self, output: str, layer: nn.Module, source: str) -> None:
        """One of several values that are made of one; a row is made of it when it is asked for."""


Handler = Callable[[Program, list[str], Given], None]


def _added(program: Program, outputs: list[str], given: Given) -> None:
    _sum(program, outputs[0], given, 1.0)


def _subtracted(program: Program, outputs: list[str], given: Given) -> None:
    _sum(program, outputs[0], given, -1.0)


def _subtracted_from(program: Program, outputs: list[str], given: Given) -> None:
    """A number minus a value."""
    program.row(f"{outputs[0]} before", Sum(-float(given.get("alpha", 1))), given["self"])
    program.layer(outputs[0], Offset(float(given["other"])), f"{outputs[0]} before")


def _sum(program: Program, output: str, given: Given, sign: float) -> None:
    """First + sign·alpha·second, each a value, a number or a tensor of the program."""
    first, second, share = given["self"], given["other"], sign * given.get("alpha", 1)
    if _is_value(program, first) and _is_value(program, second):
        if program.shape(first) != program.shape(second):
            raise TightlipError("adds values of different shapes, one of which is repeated: no rule speaks of that")
        program.row(output, Sum(1.0, share), first, second)
        return
    value, number = (first, second) if _is_value(program, first) else (second, first)
    weight, factor = (1.0, share) if value is first else (share, 1.0)
    if weight != 1:
        program.row(f"{output} before", Sum(weight), value)
    found = program.filled(number)
    scalar = _scalar(program, value, output, found)
    shift = Offset(factor * scalar) if scalar is not None else _bias(program, value, output, factor * found)
    program.layer(output, shift, value if weight == 1 else f"{output} before")


def _bias(program: Program, value: str, output: str, tensor: Tensor) -> nn.Module:
    layer = Bias(*_along(program, value, output, tensor))
    layer.bias = nn.Parameter(tensor.flatten(), requires_grad=False)
    return layer


def _multiplied(program: Program, outputs: list[str], given: Given) -> None:
    value, number = given["self"], given["other"]
    if not _is_value(program, value):
        value, number = number, value
    found = program.filled(number)
    scalar = _scalar(program, value, outputs[0], found)
    if scalar is not None:
        program.row(outputs[0], Sum(scalar), value)
        return
    _along(program, value, outputs[0], found, only=1)
    program.layer(outputs[0], _times(program, value, found), value)


def _times(program: Program, value: str, factors: Tensor) -> nn.Module:
    """Channels, each times a number of its own."""
    zeros, ones = factors.new_zeros(factors.numel()), factors.new_ones(factors.numel())
    return batch_norm(len(program.shape(value)), factors.flatten(), zeros, zeros.clone(), ones, eps=0.0)


def _divided(program: Program, outputs: list[str], given: Given) -> None:
    value, found = given["self"], program.filled(given["other"])
    if not _is_value(program, value) or given.get("rounding_mode") is not None:
        raise TightlipError("divides by a value, and no constant bounds that on all inputs")
    scalar = _scalar(program, value, outputs[0], found)
    if scalar is not None:
        if is_zero(scalar):
            raise TightlipError("divides by zero")
        program.row(outputs[0], Sum(reciprocal(scalar)), value)
        return
    features, _ = _along(program, value, outputs[0], found, only=1)
    if len(shape := program.shape(value)) > 2 and not (type(shape[-1]) is int and shape[-1] != features):
        program.layer(outputs[0], _times(program, value, _reciprocals(found)), value)  # Normalize refuses such values
        return
    layer = Normalize([0.0] * features, [1.0] * features).to(found.dtype)
    layer.std = found.flatten().clone()
    program.layer(outputs[0], layer, value)


def _reciprocals(divisors: Tensor) -> Tensor:
    """1/d of each, away from zero: a constant of these is one of the quotients."""
    found = 1 / divisors
    return torch.nextafter(found, found.sign() * math.inf)


def _negated(program: Program, outputs: list[str], given: Given) -> None:
    program.row(outputs[0], Sum(-1.0), given["self"])


def _put_together(program: Program, outputs: list[str], given: Given) -> None:
    program.row(outputs[0], Concat(given.get("dim", 0)), *given["tensors"])


def _stacked(program: Program, outputs: list[str], given: Given) -> None:
    tensors, dim = given["tensors"], given.get("dim", 0) % len(program.shape(outputs[0]))
    orders = [program.orders[name] for name in tensors if name in program.orders]
    if len(orders) == len(tensors) and is_sorted(orders, dim):
        size = orders[0].size
        program.layer(outputs[0], MaxMin(dim) if size == 2 else GroupSort(size, dim), orders[0].source)
        return
    for name in tensors:
        program.layer(f"{outputs[0]} {name}", Unsqueeze(dim), name)
    program.row(outputs[0], Concat(dim), *(f"{outputs[0]} {name}" for name in tensors))


def _extreme(joined: Callable[[int, int], int]) -> Handler:
    def handler(program: Program, outputs: list[str], given: Given) -> None:
        first, second = (program.orders.get(given[name]) for name in ("self", "other"))
        if first is None or second is None or first[:-1] != second[:-1]:
            raise TightlipError("takes one of two values, the larger or the smaller, of which no rule speaks")
        program.orders[outputs[0]] = first._replace(table=joined(first.table, second.table))

    return handler


def _unbound(program: Program, outputs: list[str], given: Given) -> None:
    source, size = given["self"], len(outputs)
    dim = given.get("dim", 0) % len(program.shape(source))
    for index, output in enumerate(outputs):
        program.piece(output, Select(dim, index), source)
        if size <= MOST_SORTED:
            program.orders[output] = entry(source, dim, size, index)


def _ordered(program: Program, outputs: list[str], given: Given) -> None:
    if given.get("descending", False):
        raise TightlipError("sorts from the largest on, of which no rule speaks")
    program.layer(outputs[0], FullSort(given.get("dim", -1)), given["self"])


def _chunked(program: Program, outputs: list[str], given: Given) -> None:
    for index, output in enumerate(outputs):
        program.piece(output, Chunk(given["chunks"], given.get("dim", 0), index), given["self"])


def _split(program: Program, outputs: list[str], given: Given) -> None:
    sizes = given.get("split_sizes") or [given["split_size"]] * len(outputs)
    for index, output in enumerate(outputs):
        start = sum(sizes[:index])
        program.piece(output, Slice(given.get("dim", 0), start, start + sizes[index]), given["self"])


def _viewed(program: Program, outputs: list[str], given: Given) -> None:
    """Each example arranged anew: rows of the batch stay rows."""
    before, after = program.shape(given["self"]), program.shape(outputs[0])
    if not before or not after or before[0] != after[0]:
        raise TightlipError("may mix examples: keep the first axis, as in torch.flatten(x, 1)")
    if not all(type(size) is int for size in after[1:]):
        raise TightlipError("has sizes that are not numbers: export with numbers but for the batch")
    layers: list[nn.Module] = [Unsqueeze(1)] if len(before) == 1 else [nn.Flatten()]
    layers += [nn.Unflatten(1, (1,)), Squeeze(1)] if len(after) == 1 else []
    layers += [nn.Unflatten(1, tuple(after[1:]))] if len(after) > 2 else []
    program.layer(outputs[0], layers[0] if len(layers) == 1 else nn.Sequential(*layers), given["self"])


def _normalized(program: Program, outputs: list[str], given: Given) -> None:
    options = {key: program.filled(value) for key, value in given.items() if key != "input"}
    layer = batch_norm(len(program.shape(given["input"])), **options)
    program.layer(outputs[0], layer, given["input"], program.owner([options["running_mean"]]))


def _is_value(program: Program, given: Any) -> bool:
    return isinstance(given, Name) and given not in program.constants


def _scalar(program: Program, value: str, output: str, given: Any) -> float | None:
    """One number; None for a tensor of several. No value may be repeated by it."""
    if program.shape(value) != program.shape(output):
        raise TightlipError("repeats entries of a value beside a tensor of more axes, of which no rule speaks")
    if isinstance(given, Tensor) and given.numel() > 1:
        return None
    return float(given)


def _along(program: Program, value: str, output: str, tensor: Tensor, only: int | None = None) -> tuple[int, int]:
    """How many numbers a tensor has, and the axis of a value that they are along."""
    shape, axes = program.shape(value), len(program.shape(value))
    places = [axes - tensor.dim() + axis for axis, size in enumerate(tensor.shape) if size > 1]
    axis = places[0] if places else 1
    fits = len(places) <= 1 and tensor.dim() <= axes and program.shape(output) == shape and axes in NORMALIZATIONS
    if not fits or axis < 1 or shape[axis] != tensor.numel() or only not in (None, axis):
        raise TightlipError("has a tensor beside its value that is not one number for each entry of an axis")
    return tensor.numel(), axis


HANDLERS: dict[str, Handler] = {
    "add.Tensor": _added,
    "sub.Tensor": _subtracted,
    "rsub.Scalar": _subtracted_from,
    "mul.Tensor": _multiplied,
    "div.Tensor": _divided,
    "neg.default": _negated,
    "cat.default": _put_together,
    "stack.default": _stacked,
    "minimum.default": _extreme(operator.and_),
    "maximum.default": _extreme(operator.or_),
    "sort.default": _ordered,
    "unbind.int": _unbound,
    "chunk.default": _chunked,
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
    **dict.fromkeys(("view.default", "reshape.default", "_unsafe_view.default"), _viewed),
    "batch_norm.default": _normalized,
}
"""By the operator's name after ``torch.ops.aten``."""

ON_CONSTANTS: dict[str, Callable[[Tensor, Given], Tensor]] = {
    **dict.fromkeys(("view.default", "reshape.default"), lambda tensor, given: tensor.reshape(_sizes(given))),
    "unsqueeze.default": lambda tensor, given: tensor.unsqueeze(given["dim"]),
    "t.default": lambda tensor, given: tensor.t(),
    "numpy_T.default": lambda tensor, given: tensor.T,
    "transpose.int": lambda tensor, given: tensor.transpose(given["dim0"], given["dim1"]),
    "permute.default": lambda tensor, given: tensor.permute(given["dims"]),
    **dict.fromkeys(("clone.default", "detach.default", "alias.default"), lambda tensor, given: tensor),
    "lift_fresh_copy.default": lambda tensor, given: tensor,
}
"""What is done to a tensor of the program before it is used."""


def _sizes(given: Given) -> list[int]:
    return next(given[name] for name in ("size", "shape") if name in given)
