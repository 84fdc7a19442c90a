"""A ReLU network of norm 1 whose gradient has norm 1 everywhere is linear; a MaxMin network is not (paper Theorem 1).

Orthonormal critics without widening layers are trained to tell the center of a sphere from the sphere, and at the same
time driven towards gradient norm 1 by ``pull`` times the mean of (1 − ‖∇f‖)². The more the ReLU network obeys, the more
linear it becomes, and the less it separates. MaxMin has gradient norm 1 to begin with, and bends as it likes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..constraints import freeze
from ..descent import descend
from ..diagnostics import gradient_norm
from ..losses import kantorovich
from ..transport import high_dimensional_cone
from .critics import MEASURED, critic, measured
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One activation, pulled towards gradient norm 1 more or less."""

    activation: str = "relu"
    """relu or maxmin (sorts pairs)."""
    pull: float = 10.0
    """The weight of (1 − ‖∇f‖)² beside the objective."""
    dimension: int = 16
    """Of the inputs, and of the three hidden layers."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 2000
    """Of the optimizer."""
    batch_size: int = 256
    """Points per step."""
    points: int = 20_000
    """Fresh points that all is measured on."""


GRID = {"activation": ("relu", "maxmin"), "pull": (0.0, 1.0, 10.0, 100.0)}
SMOKE = Preset({"steps": 8, "points": 1000}, grid={"pull": (0.0, 100.0)})
PAPER = Preset(seeds=3)
METRICS = {
    "gradient_norm": "The mean of ‖∇f‖₂ over uniform points of the unit ball.",
    "nonlinearity": "The share of the variance of f that no affine function explains; 0 if f is linear.",
    **MEASURED,
    "objective": replace(MEASURED["objective"], truth=None),
}
CURVES = {"step": "step of the optimizer", "gradient_norm": "mean of ‖∇f‖₂", "nonlinearity": "unexplained variance"}


def run(config: Config, seed: int) -> Outcome:
    """Gradient norm and nonlinearity, through training and of the frozen network."""
    torch.manual_seed(seed)
    pair, generator = high_dimensional_cone(config.dimension), torch.Generator().manual_seed(seed)
    network = critic([*[config.dimension] * 4, 1], config.activation, bias="random")
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    curve: dict[str, list[float]] = {"step": [], "gradient_norm": [], "nonlinearity": []}

    def watch(step: int) -> None:
        if step % max(1, config.steps // 20) == 0:
            _record(curve, step, network, config)

    def loss(_: int) -> Tensor:
        first, second = pair.sample(config.batch_size, generator)
        points = ball(config.batch_size, config.dimension, generator)
        return kantorovich(network(first), network(second)) + config.pull * departure(network, points)

    descend(network, optimizer, loss, range(config.steps), schedule, watch)
    frozen = freeze(network)
    _record(curve, config.steps, frozen, config)
    last = {"gradient_norm": curve["gradient_norm"][-1], "nonlinearity": curve["nonlinearity"][-1]}
    return Outcome(last | measured(pair, frozen, config.points), {"curve": curve})


def ball(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Uniform points of the unit ball."""
    _, sphere = high_dimensional_cone(dimension).sample(count, generator)
    return sphere * torch.rand(count, 1, generator=generator) ** (1 / dimension)


def departure(network: nn.Module, points: Tensor) -> Tensor:
    """The mean of (1 − ‖∇f‖)², differentiable."""
    points = points.requires_grad_()
    (gradient,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
    return (1 - torch.linalg.vector_norm(gradient, dim=1)).square().mean()


def nonlinearity(network: nn.Module, points: Tensor) -> float:
    """1 − R² of the best affine function, in float64."""
    with torch.no_grad():
        values = network(points).double()
    columns = torch.cat([points.double(), torch.ones(len(points), 1, dtype=torch.float64)], 1)
    rest = values - columns @ torch.linalg.lstsq(columns, values).solution
    return float(rest.var() / values.var())


def _record(curve: dict[str, list[float]], step: int, network: nn.Module, config: Config) -> None:
    points = ball(config.points, config.dimension, torch.Generator().manual_seed(2**31))
    curve["step"].append(step)
    curve["gradient_norm"].append(float(gradient_norm(network, points).mean()))
    curve["nonlinearity"].append(nonlinearity(network, points))
