"""What each activation makes of |x|, the simplest function that ReLU networks of norm 1 cannot represent (Figure 4).

A critic tells 0 from ±1 on the line; W1 = 1, attained by f(x) = −|x|. The objective is exact:
the sphere has two points.
"""

from dataclasses import dataclass

import torch

from ..records import Metric
from ..transport import absolute_value
from .critics import MEASURED, critic, distance_to_potential, measured, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One activation."""

    activation: str = "maxmin"
    """relu, tanh, maxout (the larger of two), abs, maxmin (sorts pairs) or fullsort (sorts all)."""
    width: int = 128
    """Of the two hidden layers, before the activation."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 1000
    """Of the optimizer."""
    batch_size: int = 32
    """Samples of each distribution per step."""


GRID = {"activation": ("relu", "abs", "maxmin", "fullsort", "maxout", "tanh")}
SMOKE = Preset({"width": 16, "steps": 10})
PAPER = Preset(seeds=3)
METRICS = {**MEASURED, "farthest": Metric("sup |f(x) + c − (−|x|)| on [−1, 1], with the best constant c.", truth=0.0)}
CURVES = {"x": "x", "f": "f(x) − f(0) as learned"}
TRUE_CURVES = {"f": lambda x: -abs(x)}


def run(config: Config, seed: int) -> Outcome:
    """The exact objective, and the learned function on [−1.5, 1.5]."""
    torch.manual_seed(seed)
    pair = absolute_value()
    network = critic([1, config.width, config.width, 1], config.activation, bias="random")
    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    frozen = trained(pair, network, seed, **options)
    x = torch.linspace(-1.5, 1.5, 121)[:, None]
    with torch.no_grad():
        values = (frozen(x) - frozen(torch.zeros(1, 1))).squeeze(1)
    inside = torch.linspace(-1, 1, 201)[:, None]
    metrics = {**measured(pair, frozen, 2), "farthest": distance_to_potential(pair, frozen, inside)}
    return Outcome(metrics, {"curve": {"x": x.squeeze(1).tolist(), "f": values.tolist()}})
