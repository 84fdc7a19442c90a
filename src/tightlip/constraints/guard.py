"""What a step-held layer remembers, and the guard that refuses a forward pass on a weight that has left its set."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..audit import TRUSTED_HOOKS
from ..errors import TightlipError
from .constraint import Constraint
from .coordinate import Coordinate, refuse_half
from .fingerprint import Mark, mark


@dataclass
class Held:
    """The set of a layer's weight, how it is moved, and how it looked when it was last known to be a member."""

    constraint: Constraint
    coordinate: Coordinate
    seen: Mark | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        return Held(self.constraint, self.coordinate)  # a copied tensor counts its versions anew

    def __reduce__(self) -> tuple[Any, ...]:
        return Held, (self.constraint, self.coordinate)


def held(layer: nn.Module) -> Held | None:
    """The record of a step-held layer, or None."""
    return vars(layer).get("_held")


def attach(layer: nn.Linear, constraint: Constraint, coordinate: Coordinate) -> None:
    """Make the layer remember its set, whose member its weight is, and watch for steps that nobody folded."""
    layer.register_forward_pre_hook(refuse_unfolded)
    layer._held = Held(constraint, coordinate, mark(layer.weight))  # type: ignore[assignment]


def refuse_unfolded(layer: nn.Linear, args: Any) -> None:
    """The forward pre-hook of step-held layers: raises if the weight was moved off its set."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(layer.weight):
        return  # values cannot be looked at here
    record = held(layer)
    if record is None or layer.weight.is_inference() or mark(layer.weight) == record.seen:
        return
    refuse_half(layer.weight)
    if not record.constraint.contains(layer.weight.detach()):
        raise TightlipError(
            f"the weight of {layer} has left {record.constraint} without being pulled back: call "
            "tightlip.hold(network, optimizer) before the first step; one that was overwritten (a checkpoint, .data, "
            "an average of weights) is put back by the next such step, or in the copy that freeze(network) makes"
        )
    record.seen = mark(layer.weight)


TRUSTED_HOOKS.add(refuse_unfolded)
