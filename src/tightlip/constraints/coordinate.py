"""Who owns the gradient of a weight that lives on its set: the boundary between a constraint and an optimizer.

    attach(layer)    before training: the layer remembers its constraint
    before_step      after backward: the gradient is made tangent to the set
    fold_(layer)     after the optimizer's step: the weight is pulled back onto the set

`Ambient` trains the weight itself; `frame.Frame`, faster, turns it. `hold` ties the calls to an
optimizer; a forward pass on a weight that left its set without being folded raises.
"""

import abc
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..audit import TRUSTED_HOOKS
from ..errors import TightlipError
from .constraint import Constraint


class Coordinate(abc.ABC):
    """How a weight on a set is moved by an optimizer that knows nothing of the set."""

    def attach(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Make the layer remember its constraint and watch for steps that nobody folded."""
        layer.register_forward_pre_hook(refuse_unfolded)
        layer._held = Held(constraint, self, self.sighting(layer))  # type: ignore[assignment]

    def trained(self, layer: nn.Linear) -> list[Tensor]:
        """The parameters that the optimizer trains."""
        return [layer.weight]

    keeps = False
    """Whether gradients are kept from one step to the next."""

    def settle(self) -> None:  # noqa: B027  most keep nothing
        """Forget what is kept from one step to the next, so that the weights are the whole state; nothing here."""

    def is_folded(self, layer: nn.Linear, constraint: Constraint, seen: "Sighting | None") -> bool:
        """Whether no step is waiting to be folded; ``seen`` is how the layer looked when none was."""
        return constraint.contains(layer.weight.detach())

    def sighting(self, layer: nn.Linear) -> "Sighting":
        """What tells a layer that was checked from one that has been moved since."""
        first, *others = self.trained(layer)
        versions = tuple((id(tensor), tensor._version) for tensor in others)
        weight = _mark(layer.weight)
        return Sighting(weight, weight if first is layer.weight else _mark(first), versions, _ForeignSteps.count)

    def moved(self) -> None:  # noqa: B027  most pull back whatever they find
        """Hear that the weight was written to since it was last known to be a member; nothing here."""

    @abc.abstractmethod
    def before_step(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Replace the gradient by its tangent part, once per optimizer step."""

    @abc.abstractmethod
    def fold_(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Pull the weight back onto the set, in place."""


class Ambient(Coordinate):
    """The weight is trained directly: tangent gradient before the step, projection after it."""

    def __init__(self) -> None:
        self._last: Any = None

    def settle(self) -> None:
        """Forget where the last projection ended."""
        self._last = None

    @torch.no_grad()
    def before_step(self, layer: nn.Linear, constraint: Constraint) -> None:
        """G ← tangent(W, G)."""
        gradient = layer.weight.grad
        if gradient is not None and (tangent := constraint.tangent(layer.weight, gradient)) is not gradient:
            gradient.copy_(tangent)

    @torch.no_grad()
    def fold_(self, layer: nn.Linear, constraint: Constraint) -> None:
        """W ← map(W)."""
        self._last = constraint.map_(layer.weight, self._last)


class _ForeignSteps:
    """How many steps have moved parameters that `hold` knows nothing of (fused ones leave no mark on a tensor)."""

    count = 0

    @classmethod
    def after(cls, optimizer: Optimizer, *_: Any) -> None:
        if not vars(optimizer).get("_held_networks"):
            cls.count += 1


register_optimizer_step_post_hook(_ForeignSteps.after)


class Sighting(NamedTuple):
    """How a layer looked: tensors by identity, version and, on a CPU, a sample where writes through ``.data`` show."""

    weight: tuple[int, int, float]
    trained: tuple[int, int, float]
    others: tuple[tuple[int, int], ...]
    foreign_steps: int


def _mark(tensor: Tensor) -> tuple[int, int, float]:
    return id(tensor), tensor._version, glance(tensor) if tensor.is_cpu else 0.0


def glance(tensor: Tensor) -> float:
    """The sum of some thousand entries' sizes, spread over the tensor: an optimizer's step does not leave it alone."""
    entries, width = tensor.detach().reshape(-1), tensor.shape[-1]
    stride = max(1, entries.numel() // 4096)
    while math.gcd(stride, width) > 1:  # or the same columns would be looked at in every row
        stride += 1
    return float(torch.linalg.vector_norm(entries[::stride], 1))


@dataclass
class Held:
    """What a step-held layer remembers; ``seen`` is its weight when it was last known to be on its set."""

    constraint: Constraint
    coordinate: Coordinate
    seen: Sighting | None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        return Held(self.constraint, copy.copy(self.coordinate), None)  # a copied tensor counts its versions anew

    def __reduce__(self) -> tuple[Any, ...]:
        return Held, (self.constraint, self.coordinate, None)


def refuse_half(weight: Tensor) -> None:
    """Raise where a weight's type has too few digits to be on a set."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise TightlipError(f"weights in {weight.dtype} cannot be held exactly: keep them float32, use autocast")


def held(layer: nn.Module) -> Held | None:
    """The record of a step-held layer, or None."""
    return vars(layer).get("_held")


def refuse_unfolded(layer: nn.Linear, args: Any) -> None:
    """The forward pre-hook of step-held layers: raises if the weight was moved off its set."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(layer.weight):
        return  # values cannot be looked at here
    record = held(layer)
    if record is None or layer.weight.is_inference() or record.coordinate.sighting(layer) == record.seen:
        return
    if not record.coordinate.is_folded(layer, record.constraint, record.seen):
        raise TightlipError(
            f"a weight has left {record.constraint} without being pulled back: call tightlip.hold(network, optimizer) "
            "before the first step; weights from elsewhere are loaded before constrain, or frozen by freeze(network)"
        )
    record.seen = record.coordinate.sighting(layer)


TRUSTED_HOOKS.add(refuse_unfolded)


def hold(network: nn.Module, optimizer: Optimizer) -> Optimizer:
    """Keep every step-held layer of ``network`` on its set through all steps of ``optimizer``; returns the optimizer.

    One line in a training loop: ``optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters()))``.
    Works with any optimizer that steps once per backward, several forwards per step, accumulation and clipping.

    Raises:
        TightlipError: for optimizers that step several times per backward (LBFGS, SAM), and at a step that leaves
            NaN or infinity in a weight; for an optimizer that trains nothing of the network, or lists weights without
            the turns trained in their place; where weights were cast to half precision.
    """
    if isinstance(optimizer, torch.optim.LBFGS) or hasattr(optimizer, "first_step"):
        name = type(optimizer).__name__
        raise TightlipError(f"{name} evaluates between its own steps, off the set: use Adam or SGD, or hold='forward'")
    _refuse_weights_that_are_turned(network, optimizer)
    networks = vars(optimizer).setdefault("_held_networks", [])
    if not networks:
        optimizer.register_step_pre_hook(_before_step)
        optimizer.register_step_post_hook(_after_step)
    if not any(network is known for known in networks):
        networks.append(network)
    return optimizer


def settle(network: nn.Module) -> None:
    """Make the weights of ``network`` the whole state of its constraints, as loading them would.

    Turns in blocks keep gradients that wait for their round, and projections begin where the last one ended; both are
    given up. Call it where a checkpoint is written, and a run that is resumed from there goes on exactly as this one.
    """
    for module in network.modules():
        record = held(module)
        if record is not None:
            record.coordinate.settle()


def _refuse_weights_that_are_turned(network: nn.Module, optimizer: Optimizer) -> None:
    """An optimizer that lists a weight but not what is trained in its place would leave it as it is, without a word."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trained.isdisjoint(map(id, network.parameters())):
        raise TightlipError(
            "the optimizer trains no parameter of this network: make it from network.parameters(); a frozen copy has "
            "other parameters, which are not trained"
        )
    for name, layer in network.named_modules():
        record = held(layer)
        if record is None:
            continue
        listed = [id(p) in trained for p in record.coordinate.trained(layer)]  # type: ignore[arg-type]
        if not all(listed) and (any(listed) or id(layer.weight) in trained):
            raise TightlipError(
                f"the optimizer lists {name or 'the layer'}.weight, which is turned and not trained, or some of its "
                "turns only: make it from network.parameters(), after constrain"
            )


