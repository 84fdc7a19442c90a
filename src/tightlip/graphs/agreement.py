"""Whether a forward makes of real inputs what the graph makes that it was traced to.

A trace cannot see all that a forward does: it may ask for the exact type of what it is given, or whether it is traced.
So both are computed: on inputs of `trace`'s own, where layers tell their shape, and on those that are certified.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import TightlipError

_COMPARED = 16
"""How many inputs a forward and its trace are compared on."""

_MOST = 2**22
"""Entries of inputs that are made up; larger ones are not tried."""


def set_modes(modes: dict[nn.Module, bool]) -> None:
    """Put each module in its mode."""
    for module, training in modes.items():
        module.training = training


def refuse_disagreement(network: nn.Module, graph: nn.Module, x: Tensor) -> None:
    """Raise where a forward makes something else of a few inputs (batch, …) than the graph that it was traced to.

    Both are computed in eval mode, in the type of the network's own numbers. Inputs that the graph cannot take are left
    to whoever evaluates it.
    """
    if graph is network:
        return
    inputs = x[:_COMPARED].to(_like(network, x))
    traced = _made(graph, inputs)
    if not isinstance(traced, Exception):
        _refuse(network, _made(network, inputs), traced)


def refuse_other_results(network: nn.Module, graph: nn.Module, shape: tuple[int, ...] | None) -> None:
    """As `refuse_disagreement`, on two inputs of a shape that the forward may not take after all: then it raises."""
    if shape is None or math.prod(shape) > _MOST:
        return
    numbers = torch.arange(2 * math.prod(shape), dtype=torch.float64, device="cpu").mul_(0.7).cos_()
    inputs = numbers.view(2, *shape).to(_like(network, numbers.float()))
    made = _made(network, inputs)
    if not isinstance(made, Exception):
        _refuse(network, made, _made(graph, inputs))


def _like(network: nn.Module, x: Tensor) -> Tensor:
    """A tensor of the network's own type and device."""
    return next((t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()), x)


@torch.no_grad()
def _made(network: nn.Module, x: Tensor) -> list[Any] | Exception:
    """The tensors that a network makes in eval mode, or what it raises."""
    modes = {module: module.training for module in network.modules()}
    set_modes(dict.fromkeys(modes, False))
    try:
        return tree_leaves(network(x.clone()))
    except Exception as problem:  # noqa: BLE001
        return problem
    finally:
        set_modes(modes)


def _refuse(network: nn.Module, made: list[Any] | Exception, traced: list[Any] | Exception) -> None:
    name = type(network).__name__
    if isinstance(made, Exception):
        reason = ": ".join(filter(None, (type(made).__name__, *str(made).splitlines()[:1])))
        raise TightlipError(f"the forward of {name} raises on these inputs ({reason:.120}), and its trace does not")
    if isinstance(traced, Exception) or len(made) != len(traced) or not all(map(_alike, made, traced)):
        raise TightlipError(
            f"the forward of {name} makes of these inputs what its trace does not: it may depend on "
            "what it is called with, or compute in another type. Write a plain forward"
        )


def _alike(one: Any, other: Any) -> bool:
    """Whether two tensors are equal up to rounding in the coarser of their types."""
    if not isinstance(one, Tensor) or one.shape != other.shape:
        return False
    unit = max(torch.finfo(t.dtype).eps if t.is_floating_point() else 0.0 for t in (one, other))
    one, other = one.double(), other.double()
    size = float(other.abs().max()) if other.numel() else 0.0
    close = max(1e-3, 8 * unit)
    return torch.allclose(one, other, rtol=close, atol=close * size, equal_nan=True)
