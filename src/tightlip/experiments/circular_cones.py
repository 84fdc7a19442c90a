"""What each activation makes of three cones in the plane (paper Figure 5).

A critic tells the centers (−2, 0), (0, 0), (2, 0) from the unit circles around them; W1 = 1, attained by minus the
distance to the nearest center. Networks that lose gradient norm distort the shape to gain slope.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..records import Metric
from ..transport import circular_cones
from .critics import MEASURED, critic, distance_to_potential, measured, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One activation."""

    activation: str = "maxmin"
    """relu, maxout (the larger of two), abs, maxmin (sorts pairs), groupsort4 (sorts groups of four) or fullsort."""
    width: int = 256
    """Of the hidden layers, before the activation."""
    depth: int = 7
    """Linear layers."""
    bias: str = "zero"
    """How the trained biases begin: zero or random."""
    learning_rate: float = 1.5e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 2000
    """Of the optimizer."""
    batch_size: int = 255
    """Samples of each distribution per step."""
    points: int = 100_000
    """Fresh points that the objective is measured on."""


GRID = {"activation": ("relu", "maxout", "abs", "maxmin", "groupsort4", "fullsort")}
SMOKE = Preset({"width": 16, "depth": 4, "steps": 30, "points": 3000}, grid={"activation": ("relu", "maxmin")})
PAPER = Preset(seeds=3)
METRICS = {
    **MEASURED,
    "farthest": "sup |f + c − f*| on [−3, 3] × [−1, 1] with the best constant c, f* the true potential.",
    "farthest_on_discs": Metric("The same on the three unit discs, where the potential is unique.", truth=0.0),
}


def run(config: Config, seed: int) -> Outcome:
    """The objective of the frozen critic, its distance from the true potential, and its surface."""
    torch.manual_seed(seed)
    pair = circular_cones()
    network = critic([2, *[config.width] * (config.depth - 1), 1], config.activation, config.bias)
    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    frozen = trained(pair, network, seed, **options)
    fine = grid(121, 41, 3.0, 1.0)
    discs = fine[torch.cdist(fine, pair.centers).amin(1) <= 1]
    far = {
        "farthest": distance_to_potential(pair, frozen, fine),
        "farthest_on_discs": distance_to_potential(pair, frozen, discs),
    }
    x, y = torch.linspace(-3.5, 3.5, 57), torch.linspace(-1.5, 1.5, 25)
    with torch.no_grad():
        heights = frozen(torch.cartesian_prod(x, y)).reshape(len(x), len(y))
    surface = {"x": x.tolist(), "y": y.tolist(), "z": (heights - heights.max()).tolist()}
    return Outcome(measured(pair, frozen, config.points) | far, {"surface": surface})


def grid(columns: int, rows: int, x: float, y: float) -> Tensor:
    """Points of [−x, x] × [−y, y]."""
    return torch.cartesian_prod(torch.linspace(-x, x, columns), torch.linspace(-y, y, rows))