def _layers(optimizer: Optimizer) -> Iterator[tuple[nn.Linear, Held]]:
    """The step-held layers whose weights this optimizer trains, each once."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in dict.fromkeys(module for network in vars(optimizer)["_held_networks"] for module in network.modules()):
        record = held(layer)
        if record is not None and any(id(p) in trained for p in record.coordinate.trained(layer)):
            yield layer, record


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """Prepare the gradients; where the optimizer computes them itself, by a closure, after that."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the first is the optimizer
    if closure is None:
        _prepare(optimizer)
        return None

    def prepared() -> Any:
        loss = closure()
        _prepare(optimizer)
        return loss

    return args[:1], {**kwargs, "closure": prepared}


def _prepare(optimizer: Optimizer) -> None:
    for layer, record in _layers(optimizer):
        refuse_half(layer.weight)
        if record.coordinate.keeps and getattr(optimizer, "grad_scale", None) is not None:
            raise TightlipError("a fused optimizer hides from its gradients that they are scaled: give it fused=False")
        record.coordinate.before_step(layer, record.constraint)


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    own = {id(p) for network in vars(optimizer)["_held_networks"] for p in network.parameters()}
    _ForeignSteps.count += any(id(p) not in own for group in optimizer.param_groups for p in group["params"])
    for layer, record in _layers(optimizer):
        turned = record.coordinate.trained(layer)[0] is not layer.weight  # or the optimizer itself has moved it
        if turned and (record.seen is None or _mark(layer.weight) != record.seen.weight):
            record.coordinate.moved()
        record.coordinate.fold_(layer, record.constraint)
        record.seen = record.coordinate.sighting(layer)
