"""One trace of a forward, read node by node into the rows of a `Graph`."""

import math
import operator
from fractions import Fraction
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from ..audit import Concat, Join, Sum
from ..errors import TightlipError
from ..linalg.rounding import round_up
from ..stored import exact_float
from . import operations as ops
from .arithmetic import Offset
from .axes import Unsqueeze
from .calls import arguments, made
from .graph import Graph, Outputs, Row
from .indexing import attribute, indexed, several, unused
from .overwriting import FxNode, overwrites, refuse_shared, refused
from .placeholders import followed
from .sizes import is_size, reshaped
from .tied import serves, transposed


class Table:
    """The rows of a graph, and its layers, from one trace."""

    def __init__(self, network: nn.Module) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.rows: list[Row] = []
        self.values: dict[FxNode, int] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.modules = dict(network.named_modules())
        graph = followed(network)
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
        elif node.op == "get_attr" and not serves(node):
            raise refused(node, "uses a tensor outside of a layer")
        elif not (is_size(node) or serves(node) or unused(node)):  # sizes and ties are read where they are used
            try:
                self._computed(node)
            except TightlipError:
                raise
            except (TypeError, ValueError, IndexError) as problem:
                raise refused(node, "has arguments that no rule speaks of") from problem

    def _put(self, node: FxNode, operation: str | Join, *inputs: FxNode) -> None:
        if not all(isinstance(i, fx.Node) and i in self.values for i in inputs):
            raise refused(node, "takes what is not one tensor made before")
        self.rows.append((operation, tuple(self.values[i] for i in inputs)))
        self.values[node] = len(self.rows)

    def _layer(self, node: FxNode, layer: nn.Module, key: tuple[str, str], source: Any) -> None:
        """A row that calls a layer; ``key`` tells modules from functions, whose names may be the same."""
        if key not in self.keys:
            name = key[1].replace(".", "_")
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
        self._layer(node, layer, (node.op, node.target), node.args[0])

    def _computed(self, node: FxNode) -> None:
        args, kwargs = arguments(node)
        if any(isinstance(a, fx.Node) and is_size(a) for a in args[1:]) and node.target not in ops.RESHAPE:
            raise refused(node, "computes with the sizes of a value: write numbers, or use layers such as nn.Flatten")
        named = args[1] if node.target is getattr else node.target
        if named in ops.REASONS:
            raise refused(node, ops.REASONS[named])
        if len(args) == 2 and set(kwargs) <= {"alpha"} and self._summed(node, *args, **kwargs):
            return
        if node.target in ops.NEGATE and len(args) == 1:
            self._put(node, Sum(-1.0), *args)
        elif node.target in (*ops.CONCATENATE, *ops.STACK) and 1 <= len(args) <= 2 and kwargs.keys() <= {"dim"}:
            self._joined(node, *args, **kwargs)
        elif node.target in ops.RESHAPE and args:
            self._arranged(node, *reshaped(node))
        elif node.target is operator.getitem:
            self._arranged(node, *indexed(node))
        elif node.target is getattr:
            self._arranged(node, *attribute(node))
        elif node.target in ops.SEVERAL:
            several(node)
        elif node.target is F.linear:
            self._arranged(node, *transposed(node, self.modules))
        elif node.target in ops.FUNCTIONS and args and [a for a in args if isinstance(a, fx.Node)] == args[:1]:
            self._function(node, args[0], args[1:], kwargs)
        else:
            raise refused(node, f"calls {_name(node.target)}, of which no rule speaks: use a layer that has one")

    def _summed(self, node: FxNode, first: Any, second: Any, alpha: float = 1) -> bool:
        """Whether a node is a sum, a difference, or a product with a number: then it is a row."""
        tensors = [a for a in (first, second) if isinstance(a, fx.Node)]
        numbers = [a for a in (first, second) if type(a) in (int, float)]
        target, mixed = node.target, len(tensors) == len(numbers) == 1
        if target in ops.IN_PLACE:
            refuse_shared(node, first, self.modules)
            target = ops.IN_PLACE[target]
        if len(tensors) == 2 and target in (*ops.ADD, *ops.SUBTRACT):
            share = _weight(node, alpha)
            self._put(node, Sum(1.0, -share if target in ops.SUBTRACT else share), *tensors)
        elif alpha != 1:
            return False
        elif mixed and target in ops.MULTIPLY:
            self._put(node, Sum(_weight(node, numbers[0])), *tensors)
        elif mixed and target in ops.DIVIDE and first is tensors[0] and not ops.is_zero(second):
            self._put(node, Sum(reciprocal(_weight(node, second))), *tensors)
        elif mixed and target in (*ops.ADD, *ops.SUBTRACT):
            less = target in ops.SUBTRACT and first is tensors[0]
            if target in ops.SUBTRACT and not less:
                self._put(node, Sum(-1.0), *tensors)
            made = node if node in self.values else tensors[0]
            self._arranged(node, made, Offset(_weight(node, -numbers[0] if less else numbers[0])))
        else:
            return False
        return True

    def _arranged(self, node: FxNode, source: Any, layer: nn.Module) -> None:
        self._layer(node, layer, (node.op, node.name), source)

    def _function(self, node: FxNode, source: FxNode, args: list[Any], kwargs: dict[str, Any]) -> None:
        if kwargs.get("inplace"):
            refuse_shared(node, source, self.modules)
        self._arranged(node, source, made(node, ops.FUNCTIONS[node.target], args, kwargs))

    def _joined(self, node: FxNode, tensors: Any, dim: Any = 0) -> None:
        if not isinstance(tensors, list | tuple) or type(dim) is not int or dim == 0:
            raise refused(node, "puts values together along the axis of the batch")
        if node.target in ops.CONCATENATE:
            self._put(node, Concat(dim), *tensors)
            return
        values = []
        for number, tensor in enumerate(tensors):
            self._layer(node, Unsqueeze(dim), (node.op, f"{node.name}_{number}"), tensor)
            values.append(self.values[node])
        self.rows.append((Concat(dim), tuple(values)))
        self.values[node] = len(self.rows)

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
        if not all(type(name) is str for name, _ in outputs):
            raise TightlipError("it returns a dictionary whose keys are not strings")
        if isinstance(made, dict) and "" in made:
            raise TightlipError("it returns a dictionary with an empty key, and outputs go by their names: name it")
        self.rows.append((Outputs(*(str(name) for name, _ in outputs)), tuple(self.values[m] for _, m in outputs)))


def _name(target: Any) -> str:
    """What a person would call a function."""
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _weight(node: FxNode, number: Any) -> float:
    held = exact_float(number)
    if held is None:
        raise refused(node, "has a number that a float64 cannot hold")
    return held


def reciprocal(number: float) -> float:
    """1/c, rounded away from zero where it has to be: the graph divides by as much, and its bound is not below."""
    return math.copysign(round_up(1 / abs(Fraction(number))), number)
