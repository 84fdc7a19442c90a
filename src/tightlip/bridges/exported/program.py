"""`load_exported`: the graph of a .pt2 file as a `Graph`, operator by operator, or a sentence that names what is none.

An exported program is a list of operators on named values; the first axis of each is that of the batch. An operator
that is a layer becomes a row that calls one (`operators`), joins and reshapes are read by `handlers`. What would mix
examples, broadcast a value, or write to one that is used again is refused. So the `Graph` computes what the program
does, and what is proven of it holds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...audit import Join, Sum
from ...errors import TightlipError
from ...graphs import Graph, Outputs
from ...graphs.graph import Row
from .archive import Archive, read_archive
from .handlers import HANDLERS, ON_CONSTANTS, Name, Program, Size
from .operators import OPERATORS, reason
from .orders import Order

_ATEN = "torch.ops.aten."

_IDLE = ("sym_size", "_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range")
"""How operators begin that make no value: checks, and sizes, which views alone ask for and state in their results."""

_FRESH = (
    *("linear", "conv", "batch_norm", "add", "sub", "mul", "div", "cat", "stack", "relu", "leaky_relu"),
    *("max", "min", "amax", "amin"),
)
"""How operators begin whose results share no memory with what they take, so that they may be overwritten."""


class _Piece(NamedTuple):
    """One of several values that an operator makes of another."""

    source: str
    layer: nn.Module


def load_exported(path: Path) -> Graph:
    """The network in a file of ``torch.export.save``, in eval mode; nothing in the file is run or unpickled.

    Args:
        path: The file. Its program has one input, (batch, …), and one output or several.

    Raises:
        TightlipError: for an operator that has no rule, by its name; for any other file.
    """
    archive = read_archive(path)
    try:
        return _Reading(archive).graph()
    except TightlipError as problem:
        raise TightlipError(f"{path} cannot be audited: {problem}") from problem
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as problem:
        raise TightlipError(
            f"{path} cannot be read ({type(problem).__name__}: {problem!s:.60}): write it anew with torch.export.save"
        ) from problem


class _Reading(Program):
    """The nodes of a program on their way into rows of a graph."""

    def __init__(self, archive: Archive) -> None:
        module = archive.program["graph_module"]
        self.constants: dict[str, Tensor] = {}
        self.orders: dict[str, Order] = {}
        self._nodes = _needed(module["graph"])
        self._about: Mapping[str, Any] = module["graph"]["tensor_values"]
        self._signature = module["signature"]
        self._owners: dict[int, str] = {}
        self._values: dict[str, int] = {}
        self._pieces: dict[str, _Piece] = {}
        self._layers: dict[str, nn.Module] = {}
        self._rows: list[Row] = []
        self._shares: dict[str, str] = {}
        self._inputs(archive.tensors)
        taken = [each["arg"] for node in self._nodes for each in node["inputs"]] + list(module["graph"]["outputs"])
        self._uses = Counter(name for argument in taken for name in _names(argument))

    def graph(self) -> Graph:
        """The whole."""
        for node in self._nodes:
            name = str(node["target"]).removeprefix(_ATEN)
            try:
                self._read(name, node)
            except TightlipError as problem:
                raise TightlipError(f"{_called(str(node['target']))} {problem}") from problem
        self._outputs()
        return Graph(self._layers, self._rows).eval()

    def shape(self, name: str) -> list[Any]:
        """The sizes of a value: numbers, or what stands for one that is free."""
        return [size.get("as_int", size) for size in self._about[name]["sizes"]]

    def row(self, output: str, operation: str | Join, *sources: str) -> None:
        """A row that makes a value of others."""
        self._rows.append((operation, tuple(self._number(source) for source in sources)))
        self._values[output] = len(self._rows)

    def layer(self, output: str, layer: nn.Module, source: str, owner: str = "") -> None:
        """A row that calls a layer: by the module that has its weight, or else by the value that it makes."""
        key = (owner or output).replace(".", "_")
        while key in self._layers or hasattr(Graph, key) or key in ("table", "training", "eval_only"):
            key += "_"
        self._layers[key] = layer
        self.row(output, key, source)

    def piece(self, output: str, layer: nn.Module, source: str) -> None:
        """One of several values that are made of one; a row is made of it when it is asked for."""
        self._pieces[output] = _Piece(source, layer)

    def owner(self, tensors: Sequence[Any]) -> str:
        """The module of the first of these that is a tensor of the program."""
        return next((self._owners[id(tensor)] for tensor in tensors if id(tensor) in self._owners), "")

    def filled(self, value: Any) -> Any:
        """An argument, with the tensor of the program that it names."""
        if not isinstance(value, Name):
            return value
        if value not in self.constants:
            raise TightlipError("multiplies values by one another, and no constant bounds that on all inputs")
        return self.constants[value]

    def _inputs(self, tensors: Mapping[str, Tensor]) -> None:
        for spec in self._signature["input_specs"]:
            ((kind, about),) = spec.items()
            if kind == "user_input" and "as_tensor" in about["arg"] and not self._values:
                self._values[about["arg"]["as_tensor"]["name"]] = 0
            elif kind in ("parameter", "buffer", "tensor_constant"):
                name, full = about["arg"]["name"], about[f"{kind}_name"]
                self.constants[name] = tensors[full]
                self._owners[id(tensors[full])] = full.rpartition(".")[0]
            else:
                raise TightlipError("it takes more than one tensor: export a network of one input")
        if not self._values:
            raise TightlipError("it takes no tensor: export a network of one input")

    def _read(self, name: str, node: Mapping[str, Any]) -> None:
        given = {each["name"]: _value(each["arg"]) for each in node["inputs"]}
        outputs = [each for output in node["outputs"] for each in _names(output)]
        first = next(iter(given.values()), None)
        if name not in OPERATORS and name not in HANDLERS and "_." in name:  # relu_: it overwrites what it takes
            if not isinstance(first, Name):
                raise TightlipError(reason(name))
            if first in self.constants:
                raise TightlipError("writes to a tensor of the network: export network.eval()")
            self._refuse_shared(first)
            name = name.replace("_.", ".", 1)
        if name in ON_CONSTANTS and isinstance(first, Name) and first in self.constants:
            self.constants[outputs[0]] = ON_CONSTANTS[name](self.constants[first], given)
            return
        taken = [each for each in given.values() if isinstance(each, Name)]
        if taken and all(each in self.constants for each in taken):
            raise TightlipError(
                "computes with tensors of the network alone: export a network with the result as a parameter or buffer"
            )
        if not name.startswith(_FRESH) and isinstance(first, Name):
            self._shares |= dict.fromkeys(outputs, first)
        if name in HANDLERS:
            HANDLERS[name](self, outputs, given)
        elif name in OPERATORS and isinstance(first, Name):
            if name.startswith("conv") and first not in self.constants:
                self._refuse_unbatched(first, given["weight"])
            others = [(key, self.filled(value)) for key, value in [*given.items()][1:]]
            self.layer(outputs[0], OPERATORS[name](**dict(others)), first, self.owner([value for _, value in others]))
        else:
            raise TightlipError(reason(name))

    def _number(self, name: str) -> int:
        if name in self._pieces and name not in self._values:
            self.layer(name, self._pieces[name].layer, self._pieces[name].source)
        if name in self.orders and name not in self._values:
            raise TightlipError("takes the larger or the smaller of two values, of which no rule speaks")
        if name not in self._values:
            raise TightlipError("takes a tensor outside of a layer")
        return self._values[name]

    def _refuse_unbatched(self, image: str, weight: str) -> None:
        """Raise if a convolution takes the first axis for channels: what scales axis 1 before it is not merged then."""
        if len(self.shape(image)) != len(self.filled(weight).shape):
            raise TightlipError("takes an image without a batch: export with inputs (batch, channels, …)")

    def _refuse_shared(self, name: Any) -> None:
        """Raise if what is overwritten, or what shares memory with it, is used by another operator as well."""
        while name is not None:
            if self._uses[name] > 1:
                raise TightlipError("works in place on a tensor that is used again: give it inplace=False")
            name = self._shares.get(name)

    def _outputs(self) -> None:
        names = []
        for spec in self._signature["output_specs"]:
            ((kind, about),) = spec.items()
            if kind != "user_output" or "as_tensor" not in about["arg"]:
                raise TightlipError(f"it has a {kind.replace('_', ' ')}: export network.eval(), which returns tensors")
            names.append(about["arg"]["as_tensor"]["name"])
        if len(names) > 1:
            self._rows.append((Outputs(*("" for _ in names)), tuple(map(self._number, names))))
        elif self._number(names[0]) != len(self._rows):
            self._rows.append((Sum(1.0), (self._number(names[0]),)))


def _called(target: str) -> str:
    """What an operator is called in a sentence."""
    name = target.removeprefix(_ATEN)
    return name.removeprefix("torch.ops.").removesuffix(".default") if name == target else name.partition(".")[0]


def _needed(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes that outputs are made of, and those that may do something else than make what they return."""
    found: list[Mapping[str, Any]] = []
    wanted = {name for output in graph["outputs"] for name in _names(output)}
    for node in reversed(graph["nodes"]):
        makes = {each for output in node["outputs"] for each in _names(output)}
        if makes & wanted or not _is_idle(node["target"], makes):
            found.append(node)
            wanted |= {name for each in node["inputs"] for name in _names(each["arg"])}
    return found[::-1]


