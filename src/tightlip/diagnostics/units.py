"""How often the units of a network are positive: at every input, they are "undead" and fold nothing; at none, dead.

    positive_i = share of inputs x with φ(z(x))_i > 0

A ReLU network under a Lipschitz constraint keeps its units positive to keep its gradient (paper §3 and §7.1).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..arguments import called, integer, number
from .subject import checked, copied

_HOMES = {"tightlip.activations", "torch.nn.modules.activation"}
"""The Python modules whose classes, and subclasses of them, count as activations."""


@dataclass(frozen=True)
class ActivationStatistics:
    """How often the units of one activation layer are positive.

    ``positive`` holds, for each entry of the layer's output (flattened), the share of inputs at which it is > 0.
    """

    name: str
    module: str
    positive: Float[Tensor, " units"]

    @property
    def always(self) -> float:
        """The share of units that are positive at every input: "undead", if they are ReLUs."""
        return self.at_least(1.0)

    @property
    def never(self) -> float:
        """The share of units that are positive at no input: dead, if they are ReLUs."""
        return float((self.positive == 0).double().mean())

    def at_least(self, tau: float) -> float:
        """The share of units that are positive at least as often as ``tau``: a point of Figure 6 (right).

        Raises:
            TightlipError: unless ``tau`` is in [0, 1].
        """
        return float((self.positive >= number("tau", tau, least=0, most=1)).double().mean())


@torch.no_grad()
def activation_statistics(
    network: nn.Module, x: Float[Tensor, "batch ..."], batch_size: int = 1024
) -> tuple[ActivationStatistics, ...]:
    """How often each unit is positive over the inputs: one entry per activation layer, in the order of evaluation.

    Activation layers are the modules of `tightlip.activations` and of torch; a function that a ``forward`` calls is not
    seen. A module that is used twice gives two entries. Source: paper §7.1, Figure 6 (right).

    Args:
        network: Any module that treats each example by itself; evaluated in eval mode.
        x: Inputs (batch, …).
        batch_size: Inputs at once.

    Raises:
        TightlipError: if there are no inputs.

    >>> (relu,) = activation_statistics(nn.ReLU(), torch.tensor([[1.0, -1.0], [2.0, 3.0]]))
    >>> relu.positive.tolist(), relu.always, relu.never
    ([1.0, 0.5], 0.5, 0.0)
    """
    x, network = checked(x), copied(network)
    calls: list[tuple[nn.Module, Tensor]] = []
    names = _names(network)
    for module in names:  # of the copy, which takes its hooks with it
        module.register_forward_hook(lambda module, _, y: calls.append((module, (y > 0).reshape(len(y), -1).sum(0))))
    totals: list[Tensor] = []
    for piece in x.split(integer("batch_size", batch_size)):
        calls.clear()
        called(network, piece)
        counts = [count for _, count in calls]
        totals = [total + count for total, count in zip(totals, counts, strict=True)] if totals else counts
    return tuple(
        ActivationStatistics(_next(names[module]), repr(module), total.double() / len(x))
        for (module, _), total in zip(calls, totals, strict=True)
    )


def _names(network: nn.Module) -> dict[nn.Module, list[str]]:
    """The activation layers with the names they go by, one for each place in which a Sequential uses them."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        homes = {cls.__module__ for cls in type(module).__mro__}
        if homes & _HOMES and not isinstance(module, nn.MultiheadAttention):
            names.setdefault(module, []).append(name)
    return names


def _next(names: list[str]) -> str:
    """The name of one more use of a module; the last one stays."""
    return names.pop(0) if len(names) > 1 else names[0]
