"""`trace`: what a forward of the user's own does, as a `Graph`, found by torch.fx and checked.

A trace shows what happened once, so it can lie. `Graph` is therefore what is audited and served, never the Python code,
and what a table cannot say is refused, each in a sentence: branches on data, tensors outside of layers, shapes that
would be broadcast, general indexing, in-place work on what is used again, code in ``__call__`` or hooks, randomness,
and forwards that change the module.
"""

import math
import operator
import random
from fractions import Fraction
from typing import Any

import numpy
import torch
from torch import fx, nn

from ..audit import Concat, Join, Sum, is_traced, refuse_altered, registered, trace_with
from ..audit.trust import original_type, refuse_hidden_code
from ..errors import TightlipError
from ..linalg.rounding import round_up
from . import operations as ops
from .graph import Graph, Outputs, Row, Slice
from .overwriting import FxNode, overwrites, refuse_shared, refused

_FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NameError, NotImplementedError)
"""What forwards raise when they are run on a placeholder, torch.fx.proxy.TraceError among them."""


def trace(network: nn.Module) -> Graph:
    """A `Graph` that shares its layers with ``network`` and computes what its forward did, in eval mode.

    Args:
        network: A module whose forward takes one tensor and returns one, or a tuple or a dictionary of several. What
            it calls must be layers with rules, containers of such, functions of torch that are such layers (``relu``,
            ``flatten``, pooling, …), sums, differences, products with numbers, ``cat``, slices, ``chunk``, ``split``.

    Raises:
        TightlipError: for whatever else it does, with the line of the trace.

    >>> class Block(nn.Module):
    ...     def forward(self, x): return x + torch.relu(x)
    >>> from tightlip import lipschitz
    >>> lipschitz(trace(Block()), 2).constant
    2.0
    """
    if not isinstance(network, nn.Module):
        raise TightlipError(f"trace takes a network (nn.Module), got a {type(network).__name__}")
    modes = {module: module.training for module in network.modules()}
    known, before = set(vars(network)), _state(network)
    for module in modes:
        module.training = False
    try:
        table, drawn = _Table(network), _generators()
        again = [_Table(network)]
        if _generators() != drawn:  # a type checker may draw, which is no matter; a coin that decides will show
            again += [_Table(network) for _ in range(16)]
        if _state(network) != before:
            raise TightlipError("it changes the module, so the next call may do something else")
        if any(other.lines != table.lines for other in again):
            raise TightlipError("two traces of it differ: it is random, or depends on what it did before")
    except TightlipError as problem:
        raise TightlipError(f"its forward cannot be audited: {problem}") from problem
    finally:
        for module, training in modes.items():
            module.training = training
        for name in set(vars(network)) - known:  # torch.fx keeps constant tensors there
            delattr(network, name)
    return Graph(table.layers, table.rows)


def as_graph(network: nn.Module) -> nn.Module:
    """The network itself if all of it is known, else what `trace` makes of it."""
    found = [network]
    while found:  # not by recursion: containers may be nested a thousand deep
        module = found.pop()
        if is_traced(module):
            return trace(network)
        known = registered().get(original_type(module))
        if known is not None and known.expand is not None:
            found += [part.operation for part in known.expand(module) if not isinstance(part.operation, Join)]
    return network


def _state(network: nn.Module) -> list[Any]:
    """Every attribute of every module as text, tensors by how often they were written to."""
    return [
        (name, key, (id(value), value._version) if isinstance(value, torch.Tensor) else repr(value))
        for name, module in network.named_modules()
        for key, value in [*vars(module).items(), *module._buffers.items(), *module._parameters.items()]
        if not key.startswith("_tensor_constant") and key not in ("training", "_modules", "_parameters", "_buffers")
    ]


def _generators() -> list[Any]:
    """Where the random generators are that code may draw from."""
    numpys = numpy.random.mtrand._rand._bit_generator.state  # type: ignore[attr-defined]
    return [random.getstate(), str(numpys), torch.get_rng_state().tolist()]


def _is_leaf(module: nn.Module) -> bool:
    """Whether the module is known, and so is all that it is made of."""
    known = registered().get(original_type(module))
    if known is None:
        return type(module).__module__.startswith("torch.nn.modules") and type(module) is not nn.ModuleList
    inside = known.expand(module) if known.expand is not None else ()
    return all(isinstance(part.operation, Join) or _is_leaf(part.operation) for part in inside)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _is_leaf(module)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if _is_leaf(module):
            refuse_altered(module, self.path_of_module(module))
        else:
            refuse_hidden_code(module, f"{type(module).__name__} at {self.path_of_module(module)!r}")
        return super().call_module(module, forward, args, kwargs)


