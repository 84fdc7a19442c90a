"""Critics of known distances (paper §7.1.1): built by the name of their activation, trained, frozen and measured."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..audit import lipschitz
from ..choices import chosen, unknown
from ..constraints import freeze
from ..networks import mlp
from ..records import Metric
from ..transport import Spheres, train_critic

BIASES = ("zero", "random", "none")
"""How the trained biases of a critic begin, if it has any."""

MEASURED = {
    "objective": Metric("mean f(centers) − mean f(spheres) of the frozen network on fresh points.", truth=1.0),
    "standard_error": Metric("Of the objective, from sampling the points; 0 where it is exact."),
    "constant": Metric(
        "The audited Lipschitz constant of the frozen network, in the Euclidean norm of inputs.", rounding="up"
    ),
}
"""What `measured` returns; the objective of a critic that is trained for it alone is 1 at best."""


def critic(widths: list[int], activation: str, bias: str = "zero", **options: Any) -> nn.Sequential:
    """An `mlp` with orthonormal weights, unless ``options`` say otherwise.

    Args:
        widths: As of `mlp`; hidden ones before the activation.
        activation: A name of `activations.ACTIVATIONS`.
        bias: zero (trained, from zero), random (trained, from where torch puts it) or none.
        options: Of `mlp`.
    """
    if bias not in BIASES:
        raise unknown("start for biases", bias, BIASES)
    network = mlp(widths, activation=chosen("activation", activation, ACTIVATIONS), bias=bias != "none", **options)
    if bias == "zero":
        for layer in linear_layers(network):
            nn.init.zeros_(layer.bias)
    return network


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """First to last."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def measured(pair: Spheres, frozen: nn.Module, points: int) -> dict[str, float]:
    """Objective, standard error and audited constant of a frozen critic, on points that no training saw."""
    objective, error = pair.objective(frozen, points, torch.Generator().manual_seed(2**31))
    return {"objective": objective, "standard_error": error, "constant": lipschitz(frozen, 2).constant}


def trained(pair: Spheres, network: nn.Module, seed: int, **options: Any) -> nn.Module:
    """The critic, trained on the pair (see `train_critic`) and frozen."""
    generator = torch.Generator().manual_seed(seed)
    return freeze(train_critic(network, partial(pair.sample, generator=generator), **options))


def distance_to_potential(pair: Spheres, frozen: nn.Module, grid: Tensor) -> float:
    """Sup |f + c − f*| over the grid, with the best constant c."""
    with torch.no_grad():
        gap = (frozen(grid).squeeze(-1) - pair.potential(grid)).double()
    return float(gap.max() - gap.min()) / 2
