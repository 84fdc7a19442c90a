"""A function through any data, no steeper than the data, without training (paper Theorem 3, Figure 3).

`lattice_interpolant` takes the maximum over samples of minima of affine functions, as the proof of Theorem 3 does. Here
its samples come from the distance to the nearest of four points, a 1-Lipschitz function; it can be wrong elsewhere by
twice the covering radius of the samples at most.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..audit import lipschitz
from ..constructions import lattice_interpolant
from ..norms import as_norm
from ..records import Metric
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One norm, and so many samples."""

    p: str = "2"
    """The norm of the inputs: 1, 2 or inf."""
    samples: int = 100
    """Random points of [−1, 1]^d."""
    dimension: int = 2
    """d."""
    points: int = 2000
    """Fresh points that the distance from the true function is measured at."""


GRID = {"p": ("1", "2", "inf"), "samples": (20, 200, 2000), "dimension": (2, 10)}
SMOKE = Preset({"points": 200}, grid={"samples": (20, 100), "dimension": (2,)})
PAPER = Preset()
METRICS = {
    "error_at_samples": Metric("The largest |h(x) − value| over the samples.", truth=0.0),
    "constant": Metric("The audited Lipschitz constant, from the p-norm to the ∞-norm.", rounding="up"),
    "farthest": "The largest distance from the true function at the fresh points.",
    "allowed": "Twice the largest distance of a fresh point from the samples: farthest cannot exceed it.",
    "build_seconds": "To build it and evaluate it at all samples.",
}


def run(config: Config, seed: int) -> Outcome:
    """Errors, the audited constant, and in two dimensions the surface."""
    p, generator = as_norm(config.p), torch.Generator().manual_seed(seed)
    samples, fresh, nearest = (
        2 * torch.rand(count, config.dimension, generator=generator, dtype=torch.float64) - 1
        for count in (config.samples, config.points, 4)
    )
    values = distance(samples, nearest, p).amin(1)
    began = time.perf_counter()
    with torch.no_grad():
        network = lattice_interpolant(samples, values, p)
        error = float((network(samples).squeeze(1) - values).abs().max())
        seconds = time.perf_counter() - began
        far = (network(fresh).squeeze(1) - distance(fresh, nearest, p).amin(1)).abs()
    metrics = {
        "error_at_samples": error,
        "constant": lipschitz(network, p, math.inf).constant,
        "farthest": float(far.max()),
        "allowed": 2 * float(distance(fresh, samples, p).amin(1).max()),
        "build_seconds": seconds,
    }
    return Outcome(metrics, {"surface": surface(network)} if config.dimension == 2 else {})


def distance(a: Tensor, b: Tensor, p: float) -> Tensor:
    """‖a_i − b_j‖_p."""
    return torch.cdist(a, b, p, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def surface(network: torch.nn.Module) -> dict[str, list[Any]]:
    """Heights over [−1, 1]²."""
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    heights = network(torch.cartesian_prod(x, x)).reshape(41, 41)
    return {"x": x.tolist(), "y": x.tolist(), "z": heights.tolist()}
