"""What methods of training put into a network: dropout, another last layer, or layers of their own."""

from torch import nn

from ..activations import ACTIVATIONS
from ..choices import chosen
from ..constraints import Constraint, RowDualBall, constrain
from ..layers import Scale
from ..linf_distance import LinfDistance, MeanShift
from .margin_losses import Settings

INPUTS_DROPPED = 0.4
"""The share of inputs that dropout drops, in units of that of hidden units: .2 beside .5, as in the original code."""

LAST_LAYERS: dict[str, Constraint | None] = {"orthonormal": None, "rows": RowDualBall(2)}
"""Constraints of the last layer by name; None leaves that of all layers. Rows have a 2-norm of 1 at most."""


def as_it_is(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """The network itself."""
    return network


def with_dropout(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """Inputs, and what comes out of activations, are dropped."""
    share = settings["dropout"]
    kinds = tuple({type(make()) for make in ACTIVATIONS.values()})
    return nn.Sequential(nn.Dropout(INPUTS_DROPPED * share), *_after(network, kinds, share))


def _after(network: nn.Sequential, kinds: tuple[type, ...], share: float) -> list[nn.Module]:
    """The layers, with dropout after those of these kinds, also inside of a sequence in the sequence."""
    layers: list[nn.Module] = []
    for layer in network:
        layers.append(nn.Sequential(*_after(layer, kinds, share)) if isinstance(layer, nn.Sequential) else layer)
        layers += [nn.Dropout(share)] * isinstance(layer, kinds)
    return layers


def with_last_layer(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """The last linear layer under a constraint of its own, where the settings have one."""
    constraint = chosen("last layer", settings["last_layer"], LAST_LAYERS)
    if constraint is not None:
        name, layer = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
        network.set_submodule(name, constrain(nn.Linear(layer.in_features, layer.out_features), constraint))
    return network


def distances(network: nn.Sequential, settings: Settings) -> nn.Sequential:
    """Distances of the widths of an mlp, with the mean taken off between them; the last count with a minus sign."""
    widths = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in widths[:-1]:
        layers += [LinfDistance(before, after, bias=False), MeanShift(after)]
    return nn.Sequential(*layers, LinfDistance(*widths[-1], negative=True), Scale(settings["k"]))