class _Table:
    """The rows of a graph, and its layers, from one trace."""

    def __init__(self, network: nn.Module) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.rows: list[Row] = []
        self.values: dict[FxNode, int] = {}
        self.keys: dict[str, str] = {}
        self.modules = dict(network.named_modules())
        refuse_hidden_code(network, type(network).__name__)
        try:
            graph = _Tracer().trace(network)
        except TightlipError:
            raise
        except (*_FAULTS, fx.proxy.TraceError) as problem:
            reason = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise TightlipError(f"it cannot be traced ({reason:.120})") from problem
        self.lines = str(graph)
        for node in graph.nodes:
            self._read(node)

    def _read(self, node: FxNode) -> None:
        if node.op == "placeholder":
            if self.values or node.args:
                raise TightlipError("it takes more than one tensor: give a module of one input")
            self.values[node] = 0
        elif node.op == "call_module":
            self._called(node)
        elif node.op == "output":
            self._finish(node.args[0])
        elif node.op == "get_attr":
            raise refused(node, "uses a tensor outside of a layer")
        elif _sized(node) is None and not _is_shape(node):  # those are used in reshaping, or refused there
            self._computed(node)

    def _put(self, node: FxNode, operation: str | Join, *inputs: FxNode) -> None:
        if not all(isinstance(i, fx.Node) and i in self.values for i in inputs):
            raise refused(node, "takes what is not one tensor made before")
        self.rows.append((operation, tuple(self.values[i] for i in inputs)))
        self.values[node] = len(self.rows)

    def _layer(self, node: FxNode, layer: nn.Module, key: str, source: Any) -> None:
        if key not in self.keys:
            name = key.replace(".", "_")
            while name in self.layers or hasattr(Graph, name) or name in ("table", "training"):
                name += "_"
            self.keys[key] = name
            self.layers[name] = layer
        self._put(node, self.keys[key], source)

    def _called(self, node: FxNode) -> None:
        layer = self.modules[node.target]
        if node.kwargs or len(node.args) != 1:
            raise refused(node, "calls a layer with more than one tensor")
        if overwrites(layer):
            refuse_shared(node, node.args[0], self.modules)
        self._layer(node, layer, node.target, node.args[0])

    def _computed(self, node: FxNode) -> None:
        target, args, kwargs = node.target, list(node.args), dict(node.kwargs)
        tensors = [a for a in args if isinstance(a, fx.Node)]
        numbers = [a for a in args if type(a) in (int, float)]
        pair = len(args) == 2 and not kwargs
        if target in ops.ADD_IN_PLACE and pair and len(tensors) == 2:
            refuse_shared(node, args[0], self.modules)
            self._put(node, Sum(1.0, 1.0), *tensors)
        elif target in ops.ADD and pair and len(tensors) == 2:
            self._put(node, Sum(1.0, 1.0), *tensors)
        elif target in ops.SUBTRACT and pair and len(tensors) == 2:
            self._put(node, Sum(1.0, -1.0), *tensors)
        elif target in ops.MULTIPLY and pair and len(tensors) == len(numbers) == 1:
            self._put(node, Sum(_weight(node, numbers[0])), *tensors)
        elif target in ops.DIVIDE and pair and len(tensors) == 1 and args[1:] == numbers and not ops.is_zero(args[1]):
            self._put(node, Sum(_reciprocal(_weight(node, args[1]))), *tensors)
        elif target in ops.NEGATE and len(args) == 1:
            self._put(node, Sum(-1.0), *tensors)
        elif target in ops.CONCATENATE:
            self._concatenated(node, *args, **kwargs)
        elif target in ops.RESHAPE:
            self._reshaped(node)
        elif target is operator.getitem:
            self._indexed(node)
        elif target in ops.PIECES:
            _check_pieces(node)
        elif target in ops.FUNCTIONS and tensors == args[:1]:
            self._function(node, args[0], args[1:], kwargs)
        else:
            raise refused(node, "does what no rule speaks of")

    def _function(self, node: FxNode, source: FxNode, args: list[Any], kwargs: dict[str, Any]) -> None:
        if kwargs.get("inplace"):
            refuse_shared(node, source, self.modules)
        try:
            layer = ops.FUNCTIONS[node.target](*args, **kwargs)
        except (TypeError, ValueError, TightlipError) as problem:
            raise refused(node, "has arguments that no rule speaks of") from problem
        self._layer(node, layer, node.name, source)

    def _concatenated(self, node: FxNode, tensors: Any, dim: Any = 0) -> None:
        if not isinstance(tensors, list | tuple) or type(dim) is not int or dim == 0:
            raise refused(node, "puts values together along the axis of the batch")
        self._put(node, Concat(dim), *tensors)

    def _reshaped(self, node: FxNode) -> None:
        source, *sizes = node.args
        first, rest = (sizes[0] if sizes else None), sizes[1:]
        own = isinstance(first, fx.Node) and _sized(first) is source
        if not (own and rest == [-1]) and not (first == -1 and len(rest) == 1 and type(rest[0]) is int and rest[0] > 0):
            raise refused(node, "reshapes what may mix examples: use torch.flatten(x, 1) or nn.Unflatten")
        flat = nn.Flatten() if own else nn.Sequential(nn.Flatten(), nn.Unflatten(1, (rest[0],)))  # refuses other sizes
        self._layer(node, flat, node.name, source)

    def _indexed(self, node: FxNode) -> None:
        source, index = node.args
        if isinstance(source, fx.Node) and source.target in ops.PIECES:
            self._piece(node, source, index)
            return
        plain = isinstance(index, tuple) and len(index) > 1 and index[0] == slice(None)
        chosen = [(dim, i) for dim, i in enumerate(index) if i != slice(None)] if plain else []
        if len(chosen) != 1 or not isinstance(chosen[0][1], slice) or chosen[0][1].step not in (None, 1):
            raise refused(node, "indexes in a way that may repeat entries: use slices such as x[:, 2:5]")
        dim, part = chosen[0]
        ends = (part.start or 0, part.stop)
        if not all(end is None or type(end) is int for end in ends):
            raise refused(node, "slices at an end that is not a number")
        self._layer(node, Slice(dim, *ends), node.name, source)

    def _piece(self, node: FxNode, source: FxNode, index: Any) -> None:
        tensor, size, dim = _check_pieces(node.args[0])
        if source.target in (torch.chunk, "chunk"):
            raise refused(node, "takes a chunk, whose size depends on the input: use split, or slices")
        sizes = size if isinstance(size, list | tuple) else None
        if type(index) is not int or index < 0:
            raise refused(node, "takes a piece that is not a number from 0")
        start = sum(sizes[:index]) if sizes else index * size
        stop = start + (sizes[index] if sizes else size)
        self._layer(node, Slice(dim, start, stop), node.name, tensor)

    def _finish(self, made: Any) -> None:
        if isinstance(made, fx.Node):
            if made not in self.values:
                raise TightlipError("it returns what is not a tensor that it made")
            if self.values[made] != len(self.rows):
                self.rows.append((Sum(1.0), (self.values[made],)))
            return
        unnamed = [("", each) for each in made] if isinstance(made, tuple | list) else []
        outputs = list(made.items()) if isinstance(made, dict) else unnamed
        if not outputs or not all(isinstance(m, fx.Node) and m in self.values for _, m in outputs):
            raise TightlipError("it returns what is not one tensor, nor a tuple or dictionary of tensors")
        self.rows.append((Outputs(*(str(name) for name, _ in outputs)), tuple(self.values[m] for _, m in outputs)))


