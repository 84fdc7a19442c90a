"""`trace`: what a forward of the user's own does, as a `Graph`, found by torch.fx and checked.

A trace shows what happened once, so it can lie. `Graph` is therefore what is audited and served, never the Python code,
and what a table cannot say is refused, each in a sentence: branches on data, tensors outside of layers, shapes that
would be broadcast, general indexing, in-place work on what is used again, code in ``__call__`` or hooks, random numbers
and clocks, and forwards that change what the next call sees. Where layers tell what inputs look like, the forward and
its graph are also compared on some.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..audit import Join, is_traced, registered, trace_with
from ..audit.trust import original_type
from ..errors import TightlipError
from .agreement import refuse_other_results, set_modes
from .broadcasting import refuse_broadcasting
from .chance import refuse_chance
from .graph import Graph
from .memory import changed, remembered
from .placeholders import followed
from .reading import Table

_CONTEXTS: dict[str, Callable[[], Any]] = {
    "torch.enable_grad": torch.enable_grad,
    "torch.no_grad": torch.no_grad,
    "torch.inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}
"""What code can ask about beside its input; a forward must not."""


def trace(network: nn.Module) -> Graph:
    """A `Graph` that shares its layers with ``network`` and computes what its forward did, in eval mode.

    Where the forward itself asks for the mode (``if self.training``, ``F.dropout(x, 0.5, self.training)``), a network
    in training is refused, and the graph of one in eval mode cannot be trained; ``nn.Dropout`` and its kin can.

    Args:
        network: A module whose forward takes one tensor and returns one, or a tuple or a dictionary of several. What
            it calls must be layers with rules, containers of such, functions of torch that are such layers (``relu``,
            ``flatten``, ``amax``, pooling, …), sums, differences, products with numbers, ``cat``, slices, ``chunk``,
            ``split``.
            Lists and named tuples that it returns are plain tuples in the graph.

    Raises:
        TightlipError: for whatever else it does, with the line of the trace; for a network in training whose forward
            asks for it.

    >>> class Block(nn.Module):
    ...     def forward(self, x): return x + torch.relu(x)
    >>> from tightlip import lipschitz
    >>> lipschitz(trace(Block()), 2).constant
    2.0
    """
    if not isinstance(network, nn.Module):
        raise TightlipError(f"trace takes a network (nn.Module), got a {type(network).__name__}")
    modes = {module: module.training for module in network.modules()}
    known = set(vars(network))
    try:
        before = remembered(network)
        as_it_is = _lines(network)
        set_modes(dict.fromkeys(modes, False))
        table = _repeated(network, before)
        _refuse_questions(network, table)
        if as_it_is != table.lines:
            raise TightlipError("it does something else in training: call network.eval() first")
        graph = Graph(table.layers, table.rows)
        refuse_other_results(network, graph, refuse_broadcasting(graph))
        set_modes(dict.fromkeys(modes, True))
        in_training = _lines(network)
    except TightlipError as problem:
        name = type(network).__name__
        raise TightlipError(f"the forward of {name} cannot be audited: {problem}") from problem
    finally:
        set_modes(modes)
        for name in set(vars(network)) - known:  # torch.fx keeps constant tensors there
            delattr(network, name)
    graph.eval_only, graph.training = in_training != table.lines, network.training  # layers keep their own modes
    return graph


def _repeated(network: nn.Module, before: dict[str, Any]) -> Table:
    """A trace that comes out the same again, draws nothing, and leaves the module as it was ``before``."""
    table = Table(network)
    with refuse_chance():
        again = _lines(network)
    place = changed(before, remembered(network))
    if place is not None:
        raise TightlipError(f"it changes the module or what it uses ({place:.80}), so the next call may be another")
    if again != table.lines:
        raise TightlipError("two traces of it differ: it is random, or depends on what it did before")
    return table


def _refuse_questions(network: nn.Module, table: Table) -> None:
    """Raise where a forward asks in which mode of torch's it is called."""
    for mode, context in _CONTEXTS.items():
        with context():
            if _lines(network) != table.lines:
                raise TightlipError(f"it does something else under {mode}, and one table cannot say both")


def _lines(network: nn.Module) -> str | None:
    """The trace of a network in the mode that it is in; None where there is none."""
    try:
        return str(followed(network))
    except TightlipError:
        return None


def as_graph(network: nn.Module) -> nn.Module:
    """The network itself if all of it is known, else what `trace` makes of it."""
    found, seen = [network], set[int]()
    while found:  # not by recursion: containers may be nested a thousand deep
        module = found.pop()
        if id(module) in seen:  # it may contain itself
            continue
        seen.add(id(module))
        if is_traced(module):
            return trace(network)
        known = registered().get(original_type(module))
        if known is not None and known.expand is not None:
            found += [part.operation for part in known.expand(module) if not isinstance(part.operation, Join)]
    return network


trace_with(trace)
