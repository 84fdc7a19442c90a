"""What may stay as it is: layers of which a constant is proven from the p-norm to itself, whatever training does.

A layer without weights has the constant that its rule proves. One with weights that no set holds is asked again with
much larger ones: what is proven must not grow. Layers that are held on a set have what the set promises.
"""

import copy

import torch
from torch import nn

from ...audit import Gains, Join, Node, expand, fold, gains
from ...constraints import constraint_of
from ...errors import TightlipError
from ...graphs import Transposed
from ...norms import norm_name

_OTHER_WEIGHTS = 1e3
"""How large the weights are with which a constant is asked for again."""


def held_already(layer: nn.Module, p: float) -> str | None:
    """Why a layer that is held stays as it is; None for one that is not held.

    Raises:
        TightlipError: where its set promises nothing from the p-norm to itself.
    """
    constraint = constraint_of(layer)
    if constraint is None:
        return None
    if not constraint.promises or constraint.norms != (p, p):
        raise TightlipError(
            f"it is held on {constraint}, which does not promise a norm of 1 from the {norm_name(p)}-norm to itself: "
            "freeze the network, and convert the frozen one"
        )
    return f"held on {constraint} already"


def kept(layer: nn.Module, p: float) -> str:
    """Why a layer stays as it is: what is proven of it.

    Raises:
        TightlipError: where nothing is.
    """
    return f"{promised(layer, p):.3g} is proven of it"


@torch.no_grad()
def lasting(layer: nn.Module, p: float) -> float:
    """What is `promised` of a layer, which its weights cannot change.

    Raises:
        TightlipError: where they can, or nothing is proven.
    """
    constant = promised(layer, p)
    parts = [part for part in layer.modules() if constraint_of(part) is None and type(layer) is not Transposed]
    free = [one for part in parts for one in part._parameters.values() if one is not None and one.requires_grad]
    if free:
        other, generator = copy.deepcopy(layer), torch.Generator().manual_seed(0)
        for parameter in other.parameters():
            parameter.copy_(_OTHER_WEIGHTS * torch.randn(parameter.shape, generator=generator))
        if promised(other, p) > max(constant, 1.0):
            raise TightlipError(
                "its weights are trained and no set holds them: put nn.Linear, nn.Conv1d or nn.Conv2d in its place, or "
                "say what it becomes (tightlip.bridges.conversion)"
            )
    return constant


def promised(layer: nn.Module, p: float) -> float:
    """A constant of a layer from the p-norm to itself, each held layer in it counted as what its set promises.

    Raises:
        TightlipError: where nothing is proven.
    """

    def one(node: Node, before: Gains) -> Gains:
        constraint = constraint_of(node.operation)  # type: ignore[arg-type]
        held = constraint is not None and constraint.promises and constraint.norms == (p, p)
        return before.then(Gains({(p, p): 1.0}) if held else gains(node.operation, node.name))  # type: ignore[arg-type]

    def joined(node: Node, before: list[Gains]) -> Gains:
        assert isinstance(node.operation, Join)
        return node.operation.gains(before)

    layer = layer.of if type(layer) is Transposed else layer  # for p = 2, the only norm in which it is converted
    table = fold(expand(layer), Gains.constant(1.0), one, joined).table
    if (p, p) not in table:
        name = norm_name(p)
        raise TightlipError(f"no rule proves a constant of {type(layer).__name__} from the {name}-norm to itself")
    return float(table[p, p])
