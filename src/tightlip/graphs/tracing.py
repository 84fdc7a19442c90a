"""`trace`: what a forward of the user's own does, as a `Graph`, found by torch.fx and checked.

A trace shows what happened once, so it can lie. `Graph` is therefore what is audited and served, never the Python code,
and what a table cannot say is refused, each in a sentence: branches on data, tensors outside of layers, shapes that
would be broadcast, general indexing, in-place work on what is used again, code in ``__call__`` or hooks, randomness,
and forwards that change the module.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ..audit import Join, is_traced, registered, trace_with
from ..audit.trust import original_type
from ..errors import TightlipError
from .graph import Graph
from .reading import Table, followed

_CONTEXTS: dict[str, Callable[[], Any]] = {
    "torch.enable_grad": torch.enable_grad,
    "torch.no_grad": torch.no_grad,
    "torch.inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}
"""What code can ask about beside its input; a forward must not."""

_COMPARED = 16
"""How many inputs a forward and its trace are compared on."""


def trace(network: nn.Module) -> Graph:
    """A `Graph` that shares its layers with ``network`` and computes what its forward did, in eval mode.

    Where the forward itself asks for the mode (``if self.training``, ``F.dropout(x, 0.5, self.training)``), a network
    in training is refused, and the graph of one in eval mode cannot be trained; ``nn.Dropout`` and its kin can.

    Args:
        network: A module whose forward takes one tensor and returns one, or a tuple or a dictionary of several. What
            it calls must be layers with rules, containers of such, functions of torch that are such layers (``relu``,
            ``flatten``, pooling, …), sums, differences, products with numbers, ``cat``, slices, ``chunk``, ``split``.

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
    known, before = set(vars(network)), _state(network)
    try:
        as_it_is = _lines(network)
        _set(dict.fromkeys(modes, False))
        table = _repeated(network, before)
        _refuse_questions(network, table)
        if as_it_is != table.lines:
            raise TightlipError("it does something else in training: call network.eval() first")
        _set(dict.fromkeys(modes, True))
        in_training = _lines(network)
    except TightlipError as problem:
        name = type(network).__name__
        raise TightlipError(f"the forward of {name} cannot be audited: {problem}") from problem
    finally:
        _set(modes)
        for name in set(vars(network)) - known:  # torch.fx keeps constant tensors there
            delattr(network, name)
    graph = Graph(table.layers, table.rows)
    graph.eval_only, graph.training = in_training != table.lines, network.training  # layers keep their own modes
    return graph


def _repeated(network: nn.Module, before: list[Any]) -> Table:
    """A trace that comes out the same again, and leaves the module as it was ``before``."""
    table, drawn = Table(network), _generators()
    again = [_lines(network)]
    if _generators() != drawn:  # a type checker may draw, which is no matter; a coin that decides will show
        again += [_lines(network) for _ in range(16)]
    if _state(network) != before:
        raise TightlipError("it changes the module, so the next call may do something else")
    if any(lines != table.lines for lines in again):
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


def _set(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


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


@torch.no_grad()
def refuse_disagreement(network: nn.Module, graph: nn.Module, x: torch.Tensor) -> None:
    """Raise where a forward makes something else of a few inputs (batch, …) than the graph that it was traced to.

    A trace cannot see all that a forward does: it may ask whether its input is a tensor at all. Both are computed in
    eval mode, in the type of the network's own numbers.
    """
    if graph is network:
        return
    like = next((t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()), x)
    x = x[:_COMPARED].to(like.device, like.dtype)
    modes = {module: module.training for module in network.modules()}
    _set(dict.fromkeys(modes, False))
    try:
        made, traced = (tree_leaves(each(x.clone())) for each in (network, graph))
    finally:
        _set(modes)
    if len(made) != len(traced) or not all(map(_alike, made, traced)):
        raise TightlipError(
            f"the forward of {type(network).__name__} makes of these inputs what its trace does not: it may depend on "
            "what it is called with. Certify what tightlip.trace(network) found, or write a plain forward"
        )


def _alike(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    size = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * size, equal_nan=True)


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


trace_with(trace)
