"""What `hold` takes: an optimizer that steps once per backward, and weights that it trains."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import TightlipError
from .constraining import is_constrained
from .gathered import is_sharded
from .guard import Held, held


def refuse_arguments(network: Any, optimizer: Any) -> Optimizer:
    """The optimizer whose steps are to be held, if all is as it should be.

    Raises:
        TightlipError: as `hold` says.
    """
    if isinstance(network, Optimizer) or isinstance(optimizer, nn.Module):
        raise TightlipError("hold takes the network first and the optimizer second: hold(network, optimizer)")
    if not isinstance(network, nn.Module):
        raise TightlipError(f"hold needs a network (nn.Module), not {type(network).__name__}: hold(network, optimizer)")
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):  # a wrapper
        optimizer = optimizer.optimizer
    kind = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer):
        raise TightlipError(f"hold needs an optimizer of torch.optim or a subclass, not {kind}")
    if isinstance(optimizer, torch.optim.LBFGS) or hasattr(optimizer, "first_step"):
        raise TightlipError(f"{kind} evaluates between its own steps, off the set: use Adam or SGD, or hold='forward'")
    if callable(getattr(optimizer, "eval", None)):
        raise TightlipError(f"{kind} moves weights in its eval() and train(), off the set: use Adam or SGD")
    if hasattr(optimizer, "consolidate_state_dict"):
        raise TightlipError(f"{kind} steps copies of the weights: use an optimizer of torch.optim on each rank")
    if not is_constrained(network):
        raise TightlipError(
            "nothing in this network is constrained, so there is nothing to hold: build it with tightlip.mlp, or call "
            "tightlip.constrain(layer, Orthonormal()) on its layers"
        )
    _refuse_weights(network, optimizer)
    return optimizer


def _refuse_weights(network: nn.Module, optimizer: Optimizer) -> None:
    if parameters_of(optimizer).isdisjoint(map(id, network.parameters())):
        raise TightlipError(
            "the optimizer trains no parameter of this network: make it from network.parameters(); a frozen copy has "
            "other parameters, which are not trained"
        )
    sets: dict[int, Held] = {}
    for name, layer, record in held_layers(network):
        weight = weight_of(name, layer)
        first = sets.setdefault(id(weight), record)
        if repr(first.constraint) != repr(record.constraint):
            raise TightlipError(
                f"{name} is one tensor with another layer's weight, which is on another set: {first.constraint} and "
                f"{record.constraint}; constrain both by the same"
            )


def parameters_of(optimizer: Optimizer) -> set[int]:
    """The identities of all that an optimizer moves."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def held_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module, Held]]:
    """Every step-held layer, with the name of its weight and what it remembers."""
    for name, layer in network.named_modules():
        record = held(layer)
        if record is not None:
            yield f"{name}.weight" if name else "the weight", layer, record


def weight_of(name: str, layer: nn.Module) -> nn.Parameter:
    """The weight of a held layer, whole or sharded.

    Raises:
        TightlipError: where it is parametrized by something else, or is no tensor of torch's own kinds.
    """
    weight = layer._parameters.get("weight")
    if weight is None or weight.ndim < 2 or not (type(weight) is nn.Parameter or is_sharded(weight)):
        kind = (
            "parametrized by something else"
            if weight is None
            else f"a {type(weight).__name__} of shape {tuple(weight.shape)}"
        )
        raise TightlipError(
            f"{name} is {kind}, and plain weights are held, or those that torch.distributed.fsdp.fully_shard has "
            "sharded: constrain the layer with hold='forward', or shard it by that"
        )
    return weight
