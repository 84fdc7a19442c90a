"""A `Graph` as a module of torch.fx, whose forward is written out: what torch.jit.script can read."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..audit import Concat, Join, Sum
from ..errors import TightlipError
from .graph import Graph, Outputs


def as_fx(network: nn.Module) -> fx.GraphModule:
    """A `torch.fx.GraphModule` that shares its layers with a `Graph` and does the same.

    torch.jit.script cannot read the table of a graph, and can read this: ``torch.jit.script(as_fx(frozen))``. It checks
    no shapes: sums of values of different shapes, which the graph refuses, would be broadcast.

    Args:
        network: A `Graph`, such as `freeze` and `trace` return of a network with a forward of its own.

    Raises:
        TightlipError: for any other module; an `nn.Sequential` can be scripted as it is.

    >>> graph = Graph({"relu": nn.ReLU()}, [("relu", (0,)), (Sum(1.0, 1.0), (0, 1))])
    >>> as_fx(graph)(torch.tensor([[-1.0, 2.0]]))
    tensor([[-1.,  4.]])
    """
    if type(network) is not Graph:
        raise TightlipError(f"as_fx takes a Graph, got a {type(network).__name__}: script any other module as it is")
    table = fx.Graph()
    values = [table.placeholder("x")]
    uses = Counter(i for _, inputs in network.table for i in inputs)
    for operation, inputs in network.table:
        if isinstance(operation, Join):
            values.append(_joined(table, operation, [values[i] for i in inputs]))
        else:
            value = values[inputs[0]]
            spoils = any(getattr(module, "inplace", False) for module in network.get_submodule(operation).modules())
            taken = table.call_method("clone", (value,)) if spoils and uses[inputs[0]] > 1 else value
            values.append(table.call_module(operation, (taken,)))
    table.output(values[-1])
    return fx.GraphModule(dict(network.named_children()), table).train(network.training)


def _joined(table: fx.Graph, join: Join, values: Sequence[fx.Node]) -> Any:
    if isinstance(join, Outputs):
        return join(*values)  # type: ignore[arg-type]  # it puts them together, whatever they are
    if isinstance(join, Concat):
        return table.call_function(torch.cat, (list(values), join.dim))
    assert isinstance(join, Sum)
    terms = [
        value if w == 1 else table.call_function(torch.mul, (value, w))
        for w, value in zip(join.weights, values, strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = table.call_function(torch.add, (total, term))
    return total
