"""What methods of training put into a network: dropout, another last layer, or layers of their own."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..choices import chosen
from ..constraints import RowDualBall, constrain
from ..data import Part
from ..layers import Scale
from ..linf_distance import LinfDistance
from ..mean_shift import MeanShift
from ..prototypes import Prototypes
from .margin_losses import Settings

INPUTS_DROPPED = 0.4
"""The share of inputs that dropout drops, in units of that of hidden units: .2 beside .5, as in the original code."""

PROTOTYPES, COMPARED = 100, 3
"""Of each class, and how many of them training compares (`Prototypes`)."""


def _rows(layer: nn.Linear) -> nn.Module:
    """Rows have a 2-norm of 1 at most."""
    return constrain(nn.Linear(layer.in_features, layer.out_features), RowDualBall(2))


def _prototypes(layer: nn.Linear) -> nn.Module:
    """Two outputs differ √2 times as fast as the inputs, as those of orthonormal rows: margins mean the same."""
    near = Prototypes(layer.in_features, layer.out_features, PROTOTYPES, COMPARED)
    return nn.Sequential(near, Scale(math.sqrt(0.5)))


LAST_LAYERS = {"orthonormal": lambda layer: layer, "rows": _rows, "prototypes": _prototypes}
"""What takes the place of the last linear layer, by name."""


def as_it_is(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """The network itself."""
    return network


def with_dropout(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """Inputs, and what comes out of activations, are dropped."""
    share = settings["dropout"]
    kinds = tuple({type(make()) for make in ACTIVATIONS.values()})
    behind = followed(network, lambda layer: [nn.Dropout(share)] * isinstance(layer, kinds))
    return nn.Sequential(nn.Dropout(INPUTS_DROPPED * share), *behind)


def followed(network: nn.Sequential, behind: Callable[[nn.Module], Sequence[nn.Module]]) -> nn.Sequential:
    """The layers, each with what is to be ``behind`` it, also inside of sequences in the sequence."""
    layers: list[nn.Module] = []
    for layer in network:
        layers.append(followed(layer, behind) if isinstance(layer, nn.Sequential) else layer)
        layers += behind(layer)
    return nn.Sequential(*layers)


def with_last_layer(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """Another last layer, where the settings have one."""
    replaced = chosen("last layer", settings["last_layer"], LAST_LAYERS)
    name, layer = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    network.set_submodule(name, replaced(layer))
    return network


@torch.no_grad()
def placed(network: nn.Sequential, train: Part, seed: int) -> nn.Sequential:
    """The network, its prototypes, if it has any, at what it makes of training examples."""
    for layer in network.modules():
        if isinstance(layer, Prototypes):
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
            index = torch.cat([order[train.labels[order] == c][: layer.each] for c in range(layer.classes)])
            index = order[torch.isin(order, index)]  # classes mixed, so that means are those of all
            layer.place(_reaching(layer, network, train.images[index]), train.labels[index], seed)
    return network


def _reaching(layer: nn.Module, network: nn.Module, x: Tensor) -> Tensor:
    """What a layer of the network is given."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for part in x.chunk(math.ceil(len(x) / 500)):  # of nearly equal sizes: layers may take off the mean of a batch
        network(part)
    hook.remove()
    return torch.cat(seen)


def distances(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """Distances of the widths of an mlp, with the mean taken off between them; the last count with a minus sign."""
    widths = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in widths[:-1]:
        layers += [LinfDistance(before, after, bias=False), MeanShift(after)]
    return nn.Sequential(*layers, LinfDistance(*widths[-1], negative=True), Scale(settings["k"]))