def _weight(node: FxNode, number: float) -> float:
    if float(number) != number:
        raise refused(node, "has a number that a float64 cannot hold")
    return float(number)


def _reciprocal(number: float) -> float:
    """1/c, rounded away from zero where it has to be: the graph divides by as much, and its bound is not below."""
    return math.copysign(round_up(1 / abs(Fraction(number))), number)


def _check_pieces(node: Any) -> tuple[FxNode, Any, int]:
    """The tensor of a split, its sizes, and its axis."""
    names = dict(zip(("tensor", "sizes", "dim"), node.args, strict=False)) | {
        {"split_size_or_sections": "sizes", "split_size": "sizes", "chunks": "sizes"}.get(key, key): value
        for key, value in node.kwargs.items()
    }
    dim, sizes = names.get("dim", 0), names.get("sizes")
    whole = sizes if isinstance(sizes, list | tuple) else [sizes]
    if type(dim) is not int or dim == 0 or not all(type(size) is int and size > 0 for size in whole):
        raise refused(node, "splits along the axis of the batch, or into sizes that are not numbers")
    return names["tensor"], sizes, dim


def _is_shape(node: FxNode) -> bool:
    return node.target is getattr and node.args[1] == "shape"


def _sized(node: FxNode) -> FxNode | None:
    """x, if the node is x.size(0) or x.shape[0]: how many examples there are."""
    if node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
        return node.args[0]  # type: ignore[return-value]
    if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
        shape = node.args[0]
        if isinstance(shape, fx.Node) and shape.target is getattr and shape.args[1] == "shape":
            return shape.args[0]  # type: ignore[return-value]
    return None


trace_with(trace)
