"""What is looked at once, before any input: a frozen network as a table, its audit, and its copy in float64."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..audit import Audit, Bound, Gains, audit, bound_of
from ..constraints import constraint_of
from ..errors import TightlipError
from ..graphs.agreement import refuse_disagreement
from ..graphs.graph import Graph
from ..graphs.tracing import as_graph
from ..norms import as_norm
from .evaluation import Wide, wide


class Examined(NamedTuple):
    """A frozen network with one output, and what is known of it before any input.

    Args:
        network: As it is served, traced where its forward is the user's own.
        audited: What its rules say.
        bound: Its constant from the norm of the perturbations.
        reached: How fast what each node makes changes, and before these the input itself, per unit of the norm in
            which perturbations are measured; `Audit.reached` unless that is another than the input's.
        wide: Its copy in float64.
        device: Where it lies; None if it has no tensors, so that it works anywhere.
        compare: Refuses inputs on which the traced network is not the given one.
    """

    network: nn.Module
    audited: Audit
    bound: Bound
    reached: tuple[Gains, ...]
    wide: Wide
    device: torch.device | None
    compare: Callable[[Tensor], None]

    @property
    def p(self) -> float:
        """The norm of the perturbations."""
        return self.bound.input_norm


def refuse_held(network: Any, verb: str) -> None:
    """Raise unless this is a network without constraints; ``verb`` is the function that asks."""
    if not isinstance(network, nn.Module):
        raise TightlipError(f"{verb} takes the network first and inputs second, got a {type(network).__name__} first")
    if any(constraint_of(layer) is not None for layer in network.modules()):
        raise TightlipError(f"this network is still held by constraints: {verb}(freeze(network), …) instead")


def examined(network: nn.Module, p: float, output: int | str | None = None) -> Examined:
    """A frozen network, audited.

    Args:
        network: What `refuse_held` lets pass.
        p: The norm of the perturbations.
        output: Of several outputs the one that answers.

    Raises:
        TightlipError: if it cannot be audited or evaluated, or has several outputs and none is chosen.
    """
    graph = as_graph(network)
    compare = functools.partial(refuse_disagreement, network, graph)
    network = _answering(graph, output)
    audited = audit(network)
    device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)
    bound = bound_of(audited, as_norm(p))
    return Examined(network, audited, bound, audited.reached, wide(network, audited), device, compare)


def _answering(network: nn.Module, output: int | str | None) -> nn.Module:
    """The network with the output that answers."""
    if isinstance(network, Graph) and (output is not None or network.outputs):
        return network.only(output)
    if output is not None:
        raise TightlipError("this network has one output: leave out output=")
    return network
