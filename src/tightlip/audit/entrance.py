"""A network entered elsewhere: behind its first layer, or through a layer that is put before it.

    f = g ∘ first    `behind_first`  what is proven of g, whose input is what the first layer makes
    f ∘ layer        `entered_by`    what is proven of f where its input is what the layer makes

Nodes are what they were, so what is proven of each alone is taken over; only their composition is done again.
"""

from torch import nn

from ..errors import TightlipError
from .graph import Node, Nodes
from .lipschitz import Audit, audit, composed


def behind_first(audited: Audit) -> Audit:
    """The audit of all that follows the first layer.

    Raises:
        TightlipError: if there is no such layer, or others take the input as well.
    """
    nodes, output = audited.network
    if not nodes or output == 0 or any(0 in node.inputs for node in nodes[1:]):
        raise TightlipError("this network does not begin with one layer that all others follow: put that layer first")
    return composed(Nodes(_moved(nodes[1:], -1), output - 1), audited.known[1:])


def entered_by(audited: Audit, layer: nn.Module) -> Audit:
    """The audit of the network after ``layer``, one module with a rule."""
    first = audit(layer)
    nodes = (*first.network.nodes, *_moved(audited.network.nodes, 1))
    return composed(Nodes(nodes, audited.network.output + 1), (*first.known, *audited.known))


def _moved(nodes: tuple[Node, ...], by: int) -> tuple[Node, ...]:
    """Nodes with all the values that they take renumbered."""
    return tuple(Node(name, operation, tuple(i + by for i in inputs)) for name, operation, inputs in nodes)
