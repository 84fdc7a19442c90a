"""`constrain` puts a layer's weight on a set, in one of the paper's two ways (§4.2.1).

* ``hold="step"``: the weight itself lives on the set; after each optimizer step it is pulled back (`holding`);
* ``hold="forward"``: the layer keeps a free parameter V and its weight is map(V), through torch's ``parametrize``.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..audit import TRUSTED_PARAMETRIZATIONS
from ..errors import TightlipError
from .carrier import Carried, Layer, Rows, carried
from .constraint import Constraint, Hold
from .coordinate import Ambient, Coordinate, refuse_half
from .frame import Frame, block_count
from .guard import attach, held
from .orthonormal_kernels import OrthonormalKernels
from .product import Product

AnyLayer = TypeVar("AnyLayer", bound=Layer)


class _Map(nn.Module):
    """The parametrization V ↦ W of ``hold="forward"``: the constraint's own chart, or else its map."""

    def __init__(self, constraint: Constraint, weight: Tensor) -> None:
        super().__init__()
        self.constraint = constraint
        self.chart = constraint.chart(weight)

    def forward(self, weight: Tensor) -> Tensor:
        if hasattr(weight, "full_tensor"):  # read while it is sharded: a row of it is no row of the whole
            weight = weight.full_tensor()
        return self.constraint.map(weight) if self.chart is None else self.chart(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight if self.chart is None else self.chart.right_inverse(weight)  # type: ignore[operator]

    def extra_repr(self) -> str:
        return repr(self.constraint)


TRUSTED_PARAMETRIZATIONS.add(_Map)


def constrain(layer: AnyLayer, constraint: Constraint, hold: Hold = "step") -> AnyLayer:
    """Put the layer's weight on the set and keep it there; changes the layer in place and returns it.

    On a convolution the promise is that of its operator, for images of any size and with its stride, padding, dilation
    and groups: `carrier` says which matrices, or kernels, that asks for.

    Args:
        layer: A plain ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d`` in float32 or float64; its present weight is mapped
            into the set.
        constraint: The set, e.g. `Orthonormal()`.
        hold: "step" (fast; call `tightlip.hold(network, optimizer)` once before training) or "forward" (differentiable
            map at each forward; needs no other call).

    Raises:
        TightlipError: for other layers, a layer that is constrained already, and a convolution on which the set has no
            members that are known: padding that repeats pixels, kernels whose factors could not be found again.

    >>> from tightlip import Orthonormal
    >>> layer = constrain(nn.Linear(3, 2), Orthonormal())
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(2), atol=1e-6)
    True
    """
    _refuse_layer(layer, constraint)
    refuse_half(layer.weight)
    if hold not in ("step", "forward"):
        raise TightlipError(f'a constraint is held by "step" or "forward", not {hold!r}')
    onto = carried(layer, constraint)
    if hold not in onto.holds:
        raise TightlipError(f"{onto} cannot be held by {hold!r}: pass hold={onto.holds[0]!r}")
    coordinate = _coordinate(onto, layer.weight)
    with torch.no_grad():
        layer.weight.copy_(onto.map(layer.weight.double()))
    if hold == "step":
        attach(layer, onto, coordinate)
    else:
        chart = _Map(onto, layer.weight.detach())
        if chart.chart is not None:  # torch writes its coordinates in place, and another layer may share the weight
            layer.weight = nn.Parameter(layer.weight.detach().clone(), layer.weight.requires_grad)
        parametrize.register_parametrization(layer, "weight", chart)
    return layer


def constrain_sample(layer: AnyLayer, constraint: Constraint, hold: Hold = "step") -> AnyLayer:
    """`constrain`, after the layer's weight has been drawn at random by the set (`Constraint.sample`)."""
    _refuse_layer(layer, constraint)
    with torch.no_grad():
        layer.weight.copy_(carried(layer, constraint).sample(layer.weight.shape))
    return constrain(layer, constraint, hold)


def _refuse_layer(layer: nn.Module, constraint: object) -> None:
    """Raise unless there is a weight that can be put on this set."""
    if constraint_of(layer) is not None:
        raise TightlipError(f"this layer is held on {constraint_of(layer)} already: freeze the network to release it")
    if type(layer) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        raise TightlipError(
            f"constraints are for nn.Linear, nn.Conv1d and nn.Conv2d, not {type(layer).__name__}: constrain "
            "those inside it, or use one of them in its place"
        )
    if not isinstance(constraint, Constraint):
        raise TightlipError(f"{constraint!r} is not a constraint: give an instance such as Orthonormal()")


def _coordinate(constraint: Constraint, weight: Tensor) -> Coordinate:
    """How a weight on this set is moved, where it is held by "step"."""
    if isinstance(constraint, OrthonormalKernels):
        return Product(constraint.shape, constraint.groups)
    whole = not isinstance(constraint, Carried) or constraint.carrier == Rows()
    blocks = block_count(constraint.asked, _rows_and_columns(weight)) if whole else None
    return Ambient() if blocks is None else Frame(blocks)


def _rows_and_columns(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], math.prod(weight.shape[1:])


def constraint_of(layer: nn.Module) -> Constraint | None:
    """The constraint that a layer is held on, or None."""
    found = weight_constraint(layer)
    return None if found is None else found.asked


def weight_constraint(layer: nn.Module) -> Constraint | None:
    """The same as a set of weights, where those are more than a matrix."""
    record = held(layer)
    if record is not None:
        return record.constraint
    if parametrize.is_parametrized(layer, "weight"):
        maps = list(layer.parametrizations.weight)  # type: ignore[union-attr, arg-type]
        ours = [m for m in maps if type(m) is _Map]
        if ours and len(maps) > 1:
            raise TightlipError(f"the weight of a layer is {ours[0].constraint} and parametrized again: keep one")
        return ours[0].constraint if ours else None
    return None


def is_constrained(network: nn.Module) -> bool:
    """Whether a layer of the network is held on a set, in either way."""
    return any(constraint_of(layer) is not None for layer in network.modules())
