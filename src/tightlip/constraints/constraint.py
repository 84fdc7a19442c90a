"""A constraint is a set of matrices; `constrain` puts a layer's weight on it and `freeze` ends the arrangement.

A constraint answers four questions: where a matrix maps into the set (`map`), how far a matrix is from it
(`distance`), which direction of a gradient stays on it (`tangent`), and in which norms its members have operator
norm ≤ 1 (`norms`). The two ways to hold it are the paper's (§4.2.1):

* ``hold="step"``: the weight itself lives on the set; after each optimiser step it is pulled back (`coordinate`);
* ``hold="forward"``: the layer keeps a free parameter V and its weight is map(V), through torch's ``parametrize``.
"""

import abc
import copy
import logging
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..audit import TRUSTED_PARAMETRIZATIONS, lipschitz
from ..errors import TightlipError
from .coordinate import Ambient, held, release

logger = logging.getLogger(__name__)


class Constraint(abc.ABC):
    """A set of matrices whose operator norm between `norms` is at most 1.

    A new constraint is one subclass; every method is a pure function of tensors, so the object holds options only.
    """

    norms: ClassVar[tuple[float, float]]
    """(input, output) norms in which every member has operator norm ≤ 1."""

    @abc.abstractmethod
    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """A member near ``weight``, differentiably; members map to themselves up to rounding."""

    @abc.abstractmethod
    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """How far from the set a matrix is: 0 for members, up to rounding."""

    def tangent(self, weight: Float[Tensor, "out in"], gradient: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The part of ``gradient`` that moves a member ``weight`` along the set; all of it where the set is solid."""
        return gradient

    def contains(self, weight: Float[Tensor, "out in"]) -> bool:
        """Whether a matrix is a member, up to the rounding of its dtype."""
        tolerance = 64.0 * torch.finfo(weight.dtype).eps * max(weight.shape) ** 0.5
        return self.distance(weight) <= tolerance  # NaN is not

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class _Map(nn.Module):
    """The parametrization V ↦ map(V) of ``hold="forward"``."""

    def __init__(self, constraint: Constraint) -> None:
        super().__init__()
        self.constraint = constraint

    def forward(self, weight: Tensor) -> Tensor:
        return self.constraint.map(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def extra_repr(self) -> str:
        return repr(self.constraint)


TRUSTED_PARAMETRIZATIONS.add(_Map)


def constrain(layer: nn.Linear, constraint: Constraint, hold: Literal["step", "forward"] = "step") -> nn.Linear:
    """Put the layer's weight on the set and keep it there; changes the layer in place and returns it.

    Args:
        layer: A plain ``nn.Linear`` in float32 or float64; its present weight is mapped into the set.
        constraint: The set, e.g. `Orthonormal()`.
        hold: "step" (fast; call `tightlip.hold(network, optimizer)` once before training) or "forward" (differentiable
            map at each forward; needs no other call).

    Raises:
        TightlipError: for other layers, or a layer that is constrained already.

    >>> layer = constrain(nn.Linear(3, 2), Orthonormal())
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(2), atol=1e-6)
    True
    """
    if constraint_of(layer) is not None:
        raise TightlipError(f"this layer is held on {constraint_of(layer)} already: freeze the network to release it")
    if type(layer) is not nn.Linear:
        raise TightlipError(f"constraints are for nn.Linear, not {type(layer).__name__}: constrain its linear layers")
    if not isinstance(constraint, Constraint):
        raise TightlipError(f"{constraint!r} is not a constraint: give an instance such as Orthonormal()")
    if layer.weight.dtype not in (torch.float32, torch.float64):
        raise TightlipError(f"weights in {layer.weight.dtype} cannot be held exactly: keep them float32, use autocast")
    with torch.no_grad():
        layer.weight.copy_(constraint.map(layer.weight.double()))
    if hold == "step":
        Ambient().attach(layer, constraint)
    elif hold == "forward":
        parametrize.register_parametrization(layer, "weight", _Map(constraint))
    else:
        raise TightlipError(f'a constraint is held by "step" or "forward", not {hold!r}')
    return layer


def constraint_of(layer: nn.Module) -> Constraint | None:
    """The constraint that a layer's weight is held on, or None."""
    record = held(layer)
    if record is not None:
        return record.constraint
    if parametrize.is_parametrized(layer, "weight"):
        last = layer.parametrizations.weight[-1]  # type: ignore[union-attr, index]
        return last.constraint if type(last) is _Map else None
    return None


def freeze(network: nn.Module) -> nn.Module:
    """An independent copy made of ordinary torch modules, each constrained weight exactly on its set.

    Every weight is mapped in float64, stored in its own dtype and then shrunk by its own audited excess until
    `lipschitz` proves ≤ 1 in the constraint's norms. The original is left as it was. The copy is in eval mode and
    its parameters do not require gradients. Works on copies, reloaded checkpoints and averages of weights; if a
    weight had left its set (an average has), a warning says how far.

    >>> frozen = freeze(nn.Sequential(constrain(nn.Linear(4, 4), Orthonormal())))
    >>> lipschitz(frozen, 2).constant <= 1
    True
    """
    plain = {}
    for name, layer in network.named_modules():
        constraint = constraint_of(layer)
        if constraint is not None:
            plain[id(layer)] = _plain(layer, constraint, name)  # type: ignore[arg-type]
    frozen = copy.deepcopy(network, dict(plain))
    return frozen.eval().requires_grad_(False)


@torch.no_grad()
def _plain(layer: nn.Linear, constraint: Constraint, name: str) -> nn.Linear:
    live = layer.weight.detach()
    bias = layer.bias
    plain = nn.Linear(layer.in_features, layer.out_features, bias is not None, live.device, live.dtype)
    if bias is not None:
        plain.bias.copy_(bias)
    member = constraint.map(live.double())
    moved = float((member - live).abs().max())
    if moved > 1e-3:
        logger.warning("layer %r had left %r: freezing moved its weights by up to %.2g", name, constraint, moved)
    shrink = 1.0
    step = torch.finfo(live.dtype).eps
    while True:
        plain.weight.copy_(member * shrink)
        bound = lipschitz(plain, *constraint.norms).constant
        if bound <= 1.0:
            return plain
        shrink *= (1.0 - step / 4) / bound


def unconstrain(layer: nn.Linear) -> nn.Linear:
    """Release a layer in place: its present weight stays, as an ordinary parameter."""
    if parametrize.is_parametrized(layer, "weight"):
        parametrize.remove_parametrizations(layer, "weight")
    release(layer)
    return layer
