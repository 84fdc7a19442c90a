"""What each type of layer becomes: one registration per *exact* module type, as the audit has its rules.

A conversion is a function from a layer and its `Place` to a `Change`. What is registered nowhere is kept, where the
audit proves a constant of it that training cannot change (`keeping`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...audit import Gains, registered, rule
from ...audit.trust import original_type
from ...errors import TightlipError
from .forms import Form
from .keeping import held_already, kept


@dataclass(frozen=True)
class Place:
    """Where a layer stands: its name, the norm p, what is known of its input, and what is around it.

    ``ends`` says that its result is the network's output, but for its shape; ``tied`` that its weight is one tensor
    with that of another layer.
    """

    name: str
    norm: float
    form: Form
    ends: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Change:
    """What a layer becomes, and why.

    ``layer`` takes its place; None: nothing does. Where more than 1 is proven for it from p to p, it is divided by
    that; with ``full``, for linear maps without weights, less than 1 is brought to 1 as well.
    """

    layer: nn.Module | None
    reason: str
    full: bool = False


Conversion = Callable[[Any, Place], Change]
_KNOWN: dict[type[nn.Module], Conversion] = {}


def conversion(*types: type[nn.Module]) -> Callable[[Conversion], Conversion]:
    """Register the function below as what exactly these module types become in `convert`, never their subclasses.

    It takes the layer, which is a copy and may be changed in place, and its `Place`; it returns a `Change`, or raises a
    `TightlipError` that says why there is none. The types need no rule for the audit; what they become does.

    >>> from tightlip import MaxMin, convert
    >>> class Swish(nn.Module):
    ...     def forward(self, x): return x * x.sigmoid()
    >>> @conversion(Swish)
    ... def _(layer, place): return Change(MaxMin(), "sorting keeps the norm of gradients")
    >>> convert(nn.Sequential(nn.Linear(4, 4), Swish())).network[1]
    MaxMin(dim=-1)
    """

    def register(function: Conversion) -> Conversion:
        _KNOWN.update(dict.fromkeys(types, function))
        return function

    return register


def conversions() -> Mapping[type[nn.Module], Conversion]:
    """Every type that is registered."""
    return _KNOWN


def changed(layer: nn.Module, place: Place) -> Change:
    """What a layer becomes at its place.

    Raises:
        TightlipError: why there is nothing that it can become.
    """
    if isinstance(layer, StandIn):
        layer = layer.layer
    reason = held_already(layer, place.norm)
    if reason is not None:
        return Change(layer, reason)
    known = _KNOWN.get(original_type(layer))
    return Change(layer, kept(layer, place.norm)) if known is None else known(layer, place)


class StandIn(nn.Module):
    """Stands for a layer that conversions know as a whole, where the audit knows none or what it is made of."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        """What the layer does."""
        return self.layer(x)


@rule(StandIn)
def _stand_in(module: StandIn) -> Gains:
    raise TightlipError("a StandIn stands for a layer that is converted as a whole: audit what that becomes")


def with_stand_ins(network: nn.Module) -> nn.Module:
    """The network, with a `StandIn` for each layer that only conversions know as a whole; changed in place."""
    if _only_here(network):
        return StandIn(network)
    for module in list(network.modules()):
        for key, child in module._modules.items():
            if child is not None and not isinstance(module, StandIn) and _only_here(child):
                module._modules[key] = StandIn(child)
    return network


def _only_here(module: nn.Module) -> bool:
    known = registered().get(type(module))
    return type(module) in _KNOWN and (known is None or known.rule is None)
