"""Norm at most 1 is not enough: singular values and gradient norm through training (paper §4.2.1 and B.2).

Two MaxMin critics of the cone in R^d. One divides a weight by its spectral norm where that exceeds 1, the other keeps
every singular value at 1. The first lets singular values sink, so gradients shrink from layer to layer.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..choices import chosen
from ..constraints import Constraint, Orthonormal, SpectralBall
from ..diagnostics import gradient_norm
from ..transport import high_dimensional_cone
from .critics import MEASURED, critic, linear_layers, measured, trained
from .protocol import Outcome, Preset

CONSTRAINTS: dict[str, type[Constraint]] = {"spectral": SpectralBall, "orthonormal": Orthonormal}


@dataclass(frozen=True)
class Config:
    """One constraint."""

    constraint: str = "orthonormal"
    """spectral (‖W‖₂ ≤ 1) or orthonormal (all singular values 1)."""
    dimension: int = 128
    """d, of the space that the sphere lies in, and width of the three hidden layers."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 1000
    """Of the optimizer."""
    batch_size: int = 256
    """Points of the sphere per step."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


GRID = {"constraint": tuple(CONSTRAINTS)}
SMOKE = Preset({"dimension": 16, "steps": 20, "points": 2000})
PAPER = Preset(seeds=3)
METRICS = {
    **MEASURED,
    "gradient_norm": "The mean of ‖∇f‖₂ on the sphere, at the end.",
    "median_singular_value": "Over all weights, at the end.",
    "smallest_singular_value": "Over all weights, at the end.",
}
CURVES = {
    "step": "step of the optimizer",
    "gradient_norm": "mean of ‖∇f‖₂ on the sphere",
    "median_singular_value": "median singular value",
    "smallest_singular_value": "smallest singular value",
}


def run(config: Config, seed: int) -> Outcome:
    """The objective of the frozen critic; singular values and gradient norm through training."""
    torch.manual_seed(seed)
    pair = high_dimensional_cone(config.dimension)
    constraint = chosen("constraint", config.constraint, CONSTRAINTS)()
    network = critic([*[config.dimension] * 4, 1], "maxmin", constraint=constraint)
    curve: dict[str, list[float]] = {name: [] for name in CURVES}
    _, probes = pair.sample(1000, torch.Generator().manual_seed(2**31))

    def watch(step: int) -> None:
        if step % max(1, config.steps // 20) == 0:
            curve["step"].append(step)
            curve["gradient_norm"].append(float(gradient_norm(network, probes).mean()))
            values = singular_values(network)
            curve["median_singular_value"].append(float(values.median()))
            curve["smallest_singular_value"].append(float(values.min()))

    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    frozen = trained(pair, network, seed, watch=watch, **options)
    last = {name: values[-1] for name, values in curve.items() if name != "step"}
    return Outcome(measured(pair, frozen, config.points) | last, {"curve": curve})


@torch.no_grad()
def singular_values(network: nn.Module) -> torch.Tensor:
    """Of all weights."""
    return torch.cat([torch.linalg.svdvals(layer.weight.double()) for layer in linear_layers(network)])