def _is_idle(target: str, makes: set[str]) -> bool:
    """Whether an operator does nothing where what it makes is not used.

    Those that write to what they take, or to anything else, are no such, nor is any that torch's own list has not.
    """
    if not target.startswith(_ATEN):
        return False
    name, _, overload = target.removeprefix(_ATEN).partition(".")
    found = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
    if name.startswith(_IDLE):
        return True
    pure = isinstance(found, torch._ops.OpOverload) and not found._schema.is_mutable
    return pure and bool(makes) and "batch_norm" not in name  # which writes statistics, though its schema is silent


def _names(argument: Mapping[str, Any]) -> list[str]:
    """The tensors in an argument."""
    ((kind, value),) = argument.items()
    if kind == "as_tensor":
        return [value["name"]]
    return [each["name"] for each in value] if kind == "as_tensors" else []


def _value(argument: Mapping[str, Any]) -> Any:
    """An argument as Python has it: a number, a list, a `Name` of a tensor, a `Size`."""
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_tensors"):
        names = [Name(name) for name in _names(argument)]
        return names[0] if kind == "as_tensor" else names
    if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
        return value
    if kind in ("as_sym_int", "as_sym_ints"):
        sizes = [value] if kind == "as_sym_int" else value
        found = [each["as_int"] if "as_int" in each else Size(each["as_name"]) for each in sizes]
        return found[0] if kind == "as_sym_int" else found
    raise TightlipError(f"has an argument of which no rule speaks ({kind.removeprefix('as_').replace('_', ' ')})")
