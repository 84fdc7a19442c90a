"""A batch normalization after a linear layer or a convolution, as part of it.

    γ·(Wx + b − μ)/√(v + ε) + β = (sW)x + s·(b − μ) + β,      s = γ/√(v + ε)

The weight that is put on its set is then sW, the map that the trained network has. A scale of 0, as some networks begin
with, would leave nothing: there it counts as 1. What remains is a bias, which begins at zero: s·(b − μ) + β is in the
units of values of variance 1, and in a network of norm 1, whose values are smaller, no pair would be sorted (LOG.md).
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ...audit import Nodes
from ...constraints import constraint_of

_BEFORE = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
}
"""Which normalization is on the axis of a layer's outputs."""


def foldings(network: Nodes, tied: set[int]) -> dict[int, int]:
    """The numbers of batch normalizations that can be folded, each with the node that it is folded into.

    Args:
        network: The nodes.
        tied: Identities of parameters that several layers have.
    """
    uses = Counter(i for node in network.nodes for i in node.inputs) + Counter([network.output])
    calls = Counter(id(node.operation) for node in network.nodes)
    found = {}
    for number, node in enumerate(network.nodes):
        before = node.inputs[0] - 1
        layer: Any = network.nodes[before].operation if before >= 0 else None
        alone = uses[before + 1] == 1 and calls[id(layer)] == calls[id(node.operation)] == 1
        if alone and type(node.operation) is _BEFORE.get(type(layer)) and _fits(layer, node.operation, tied):
            found[number] = before
    return found


def _fits(layer: Any, norm: Any, tied: set[int]) -> bool:
    free = constraint_of(layer) is None and id(layer.weight) not in tied
    return free and norm.running_mean is not None and norm.num_features == layer.weight.shape[0]


@torch.no_grad()
def folded(layer: Any, norm: Any) -> nn.Module:
    """The layer with the normalization in it; both are left as they are."""
    norm = copy.deepcopy(norm).eval()
    if norm.weight is not None:
        norm.weight[norm.weight == 0] = 1.0
    fuse = fuse_linear_bn_eval if type(layer) is nn.Linear else fuse_conv_bn_eval
    made = fuse(layer.eval(), norm)
    made.bias.zero_()
    return made.requires_grad_(layer.weight.requires_grad)  # type: ignore[no-any-return]


def shared(network: nn.Module) -> set[int]:
    """The identities of parameters that several layers have."""
    layers = [module for module in network.modules() if module._parameters]
    counts = Counter(id(p) for module in layers for p in module._parameters.values() if p is not None)
    return {one for one, count in counts.items() if count > 1}
