"""Björck, Parseval and others as ways to hold orthonormal weights, on a known Wasserstein distance (paper B.1).

A critic is trained to tell the center of the unit sphere in R^d from its surface; W1 = 1, attained by f = −‖x‖. What
counts is the objective of the *frozen* network divided by its *audited* constant: the proven lower bound on W1. Schemes
that leave the set gain in the objective what the audit takes away. `few15` is the paper's recipe: three iterations in
training, fifteen at the end; ``change_by_finish`` says how far its outputs moved in that last step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..audit import lipschitz
from ..choices import chosen
from ..constraints import Cayley, Constraint, MatrixExponential, Orthonormal, Parseval, SpectralBall, freeze
from ..descent import descend
from ..linalg.schedules import bjorck
from ..losses import kantorovich
from ..networks import mlp
from ..records import Metric
from .protocol import Outcome, Preset

SCHEMES: dict[str, tuple[Callable[[], Constraint], str]] = {
    "exact_step": (Orthonormal, "step"),
    "exact_forward": (Orthonormal, "forward"),
    "few": (partial(Orthonormal, bjorck(3)), "forward"),
    "few15": (partial(Orthonormal, bjorck(3), bjorck(15)), "forward"),
    "bjorck15": (partial(Orthonormal, bjorck(15)), "forward"),
    "parseval0.5": (partial(Parseval, 0.5), "step"),
    "parseval0.05": (partial(Parseval, 0.05), "step"),
    "cayley": (Cayley, "forward"),
    "matrix_exponential": (MatrixExponential, "forward"),
    "spectral": (SpectralBall, "step"),
}


@dataclass(frozen=True)
class Config:
    """One scheme at one learning rate."""

    scheme: str = "exact_step"
    """How weights are held: exact_step, exact_forward (polar factor after each step, or in the forward pass), few
    (three Björck steps in the forward pass), few15 (three in training, fifteen at the end), bjorck15 (fifteen),
    parseval0.5, parseval0.05 (Parseval networks' pull after each step, with this β), cayley, matrix_exponential
    (charts of the orthogonal group), spectral (divided by the norm after each step, where it exceeds 1)."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    dimension: int = 32
    """d, of the space that the sphere lies in."""
    width: int = 128
    """Of the three hidden layers."""
    steps: int = 1000
    """Of the optimizer."""
    batch_size: int = 256
    """Points of the sphere per step."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


GRID = {"scheme": tuple(SCHEMES), "learning_rate": (1e-3, 3e-3, 1e-2)}
SMOKE = Preset({"dimension": 4, "width": 16, "steps": 8, "points": 2000}, grid={"learning_rate": (3e-3,)})
PAPER = Preset(seeds=3)
METRICS = {
    "bound": Metric(
        "objective / constant: what the network proves about W1 from below, up to the error of sampling.",
        rounding="down",
        truth=1.0,
    ),
    "standard_error": "Of the bound, from sampling the points.",
    "objective": "f(center) minus the mean of f over fresh points of the sphere; f is the frozen network.",
    "constant": Metric("The audited Lipschitz constant of the frozen network; 1 was asked for.", rounding="up"),
    "change_by_finish": "The farthest that freezing moved an output, among 1000 points.",
    "smallest_singular_value": "Of all weights, after training and before freezing; 1 if they are orthonormal.",
}
CURVES = {"step": "step of the optimizer", "largest": "largest singular value", "smallest": "smallest singular value"}


def run(config: Config, seed: int) -> Outcome:
    """Objective, audited constant and their quotient on the frozen network; singular values through training."""
    torch.manual_seed(seed)
    make, way = chosen("scheme", config.scheme, SCHEMES)
    network = mlp([config.dimension, *[config.width] * 3, 1], make(), hold=way)  # type: ignore[arg-type]
    engine = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(engine, config.steps)
    center = torch.zeros(1, config.dimension)
    curve: dict[str, list[float]] = {"step": [], "largest": [], "smallest": []}

    def watch(step: int) -> None:
        if step % max(1, config.steps // 20) == 0:
            _record(curve, step, network)

    def loss(_: int) -> Tensor:
        return kantorovich(network(center), network(sphere(config)))

    descend(network, engine, loss, range(config.steps), schedule, watch)
    _record(curve, config.steps, network)
    frozen, points = freeze(network), sphere(config, config.points)
    with torch.no_grad():
        outputs = frozen(points)
        objective = float(frozen(center) - outputs.mean())
        error = float(outputs.std() / len(outputs) ** 0.5)
        change = float((outputs[:1000] - network(points[:1000])).abs().max())
    constant = lipschitz(frozen, 2, 2).constant
    metrics = {
        "bound": objective / constant,
        "standard_error": error / constant,
        "objective": objective,
        "constant": constant,
        "change_by_finish": change,
        "smallest_singular_value": curve["smallest"][-1],
    }
    return Outcome(metrics, {"curve": curve})


def sphere(config: Config, count: int | None = None) -> Tensor:
    """Uniform points of the unit sphere in R^d."""
    points = torch.randn(count or config.batch_size, config.dimension)
    return points / points.norm(dim=1, keepdim=True)


def _record(curve: dict[str, list[float]], step: int, network: nn.Module) -> None:
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        values = torch.cat([torch.linalg.svdvals(layer.weight.double()) for layer in layers])
    for name, number in (("step", float(step)), ("largest", float(values.max())), ("smallest", float(values.min()))):
        curve[name].append(number)
