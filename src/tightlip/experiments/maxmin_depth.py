"""What closes the gap between MaxMin and FullSort on the cone in R^d: one change at a time (paper Table 1).

The base is a MaxMin critic of width 256 without biases, trained by Adam. Each change alters one thing; ``expected`` is
what infinitely wide layers would reach that fold gaussian coordinates and collect their means (docs/theory/depth.md).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..choices import chosen
from ..constraints import Orthonormal
from ..transport import high_dimensional_cone
from .critics import MEASURED, critic, measured, trained
from .protocol import Outcome, Preset

CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "zero biases": {"bias": "zero"},
    "random biases": {"bias": "random"},
    "twice as wide": {"width": 2},
    "half as wide": {"width": 0.5},
    "weight trained": {"blocks": 0},
    "SGD": {"optimizer": partial(torch.optim.SGD, momentum=0.9), "learning_rate": 10.0},
    "constant rate": {"decay": False},
    "4 × the steps": {"steps": 4},
    "groups of 4": {"activation": "groupsort4"},
    "absolute value": {"activation": "abs"},
}
"""Numbers multiply what the config says; the rest replaces it."""

KEPT = {"maxmin": 1 / math.pi, "abs": 2 / math.pi, "groupsort4": 0.5739}
"""Σ E[z_(i)]²/k for the order statistics of k standard gaussians: what one layer collects of what is left."""


@dataclass(frozen=True)
class Config:
    """One change, at one depth."""

    change: str = "base"
    """What is other than in the base; SGD has momentum 0.9 and the rate 10."""
    depth: int = 7
    """Linear layers."""
    dimension: int = 128
    """d, of the space that the sphere lies in."""
    width: int = 256
    """Of the hidden layers."""
    learning_rate: float = 4.5e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 750
    """Of the optimizer."""
    batch_size: int = 128
    """Points of the sphere per step."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


GRID = {"change": tuple(CHANGES), "depth": (3, 7)}
SMOKE = Preset({"steps": 5, "points": 1000, "width": 32, "dimension": 16}, grid={"depth": (3,)})
PAPER = Preset(seeds=3)
METRICS = {**MEASURED, "expected": "√(1 − (1 − κ)^(depth − 1)), where κ is 1/π for MaxMin, 2/π for the absolute value."}


def run(config: Config, seed: int) -> Outcome:
    """The objective of the frozen critic."""
    torch.manual_seed(seed)
    change, pair = chosen("change", config.change, CHANGES), high_dimensional_cone(config.dimension)
    activation, width = change.get("activation", "maxmin"), int(config.width * change.get("width", 1))
    constraint = Orthonormal(blocks=change.get("blocks"))
    widths = [config.dimension, *[width] * (config.depth - 1), 1]
    network = critic(widths, activation, change.get("bias", "none"), constraint=constraint)
    options: dict[str, Any] = {
        "steps": config.steps * change.get("steps", 1),
        "batch_size": config.batch_size,
        "learning_rate": change.get("learning_rate", config.learning_rate),
        **{name: change[name] for name in ("optimizer", "decay") if name in change},
    }
    expected = math.sqrt(1 - (1 - KEPT[activation]) ** (config.depth - 1))
    return Outcome(measured(pair, trained(pair, network, seed, **options), config.points) | {"expected": expected})
