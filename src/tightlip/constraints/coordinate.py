"""Who owns the gradient of a weight that lives on its set: the boundary between a constraint and an optimiser.

    attach(layer)    before training: the layer remembers its constraint
    before_step      after backward: the gradient is made tangent to the set
    fold_(layer)     after the optimiser's step: the weight is pulled back onto the set

`Ambient` trains the weight itself. A faster coordinate replaces it behind these three calls. `hold` ties them to an
optimiser; a forward pass on a weight that left its set without being folded raises.
"""

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..audit import TRUSTED_HOOKS
from ..errors import TightlipError
from .constraint import Constraint


class Coordinate(abc.ABC):
    """How a weight on a set is moved by an optimiser that knows nothing of the set."""

    def attach(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Make the layer remember its constraint and watch for steps that nobody folded."""
        layer.register_forward_pre_hook(refuse_unfolded)
        layer._held = Held(constraint, self, layer.weight._version)  # type: ignore[assignment]

    @abc.abstractmethod
    def before_step(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Replace the gradient by its tangent part, once per optimiser step."""

    @abc.abstractmethod
    def fold_(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Pull the weight back onto the set, in place."""


class Ambient(Coordinate):
    """The weight is trained directly: tangent gradient before the step, projection after it."""

    @torch.no_grad()
    def before_step(self, layer: nn.Linear, constraint: Constraint) -> None:
        """G ← tangent(W, G)."""
        if layer.weight.grad is not None:
            layer.weight.grad.copy_(constraint.tangent(layer.weight, layer.weight.grad))

    @torch.no_grad()
    def fold_(self, layer: nn.Linear, constraint: Constraint) -> None:
        """W ← map(W)."""
        layer.weight.copy_(constraint.map(layer.weight))


@dataclass
class Held:
    """What a step-held layer remembers; ``version`` is the weight's when it was last seen on its set."""

    constraint: Constraint
    coordinate: Coordinate
    version: int


def held(layer: nn.Module) -> Held | None:
    """The record of a step-held layer, or None."""
    return vars(layer).get("_held")


def refuse_unfolded(layer: nn.Linear, args: Any) -> None:
    """The forward pre-hook of step-held layers: raises if the weight was moved off its set."""
    if torch.compiler.is_compiling():
        return
    record = held(layer)
    if record is None or layer.weight.is_inference() or layer.weight._version == record.version:
        return
    if not record.constraint.contains(layer.weight.detach()):
        raise TightlipError(
            f"a weight has left {record.constraint} without being pulled back: call "
            "tightlip.hold(network, optimizer) once before training, or freeze(network) if these weights were loaded"
        )
    record.version = layer.weight._version


TRUSTED_HOOKS.add(refuse_unfolded)


def hold(network: nn.Module, optimizer: Optimizer) -> Optimizer:
    """Keep every step-held layer of ``network`` on its set through all steps of ``optimizer``; returns the optimiser.

    One line in a training loop: ``optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters()))``.
    Works with any optimiser that steps once per backward, several forwards per step, accumulation and clipping.

    Raises:
        TightlipError: for optimisers that step several times per backward (LBFGS, SAM), and at a step that leaves
            NaN or infinity in a weight.
    """
    if isinstance(optimizer, torch.optim.LBFGS) or hasattr(optimizer, "first_step"):
        name = type(optimizer).__name__
        raise TightlipError(f"{name} evaluates between its own steps, off the set: use Adam or SGD, or hold='forward'")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    layers = [layer for layer in network.modules() if held(layer) is not None and id(layer.weight) in trained]

    def before(*_: Any) -> None:
        for layer in layers:
            record = held(layer)
            if record is not None:
                record.coordinate.before_step(layer, record.constraint)  # type: ignore[arg-type]

    def after(*_: Any) -> None:
        for layer in layers:
            record = held(layer)
            if record is not None:
                record.coordinate.fold_(layer, record.constraint)  # type: ignore[arg-type]
                record.version = layer.weight._version  # type: ignore[assignment, union-attr]

    if not vars(optimizer).get("_tightlip_held"):
        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        optimizer._tightlip_held = True  # type: ignore[attr-defined]
    return optimizer
