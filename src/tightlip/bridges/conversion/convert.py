"""`convert`: an ordinary network becomes one whose constant is K, layer by layer, and a table says what was done.

The forward is traced into a list of layers and joins. Each layer becomes what is registered for its type (`registry`),
each join one that is not steeper than what it joins (`joins`), and `Scale(K)` comes last. So every value on the way is
1-Lipschitz in the input, and the network K-Lipschitz: by promise while it is trained, by audit once it is frozen.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...arguments import called, tensor
from ...audit import expand
from ...errors import TightlipError
from ...graphs import Graph
from ...graphs.tracing import as_graph
from ...layers import Scale
from ...norms import as_norm
from .building import Building
from .folding import shared
from .registry import with_stand_ins
from .table import Converted, Row

_TOLD = 8
"""Refusals that one error names."""


def convert(model: nn.Module, p: float = 2, K: float = 1.0, example: Tensor | None = None) -> Converted:
    """A network like ``model`` whose Lipschitz constant is K from the p-norm to itself, and what was changed and why.

    Linear layers and convolutions begin with the model's own weights, put on the set of the norm and held there by
    "step"; activations become `MaxMin`, averages get norm 1, normalizations a shift, sums a mean, what is put together
    is divided, and one ``Scale(K)`` comes last. The result computes something else than the model: train it, with
    ``hold``; `freeze` it, and `lipschitz` proves K. The model itself is left as it was.

    Args:
        model: A network, its own ``forward`` included, of one input; one output or several, which together are one long
            vector. What ``trace`` takes.
        p: The norm: 1, 2 or ``math.inf``.
        K: The constant.
        example: Inputs (batch, …), such as zeros: with them widths and pixels are counted that are not known otherwise,
            so that global averages get norm 1. It runs through the model once.

    Raises:
        TightlipError: for all that cannot be converted, each layer by its name and with the reason; for a forward that
            cannot be traced.

    >>> converted = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), K=3)
    >>> converted.network
    Sequential(
      (0): Linear(in_features=4, out_features=6, bias=True)
      (1): MaxMin(dim=-1, contiguous=False)
      (2): Linear(in_features=6, out_features=2, bias=True)
      (scale): Scale(3)
    )
    """
    if not isinstance(model, nn.Module):
        raise TightlipError(f"convert takes a network (nn.Module), got a {type(model).__name__}")
    norm, scale = as_norm(p), Scale(K)
    _refuse_views(model)
    own = with_stand_ins(_copied(model))
    shown = None if example is None else _shown(own, example)
    root = with_stand_ins(as_graph(own))
    names = {id(module): name for name, module in own.named_modules()}
    building = Building(expand(root), norm, names, shared(own), shown)
    if isinstance(root, Graph) and root.eval_only:
        words = "what it does in training alone, such as F.dropout, is left out"
        building.table.append(Row("forward", "another one in training", "that of eval mode", words))
    with torch.no_grad():
        building.build(_like(scale, own))
    if building.problems:
        told, more = building.problems[:_TOLD], len(building.problems) - _TOLD
        rest = f"; and {more} more" if more > 0 else ""
        raise TightlipError(f"{type(model).__name__} cannot be converted: {'; '.join(told)}{rest}")
    return Converted(building.network().train(model.training), tuple(building.table), norm, float(K))


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).eval()
    except (RuntimeError, TypeError) as problem:
        kind, reason = type(model).__name__, str(problem).splitlines()[0]
        raise TightlipError(
            f"{kind} cannot be copied ({reason:.120}): give a network that copy.deepcopy takes"
        ) from problem


@torch.no_grad()
def _shown(own: nn.Module, example: Any) -> Tensor:
    """The example where the model computes, which it takes."""
    x = tensor("example", example)
    first: Any = next(own.parameters(), x)
    x = x.to(first.device, first.dtype)
    called(own, x)
    return x


def _like(scale: Scale, own: nn.Module) -> Scale:
    first = next(own.parameters(), None)
    return scale if first is None else scale.to(first.device)


def _refuse_views(model: nn.Module) -> None:
    """Raise where two weights share memory and are not one tensor: they would be held apart."""
    places: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.numel():
            continue
        first, other = places.setdefault(parameter.untyped_storage().data_ptr(), (name, parameter))
        if other is not parameter:
            raise TightlipError(
                f"{name} shares its memory with {first}: let both layers have one Parameter, or write "
                "F.linear(x, encoder.weight.t()) in the forward, and the weight stays one"
            )
