"""`freeze` ends the arrangement: a copy of the network in ordinary torch modules, each weight proven to be ≤ 1."""

import copy
import logging

import torch
from torch import nn
from torch.nn.utils import skip_init

from ..audit import lipschitz, refuse_altered
from ..audit.registry import registered
from ..audit.trust import original_type
from ..errors import TightlipError
from ..graphs.tracing import as_graph
from ..rules.convolution import geometry_of
from .carrier import Layer
from .constraining import weight_constraint
from .constraint import Constraint

logger = logging.getLogger(__name__)


def freeze(network: nn.Module) -> nn.Module:
    """An independent copy made of ordinary torch modules, each constrained weight exactly on its set.

    A network with a forward of its own becomes a `Graph`: what `trace` has found is what is audited and served.

    Every weight is mapped in float64, stored in its own dtype and then shrunk by its own audited excess until
    `lipschitz` proves ≤ 1 in the constraint's norms. The original is left as it was. The copy is in eval mode and
    its parameters do not require gradients. Works on copies, reloaded checkpoints and averages of weights; if a
    weight had left its set (an average has), a warning says how far. Constraints whose map moves members too (a
    truncated schedule) keep the weight that was trained; those that promise nothing (`Parseval`) are not even shrunk.

    Raises:
        TightlipError: for a wrapper (compiled, data-parallel, averaged), whose inner module is to be frozen.

    >>> from tightlip import Orthonormal, constrain
    >>> frozen = freeze(nn.Sequential(constrain(nn.Linear(4, 4), Orthonormal())))
    >>> lipschitz(frozen, 2).constant <= 1
    True
    """
    inner = next((key for key in ("_orig_mod", "module") if list(network._modules) == [key]), None)
    if inner is not None and type(network) is not nn.Sequential:
        raise TightlipError(f"{type(network).__name__} is a wrapper of another module: freeze its {inner} instead")
    plain = {}
    for name, layer in network.named_modules():
        constraint = weight_constraint(layer)
        if constraint is not None:
            refuse_altered(layer, name)
            plain[id(layer)] = _plain(layer, constraint, name)  # type: ignore[arg-type]
    frozen = copy.deepcopy(network, dict(plain))
    return as_graph(frozen.eval().requires_grad_(False))


@torch.no_grad()
def _plain(layer: Layer, constraint: Constraint, name: str) -> nn.Module:
    live = layer.weight.detach()
    plain = _unfilled(layer)
    if plain.bias is not None and layer.bias is not None:
        plain.bias.copy_(layer.bias)
    member = constraint.finish(live.double())
    moved = float((member - live).abs().max())
    if moved > 1e-3:
        logger.warning("layer %r was off %r: freezing moved its weights by up to %.2g", name, constraint, moved)
    if not constraint.promises:
        plain.weight.copy_(member)
        return plain
    shrink = 1.0
    step = torch.finfo(live.dtype).eps
    while True:
        plain.weight.copy_(member * shrink)
        bound = lipschitz(plain, *constraint.norms).constant
        if bound <= 1.0:
            return plain
        shrink *= (1.0 - step / 4) / bound


def _unfilled(layer: Layer) -> Layer:
    """A plain layer with the same options; draws no random numbers."""
    kind = original_type(layer)
    options = {name: getattr(layer, name) for name in registered()[kind].options or ()}
    options["bias"] = layer.bias is not None
    plain = skip_init(kind, **options, device=layer.weight.device, dtype=layer.weight.dtype)
    if not isinstance(plain, nn.Linear) and geometry_of(plain) != geometry_of(layer):  # type: ignore[arg-type]
        raise TightlipError(
            f"the padding of {kind.__name__} was changed after it was made, and its forward does not read that: make "
            "the layer anew"
        )
    return plain  # type: ignore[return-value]
