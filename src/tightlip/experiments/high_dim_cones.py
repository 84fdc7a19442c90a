"""How well activations and depths separate the center of a sphere from the sphere in R^d (paper Table 1).

W1 = 1, attained by f(x) = −‖x‖ alone, whose gradient has norm 1 everywhere. All activations are trained alike. Depth
counts linear layers. One setting serves all cells; docs/theory/depth.md says what each part of it is worth.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from ..transport import high_dimensional_cone
from .critics import MEASURED, critic, measured, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One cell of the table."""

    activation: str = "maxmin"
    """relu, maxout (the larger of two), maxmin (sorts pairs) or fullsort (sorts all)."""
    dimension: int = 128
    """d, of the space that the sphere lies in."""
    depth: int = 3
    """Linear layers."""
    width: int = 512
    """Of the hidden layers, before the activation."""
    learning_rate: float = 3.5e-3
    """Of Adam; it falls to zero along a cosine. A higher one costs Maxout, a lower one ReLU, both at depth 3."""
    beta2: float = 0.95
    """How long Adam remembers the squares of gradients: 0.999, its default, costs MaxMin about 0.001."""
    steps: int = 3000
    """Of the optimizer."""
    batch_size: int = 128
    """Points of the sphere per step."""
    bias: str = "random"
    """none, or trained biases that begin at zero or random, which is where torch puts them."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


GRID = {"activation": ("relu", "maxout", "maxmin", "fullsort"), "dimension": (128, 256, 512), "depth": (3, 7)}
SMOKE = Preset({"steps": 20, "points": 2000, "width": 64}, grid={"dimension": (128,), "depth": (3,)})
PAPER = Preset(seeds=3)
METRICS = {
    **MEASURED,
    "objective": replace(MEASURED["objective"], published="published"),
    "published": "The objective in the paper's Table 1.",
}
CURVES = {"step": "step of the optimizer", "objective": "objective of the batch"}
PUBLISHED = {
    "relu": (0.51, 0.60, 0.50, 0.53, 0.46, 0.49),
    "maxout": (0.66, 0.71, 0.60, 0.66, 0.52, 0.56),
    "maxmin": (0.87, 0.95, 0.83, 0.93, 0.72, 0.88),
    "fullsort": (1.00, 1.00, 1.00, 1.00, 1.00, 1.00),
}
"""By dimension, and within each by depth, as in `GRID`."""


def run(config: Config, seed: int) -> Outcome:
    """The objective of the frozen critic."""
    torch.manual_seed(seed)
    pair = high_dimensional_cone(config.dimension)
    network = critic([config.dimension, *[config.width] * (config.depth - 1), 1], config.activation, config.bias)
    curve: dict[str, list[float]] = {"step": [], "objective": []}

    def watch(step: int) -> None:
        if step % max(1, config.steps // 40) == 0:
            curve["step"].append(step)
            curve["objective"].append(
                pair.objective(network, config.batch_size, torch.Generator().manual_seed(step))[0]
            )

    adam = partial(torch.optim.Adam, betas=(0.9, config.beta2))
    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    frozen = trained(pair, network, seed, optimizer=adam, watch=watch, **options)
    return Outcome(measured(pair, frozen, config.points) | {"published": published(config)}, {"curve": curve})


def published(config: Config) -> float | None:
    """The paper's value for a cell of the table, None for any other."""
    cells = [(dimension, depth) for dimension in GRID["dimension"] for depth in GRID["depth"]]
    cell = (config.dimension, config.depth)
    return PUBLISHED[config.activation][cells.index(cell)] if cell in cells else None
