"""What GroupSort does to pre-activations, for several sizes of the group (paper Figure 1).

A gaussian layer's outputs, unit by unit, before (a group of one) and after sorting within groups: the values are the
same, their places are not, so no norm changes.
"""

from dataclasses import dataclass

import torch

from ..activations import group_sort
from ..diagnostics import gradient_norm
from ..records import Metric
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    """One size of the group."""

    group_size: int = 5
    """Members of a group: 1 leaves all as it is, 2 is MaxMin, all units are FullSort."""
    units: int = 30
    """Of the layer."""


GRID = {"group_size": (1, 2, 5, 30)}
SMOKE = Preset({"units": 10}, grid={"group_size": (1, 2, 5, 10)})
PAPER = Preset()
METRICS = {
    "norm_ratio": Metric("‖after‖₂ / ‖before‖₂.", truth=1.0),
    "gradient_norm": Metric("‖∂(u·GroupSort(z))/∂z‖₂ at z = before, for a random direction u of norm 1.", truth=1.0),
    "moved": "The share of units whose value changed.",
}
CURVES = {"unit": "unit", "value": "value after sorting within groups"}


def run(config: Config, seed: int) -> Outcome:
    """The values after sorting."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(config.units, generator=generator, dtype=torch.float64)
    direction = torch.randn(config.units, generator=generator, dtype=torch.float64)
    direction /= direction.norm()
    after = group_sort(before, config.group_size)
    network = _Probe(config.group_size, direction)
    metrics = {
        "norm_ratio": float(after.norm() / before.norm()),
        "gradient_norm": float(gradient_norm(network, before[None])),
        "moved": float((after != before).double().mean()),
    }
    return Outcome(metrics, {"curve": {"unit": list(range(config.units)), "value": after.tolist()}})


class _Probe(torch.nn.Module):
    """z ↦ u·GroupSort(z)."""

    def __init__(self, group_size: int, direction: torch.Tensor) -> None:
        super().__init__()
        self.group_size, self.direction = group_size, direction

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return group_sort(z, self.group_size) @ self.direction
