"""What a step-held layer remembers, and the guard that refuses to compute with a weight that has left its set.

The guard looks before a forward pass. Where values cannot be looked at there, in a compiled or traced network, it looks
when the gradient arrives. Both see a sample of the entries; all bytes are looked at by the next step.
"""

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..audit import TRUSTED_HOOKS
from ..errors import TightlipError
from .carrier import Layer
from .constraint import Constraint
from .coordinate import Coordinate, refuse_half
from .fingerprint import Mark, mark


@dataclass(eq=False)
class Held:
    """The set of a layer's weight, how it is moved, and how it looked when it was last known to be a member.

    ``looked`` says whether the weight was looked at since its last gradient arrived; ``weight`` is the one whose
    gradients are waited for.
    """

    constraint: Constraint
    coordinate: Coordinate
    seen: Mark | None = None
    looked: bool = False
    weight: nn.Parameter | None = None

    def see(self, weight: Tensor, sharded: bool = False) -> None:
        """Remember how a member looks; where it is sharded, the parameter that forward passes know looks like it."""
        self.seen = mark(weight)
        if sharded and self.weight is not None:
            self.seen = Mark(id(self.weight), self.weight._version, self.seen.sample)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        # a copied tensor counts its versions anew
        return _record(self.constraint, self.coordinate, copy.deepcopy(self.weight, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _record, (self.constraint, self.coordinate, self.weight)


def _record(constraint: Constraint, coordinate: Coordinate, weight: nn.Parameter | None) -> Held:
    record = Held(constraint, coordinate)
    if weight is not None:
        _watch(record, weight)
    return record


def held(layer: nn.Module) -> Held | None:
    """The record of a step-held layer, or None."""
    return vars(layer).get("_held")


def attach(layer: Layer, constraint: Constraint, coordinate: Coordinate) -> None:
    """Make the layer remember its set, whose member its weight is, and watch for steps that nobody folded."""
    layer.register_forward_pre_hook(refuse_unfolded)
    layer._held = record = Held(constraint, coordinate, mark(layer.weight))  # type: ignore[assignment]
    _watch(record, layer.weight)


def refuse_unfolded(layer: Layer, args: Any) -> None:
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
    _watch(record, layer.weight)
    _refuse_strangers(record, weight, f"the weight of {layer}")


def _refuse_strangers(record: Held, weight: Tensor, name: str) -> None:
    """Raise where a weight that looks otherwise than before is no member of its set."""
    if weight.is_inference() or mark(weight) == record.seen:
        return
    refuse_half(weight)
    with torch._C._DisableFuncTorch():  # what is unwrapped shall stay so: proven bounds read its memory
        member = record.constraint.contains(weight.detach())
    if not member:
        raise TightlipError(
            f"{name} has left {record.constraint} without being pulled back: call tightlip.hold(network, optimizer) "
            "for the optimizer that trains it, also where both are copies. One that was overwritten (by a checkpoint, "
            ".data, an average of weights) is put back when hold is called again, or in the copy that freeze(network) "
            "makes"
        )
    if weight.is_cpu or record.seen is None or record.seen.identity == id(weight):
        record.seen = mark(weight)  # else it was sharded, and writes to its parts do not count here


class _Late:
    """Looks at a weight when its gradient arrives, if no forward pass could."""

    def __init__(self, record: Held) -> None:
        self.record = weakref.ref(record)

    def __call__(self, weight: Tensor) -> None:
        record = self.record()
        if record is None or record.weight is not weight or torch.compiler.is_compiling():
            return
        if not record.looked:
            _refuse_strangers(record, weight, f"a weight of shape {tuple(weight.shape)}")
        record.looked = False


def _watch(record: Held, weight: Tensor) -> None:
    """Have the gradients of a weight waited for, once."""
    if record.weight is weight or type(weight) is not nn.Parameter or not weight.requires_grad:
        return
    record.weight = weight
    hooks = (weight._post_accumulate_grad_hooks or {}).values()  # type: ignore[attr-defined]
    if not any(isinstance(hook, _Late) and hook.record() is record for hook in hooks):
        weight.register_post_accumulate_grad_hook(_Late(record))


TRUSTED_HOOKS.add(refuse_unfolded)
