"""`Graph`: layers, and a table of which takes what. The table is audited, certified, frozen, saved and served."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..audit import Concat, Gains, Join, Part, Sum, container
from ..errors import TightlipError
from ..layers import Scale
from ..options import FLAG, Kind
from .arithmetic import Offset
from .axes import Unsqueeze

Row = tuple[str | Join, tuple[int, ...]]
"""The key of a layer, or a join, and the values that it takes: 0 is the input, i + 1 what row i makes."""


class Outputs(Join):
    """Several outputs: a tuple, or a dictionary where they have names. To the audit they are one long vector."""

    def __init__(self, *names: str) -> None:
        if any(names) and (not all(names) or len({*names}) < len(names)):
            raise TightlipError(f"outputs are called {', '.join(map(repr, names))}: give each its own name")
        self.names = names

    def __call__(self, *values: Tensor) -> Any:
        """The values, as a tuple or a dictionary."""
        return dict(zip(self.names, values, strict=True)) if all(self.names) else values

    def gains(self, terms: Sequence[Gains]) -> Gains:
        """Those of one long vector."""
        return Gains.beside(terms)

    def error(self, errors: Sequence[Tensor], sizes: Sequence[Tensor], gamma: Callable[[int], float]) -> Tensor:
        """Several outputs have several errors: one of them is certified, and its error is its own."""
        raise TightlipError("this network has several outputs: say which one, as in certify(…, output=0)")

    def __repr__(self) -> str:
        return f"Outputs({', '.join(map(repr, filter(None, self.names)))})"


class Graph(nn.Module):
    """Layers and a table of which takes what: made by `trace`, trained, exported and saved as any module is.

    Args:
        layers: The modules, by their keys.
        table: Rows of an operation (a key of ``layers``, or a join) and the values that it takes. The last row makes
            the output; without rows it is the input.

    Raises:
        TightlipError: for a row that calls what is not there, or takes what is not made by then.

    >>> import torch
    >>> Graph({"relu": nn.ReLU()}, [("relu", (0,)), (Sum(1.0, 1.0), (0, 1))])(torch.tensor([[-1.0, 2.0]]))
    tensor([[-1.,  4.]])
    """

    def __init__(self, layers: Mapping[str, nn.Module], table: Sequence[Row]) -> None:
        super().__init__()
        self.eval_only = False  # whether what was traced does something else in training
        for key, layer in layers.items():
            if hasattr(self, key):
                raise TightlipError(f"a layer of a graph cannot be called {key!r:.60}: choose another key")
            self.add_module(key, layer)
        self.table = tuple((operation, tuple(inputs)) for operation, inputs in table)
        for number, (operation, inputs) in enumerate(self.table):
            if not isinstance(operation, Join) and operation not in self._modules:
                raise TightlipError(f"row {number} of a graph calls {operation!r:.60}, which is none of its layers")
            if isinstance(operation, Outputs) and number + 1 < len(self.table):
                raise TightlipError(f"row {number} of a graph makes several outputs: only the last one can")
            wanted = 1 if isinstance(operation, str) else len(operation.weights) if isinstance(operation, Sum) else None
            fits = bool(inputs) and wanted in (None, len(inputs))
            if not fits or not all(type(i) is int and 0 <= i <= number for i in inputs):
                raise TightlipError(f"row {number} of a graph, {operation}, cannot take the values {inputs!r:.60}")

    def forward(self, x: Tensor) -> Any:
        """What the last row makes of the input (batch, …); what a layer in place could spoil for others is copied."""
        values: list[Any] = [x]
        in_place = any(getattr(module, "inplace", False) for module in self.modules())
        uses = Counter(i for _, inputs in self.table for i in inputs) if in_place else Counter()
        for operation, inputs in self.table:
            taken = [values[i].clone() if uses[i] > 1 else values[i] for i in inputs]
            values.append(operation(*taken) if isinstance(operation, Join) else self._called(operation, *taken))
        return values[-1]

    def train(self, mode: bool = True) -> "Graph":
        """As of any module.

        Raises:
            TightlipError: for training, if the forward that was traced did something else there.
        """
        if mode and self.eval_only:
            raise TightlipError(
                "the forward that this graph was traced from does something else in training: train that network, "
                "and trace it in eval mode"
            )
        return super().train(mode)

    def extra_repr(self) -> str:
        """The table: value 0 is the input."""
        return "\n".join(
            f"value {number} = {operation}({', '.join(f'value {i}' for i in inputs)})"
            for number, (operation, inputs) in enumerate(self.table, 1)
        )

    def _called(self, key: str, value: Tensor) -> Any:
        layer = self._modules[key]
        assert layer is not None
        if value.dim() < 2 and type(layer) not in _OF_ONE_AXIS:
            raise TightlipError(
                f"{key}, a {type(layer).__name__}, takes values of shape {list(value.shape)}, whose last axis is "
                "that of the batch: take axes away after the last layer, or add one with unsqueeze(1)"
            )
        return layer(value)

    @property
    def outputs(self) -> tuple[int | str, ...]:
        """The names of several outputs, or their numbers; nothing if there is one."""
        last = self.table[-1][0] if self.table else None
        if not isinstance(last, Outputs):
            return ()
        return last.names if all(last.names) else tuple(range(len(last.names)))

    def only(self, output: int | str | None) -> "Graph":
        """The graph with one of its several outputs, by its number or its name, and of its layers those that it needs.

        Raises:
            TightlipError: if there is none of that number or name.
        """
        if not self.outputs:
            raise TightlipError("this network has one output: leave out output=")
        named = dict(zip(self.outputs, self.table[-1][1], strict=True))
        if output not in named:
            choices, asked = ", ".join(map(repr, named)), "" if output is None else f", none of them {output!r}"
            raise TightlipError(f"this network has several outputs{asked}: give output= one of {choices}")
        needed = self._needed(named[output])
        place = {0: 0} | {number: new for new, number in enumerate(needed, 1)}
        rows = [self.table[number - 1] for number in needed]
        table = [(operation, tuple(place[i] for i in inputs)) for operation, inputs in rows]
        called = {operation for operation, _ in table if isinstance(operation, str)}
        layers = {key: layer for key, layer in self.named_children() if key in called}
        graph = Graph(layers, [*table, (Sum(1.0), (place[named[output]],))])
        graph.eval_only, graph.training = self.eval_only, self.training
        return graph

    def _needed(self, output: int) -> list[int]:
        """The numbers of the values that one value is made of, and its own."""
        found, todo = set[int](), [output]
        while todo:
            number = todo.pop()
            if number and number not in found:
                found.add(number)
                todo += self.table[number - 1][1]
        return sorted(found)

    @property
    def rows(self) -> list[list[Any]]:
        """The table as files have it: lists of an operation, its options, and numbers of values."""
        return [[*_as_row(operation), list(inputs)] for operation, inputs in self.table]


_OF_ONE_AXIS = (Unsqueeze, Offset, Scale, nn.Identity)
"""Layers for values (batch,): they do not take the last axis for features."""

_JOINS: dict[str, type[Join]] = {"Sum": Sum, "Concat": Concat, "Outputs": Outputs}


def _as_row(operation: str | Join) -> tuple[str, list[Any]]:
    if isinstance(operation, Sum):
        return "Sum", list(operation.weights)
    if isinstance(operation, Concat):
        return "Concat", [operation.dim]
    if isinstance(operation, Outputs):
        return "Outputs", list(operation.names)
    return f"layer {operation}", []


def _is_table(rows: Any) -> bool:
    def is_row(row: Any) -> bool:
        return isinstance(row, list) and [type(part) for part in row] == [str, list, list]

    return isinstance(rows, list) and all(map(is_row, rows))


def _from_rows(modules: Mapping[str, nn.Module], rows: Sequence[Any], eval_only: bool) -> Graph:
    table: list[Row] = []
    for name, options, inputs in rows:
        operation = name.removeprefix("layer ") if name.startswith("layer ") else _JOINS[name](*options)
        table.append((operation, tuple(inputs)))
    graph = Graph(modules, table)
    graph.eval_only = eval_only
    return graph


_OPTIONS = {"rows": Kind("a list of operations, their options and their values", _is_table), "eval_only": FLAG}


@container(Graph, build=_from_rows, options=_OPTIONS)
def _graph(module: Graph) -> list[Part]:
    return [
        Part(f"value {number}", operation, inputs)
        if isinstance(operation, Join)
        else Part(operation, module._modules[operation], inputs)
        for number, (operation, inputs) in enumerate(module.table, 1)
    ]
