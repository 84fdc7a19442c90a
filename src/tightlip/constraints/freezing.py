"""`freeze` ends the arrangement: a copy of the network in ordinary torch modules, each weight proven to be ≤ 1."""

import copy
import logging

import torch
from torch import nn
from torch.nn.utils import skip_init

from ..audit import lipschitz, refuse_altered
from ..errors import TightlipError
from ..graphs.tracing import as_graph
from .constraining import constraint_of
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
        constraint = constraint_of(layer)
        if constraint is not None:
            refuse_altered(layer, name)
            plain[id(layer)] = _plain(layer, constraint, name)  # type: ignore[arg-type]
    frozen = copy.deepcopy(network, dict(plain))
    return as_graph(frozen.eval().requires_grad_(False))


@torch.no_grad()
def _plain(layer: nn.Linear, constraint: Constraint, name: str) -> nn.Linear:
    live = layer.weight.detach()
    bias = layer.bias
    plain = skip_init(  # draws no random numbers
        nn.Linear, layer.in_features, layer.out_features, bias is not None, device=live.device, dtype=live.dtype
    )
    if bias is not None:
        plain.bias.copy_(bias)
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
