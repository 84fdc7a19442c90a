"""Where 2-norm networks fall short of hard functions, or do not: a search on the paper's open question (§6).

Networks of the ∞ class are dense in the 1-Lipschitz functions (Theorem 3); whether orthonormal ones are is not known.
Targets are distances to the nearest of several centers on a grid in the plane, with spheres that touch; W1 = 1 whatever
their number, so what a trained network lacks to 1 is its distance from the best. A gap that closes as networks grow
speaks for universality and one that stays against it; neither proves anything, since training may fail.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..choices import unknown
from ..constraints import RowDualBall, RowL1Ball
from ..errors import TightlipError
from ..records import Metric
from ..transport import Spheres
from .critics import MEASURED, critic, linear_layers, measured, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One class of networks, one target, one size."""

    network: str = "2-norm"
    """2-norm (orthonormal weights) or ∞-norm (the first weight of norm 1 from 2 to ∞, the others from ∞ to ∞)."""
    centers: int = 9
    """1, 3 in a row, or 9 on a square grid, 2 apart."""
    width: int = 64
    """Of the hidden layers; sorted in pairs."""
    depth: int = 4
    """Linear layers."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 2000
    """Of the optimizer."""
    batch_size: int = 252
    """Samples of each distribution per step."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


CLASSES = ("2-norm", "∞-norm")
GRID = {"network": CLASSES, "centers": (1, 3, 9), "width": (32, 128), "depth": (3, 6)}
SMOKE = Preset({"steps": 20, "points": 2000}, grid={"width": (16,), "depth": (3,), "centers": (1, 9)})
PAPER = Preset()
METRICS = {**MEASURED, "gap": Metric("1 − objective: what is missing to the best 1-Lipschitz function.", truth=0.0)}


def run(config: Config, seed: int) -> Outcome:
    """What the frozen network lacks to 1."""
    torch.manual_seed(seed)
    pair = touching(config.centers)
    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    metrics = measured(pair, trained(pair, network(config), seed, **options), config.points)
    return Outcome(metrics | {"gap": 1 - metrics["objective"]})


def touching(count: int) -> Spheres:
    """``count`` centers in the plane, 2 apart from their neighbors: a row of up to 3, or a square."""
    edge = round(count**0.5)
    if count < 1 or (count > 3 and edge**2 != count):
        raise TightlipError(f"centers={count} fill neither a row of up to 3 nor a square: give 1, 2, 3, 4, 9, 16, …")
    side, row = (range(edge), range(edge)) if count > 3 else (range(1), range(count))
    points = torch.tensor([[2.0 * i, 2.0 * j] for i in row for j in side])
    return Spheres(points - points.mean(0))


def network(config: Config) -> nn.Sequential:
    """Of the class and size asked for; rows of the ∞ class begin with norm 1, not below it."""
    if config.network not in CLASSES:
        raise unknown("class of networks", config.network, CLASSES)
    widths = [2, *[config.width] * (config.depth - 1), 1]
    if config.network == "2-norm":
        return critic(widths, "maxmin")
    result = critic(widths, "maxmin", constraint=[RowDualBall(2), *[RowL1Ball()] * (config.depth - 1)])
    with torch.no_grad():
        for order, layer in zip((2, *[1] * (config.depth - 1)), linear_layers(result), strict=True):
            layer.weight /= torch.linalg.vector_norm(layer.weight, order, dim=1, keepdim=True)
    return result
