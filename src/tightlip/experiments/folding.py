"""A network written down, not trained: two square pyramids by three foldings (paper Figure 2).

Rigid maps and absolute values, so every weight is orthonormal and the slope is 1 almost everywhere.
"""

from dataclasses import dataclass

import torch

from ..audit import lipschitz
from ..constructions import square_pyramids
from ..diagnostics import gradient_norm
from ..records import Metric
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One pair of pyramids."""

    distance: float = 2.0
    """Between the two apexes."""
    height: float = 1.0
    """Of the apexes above zero."""


GRID = {"distance": (2.0, 3.0)}
SMOKE = Preset(grid={"distance": (2.0,)})
PAPER = Preset()
METRICS = {
    "farthest": Metric("The largest |network − closed form| on [−3, 3]².", truth=0.0),
    "constant": Metric("The audited Lipschitz constant, from the 2-norm to the 2-norm.", rounding="up", truth=1.0),
    "smallest_gradient_norm": Metric("The least ‖∇f‖₂ among random points of the square.", truth=1.0),
}


def run(config: Config, seed: int) -> Outcome:
    """How far the network is from the pyramids, and its surface."""
    apexes = torch.tensor([[-config.distance / 2, 0.0], [config.distance / 2, 0.0]], dtype=torch.float64)
    first, second = apexes.tolist()
    network = square_pyramids(first, second, config.height)
    x = torch.linspace(-3, 3, 49, dtype=torch.float64)
    points = torch.cartesian_prod(x, x)
    truth = config.height - (points[:, None] - apexes).abs().amax(2).amin(1)
    with torch.no_grad():
        heights = network(points).squeeze(1)
    anywhere = 6 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 3
    metrics = {
        "farthest": float((heights - truth).abs().max()),
        "constant": lipschitz(network, 2, 2).constant,
        "smallest_gradient_norm": float(gradient_norm(network, anywhere).min()),
    }
    return Outcome(metrics, {"surface": {"x": x.tolist(), "y": x.tolist(), "z": heights.reshape(49, 49).tolist()}})
