"""A zigzag on the line, written down as a network of two units in each layer, and trained for (paper §6).

The target rises by 2, falls by 1 and rises by 2, with slopes ±1: no network of MaxMin and 2-norm 1 is it, and networks
of two units come as near as one likes (docs/theory/universality.md). So what a trained network lacks is what training
does not find, not what networks cannot represent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..constructions import zigzag_interpolant
from ..descent import descend
from ..errors import TightlipError
from ..networks import mlp
from ..records import Metric
from .protocol import Outcome, Preset

NETWORKS = {
    "written down": None,
    "trained, width 2": 2,
    "trained, width 32": 32,
    "trained, width 128": 128,
}

CORNERS, HEIGHTS = (0.0, 2.0, 3.0, 5.0), (0.0, 2.0, 1.0, 3.0)

ERRORS = [10 ** (-k / 8) for k in range(8, 89)]
"""Those that may be asked of the network that is written down, from 0.1 to 1e-11."""


@dataclass(frozen=True)
class Config:
    """One network."""

    network: str = "written down"
    """Written down with two units in each layer, or trained with as many as its name says."""
    layers: int = 8
    """Linear layers; MaxMin between them."""
    learning_rate: float = 3e-3
    """Of Adam; it falls to zero along a cosine."""
    steps: int = 4000
    """Of the optimizer."""
    batch_size: int = 256
    """Points of the line per step, new ones each time."""


GRID = {"network": tuple(NETWORKS), "layers": (4, 8, 12)}
SMOKE = Preset({"steps": 10, "batch_size": 16}, grid={"network": ("written down", "trained, width 2"), "layers": (4,)})
PAPER = Preset(seeds=3)
METRICS = {
    "error": Metric("sup |f(x) − g(x)| on [0, 5]: how far the network is from the zigzag at worst.", truth=0.0),
    "mean_error": "The mean of |f(x) − g(x)|.",
    "constant": Metric("The audited Lipschitz constant of the network.", "up"),
}
CURVES = {"x": "x", "f": "f(x)"}


def target(x: Tensor) -> Tensor:
    """The zigzag."""
    return torch.minimum(x, torch.maximum(4 - x, x - 2))


TRUE_CURVES = {"f": lambda x: min(x, max(4 - x, x - 2))}


def run(config: Config, seed: int) -> Outcome:
    """What the network lacks, on 5,001 points."""
    width = chosen("network", config.network, NETWORKS)
    network = written_down(config.layers) if width is None else trained(config, width, seed)
    x = torch.linspace(0, 5, 5001, dtype=torch.float64)
    with torch.no_grad():
        values = network(x[:, None].to(next(network.parameters()).dtype))[:, 0].double()
    off = (values - target(x)).abs()
    metrics = {"error": float(off.max()), "mean_error": float(off.mean()), "constant": lipschitz(network, 2).constant}
    return Outcome(metrics, {"curve": {"x": x[::50].tolist(), "f": values[::50].tolist()}})


def written_down(layers: int) -> nn.Sequential:
    """The nearest that so many layers are enough for.

    Raises:
        TightlipError: if they are too few for the largest error that is tried.
    """
    best = None
    for error in ERRORS:
        network = zigzag_interpolant(torch.tensor(CORNERS), torch.tensor(HEIGHTS), error)
        if sum(isinstance(layer, nn.Linear) for layer in network) <= layers:
            best = network
    if best is None:
        raise TightlipError(f"{layers} layers are too few: give 4 or more")
    return best


def trained(config: Config, width: int, seed: int) -> nn.Module:
    """One that least squares has brought as near as it could."""
    torch.manual_seed(seed)
    network = mlp([1, *[width] * (config.layers - 1), 1])
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)

    def loss(step: int) -> Tensor:
        x = 5 * torch.rand(config.batch_size, 1)
        return (network(x) - target(x)).square().mean()

    descend(network, optimizer, loss, range(config.steps), schedule)
    return freeze(network)
