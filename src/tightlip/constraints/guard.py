"""What a step-held layer remembers, and the guard that refuses to compute with a weight that has left its set.

The guard looks before a forward pass. Where values cannot be looked at there, in a compiled or traced network, it looks
when the gradient arrives. Both see a sample of the entries; all bytes are looked at by the next step.
"""

import functools
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
    looked: bool = False  # since the last gradient arrived
    watched: int = 0  # the identity of the weight whose gradients are waited for

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
    layer._held = record = Held(constraint, coordinate, mark(layer.weight))  # type: ignore[assignment]
    _watch(layer, record)


def refuse_unfolded(layer: nn.Linear, args: Any) -> None:
    """The forward pre-hook of step-held layers: raises if the weight was moved off its set."""
    record = held(layer)
    if record is None or torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return
    weight: Tensor = layer.weight
    while torch._C._functorch.is_functorch_wrapped_tensor(weight):
        if torch._C._functorch.is_batchedtensor(weight):  # several networks at once
            return
        weight = torch._C._functorch.get_unwrapped(weight)
    record.looked = True
    _watch(layer, record)
    if weight.is_inference() or mark(weight) == record.seen:
        return
    refuse_half(weight)
    if not record.constraint.contains(weight.detach()):
        raise TightlipError(
            f"the weight of {layer} has left {record.constraint} without being pulled back: call "
            "tightlip.hold(network, optimizer) for the optimizer that trains it, also where both are copies. One "
            "that was overwritten (by a checkpoint, .data, an average of weights) is put back by its next step, or in "
            "the copy that freeze(network) makes"
        )
    record.seen = mark(weight)


def _watch(layer: nn.Linear, record: Held) -> None:
    weight = layer.weight
    if record.watched != id(weight) and type(weight) is nn.Parameter and weight.requires_grad:
        weight.register_post_accumulate_grad_hook(functools.partial(_refuse_late, weakref.ref(layer)))
        record.watched = id(weight)


def _refuse_late(reference: "weakref.ref[nn.Linear]", weight: Tensor) -> None:
    layer = reference()
    record = None if layer is None else held(layer)
    if layer is None or record is None or layer._parameters.get("weight") is not weight:
        return
    if not record.looked:
        refuse_unfolded(layer, None)
    record.looked = False


TRUSTED_HOOKS.add(refuse_unfolded)
