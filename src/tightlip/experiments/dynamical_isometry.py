"""§4.4 and Figure 16: all singular values of the Jacobian through training, and gradients through fifty layers.

The paper: orthonormal GroupSort networks keep dynamical isometry throughout training, ReLU networks cannot have it.
Where no layer widens, all ten singular values of a MaxMin or FullSort network are K at every input and step: a theorem,
for each factor of Jᵀ keeps norms. Width 1024 widens 784 inputs; there they stay near K, and are not K. A gradient keeps
its norm through 49 hidden layers of width 64 as it does through three; through ReLU it falls at each layer.
The surface shows all ten: x is the place of the measurement, y the rank, z the mean over inputs.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..choices import chosen
from ..constraints import freeze
from ..descent import descend
from ..diagnostics import jacobian_singular_values
from .digits import SCORED, Material, Trained, batches, classifier, material, scored
from .protocol import Outcome, Preset

NETWORKS = {"3 × 512": (512,) * 3, "3 × 1024": (1024,) * 3, "49 × 64": (64,) * 49}
NETWORKS |= {"3 × 32": (32,) * 3, "12 × 16": (16,) * 12}
"""Widths of the hidden layers; the last two are for a smoke test."""

DEEP = 10
"""Networks of more hidden layers are drawn by layer, others by step."""


@dataclass(frozen=True)
class Config:
    """One network."""

    activation: str = "maxmin"
    """maxmin (sorts pairs), fullsort (sorts all) or relu."""
    network: str = "3 × 512"
    """Hidden layers and their width."""
    data: str = "mnist"
    """Data set, by its name or path."""
    K: float = 10.0
    """The constant."""
    steps: int = 4096
    """Of the optimizer; measured before the first, after 1, 4, 16, … and at the end."""
    batch_size: int = 256
    """Examples per step."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to zero along a cosine."""
    inputs: int = 150
    """Training inputs that all is measured at."""


GRID = {"activation": ("relu", "maxmin", "fullsort"), "network": ("3 × 512", "3 × 1024", "49 × 64")}
SMALL = {"activation": ("relu", "maxmin"), "network": ("3 × 32", "12 × 16")}
SMOKE = Preset({"data": "mnist5k", "steps": 4, "inputs": 20}, grid=SMALL)
PAPER = Preset(seeds=3)
METRICS = {
    "smallest": "The smallest singular value of the Jacobian, of all inputs and measurements.",
    "largest": "The largest of all.",
    "smallest_start": "The smallest before training.",
    "largest_start": "The largest before training.",
    "smallest_end": "The smallest after training.",
    "largest_end": "The largest after training.",
    "gradient_start": "Before training, ‖∂L/∂x‖₂ / ‖∂L/∂h‖₂ with the last hidden layer h: the median over inputs.",
    "gradient_end": "The same after training.",
    **SCORED,
}
CURVES = {
    "place": "1 + log₄ of the step; 0 at the start",
    "smallest": "smallest singular value",
    "median": "median singular value",
    "largest": "largest singular value",
    "layer": "hidden layer; 0 is the image",
    "gradient_start": "‖∂L/∂h‖₂ before training, the last layer's being 1",
    "gradient_end": "‖∂L/∂h‖₂ after training, the last layer's being 1",
}


def run(config: Config, seed: int) -> Outcome:
    """Singular values at each measurement, and gradients by layer before and after."""
    hidden = chosen("network", config.network, NETWORKS)
    images = material(config.data, seed)
    torch.manual_seed(seed)
    network = classifier(images, hidden, config.activation, config.K)
    x, y = images.parts.train.images[: config.inputs], images.parts.train.labels[: config.inputs]
    start = gradients(freeze(network), x, y)
    result, values = _watched(network, images, x, config, seed)
    end = gradients(result.network, x, y)
    ratios = {"gradient_start": start, "gradient_end": end}
    metrics = extremes(values) | {name: float(norms[0].median()) for name, norms in ratios.items()}
    by_layer = {"layer": list(range(len(start)))} | {
        name: norms.median(dim=1).values.tolist() for name, norms in ratios.items()
    }
    drawn = {"curve": by_layer if len(hidden) > DEEP else by_step(values), "surface": surface(values)}
    return Outcome(metrics | scored(result, images), drawn, images.source)


@dataclass
class Watch:
    """The singular values (inputs, rank) of a network's Jacobian at inputs, by step, and the seconds they took."""

    network: nn.Module
    x: Tensor
    values: dict[int, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self, step: int) -> None:
        """Measure, if this is step 0 or a power of four."""
        if is_measured(step):
            began = time.process_time()
            self.values[step] = jacobian_singular_values(self.network, self.x)
            self.seconds += time.process_time() - began


def _watched(
    network: nn.Module, images: Material, x: Tensor, config: Config, seed: int
) -> tuple[Trained, dict[int, Tensor]]:
    """The network trained to its last step, and its singular values on the way and at the end."""
    watch, began = Watch(network, x), time.process_time()
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    drawn = batches(images.parts.train, config.batch_size, config.steps, seed)
    descend(network, optimizer, lambda batch: cross_entropy(network(batch[0]), batch[1]), drawn, schedule, watch)
    result = Trained(freeze(network), round(time.process_time() - began - watch.seconds, 3))
    return result, watch.values | {config.steps: jacobian_singular_values(result.network, x)}


def is_measured(step: int) -> bool:
    """Whether a step is 0 or a power of four."""
    return step == 0 or (step & (step - 1) == 0 and step.bit_length() % 2 == 1)


def gradients(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """‖∂L/∂h_l‖₂ / ‖∂L/∂h_H‖₂ (layers, inputs) of the cross-entropy L, in float64.

    h_0 is the input, h_H the last hidden layer. The network is a chain of frozen layers, and is copied.
    """
    values, hidden = x.double().requires_grad_(), []
    for layer in copy.deepcopy(network).double().children():
        if isinstance(layer, nn.Linear):
            hidden.append(values)
        values = layer(values)
    slopes = torch.autograd.grad(cross_entropy(values, y, reduction="sum"), hidden)
    norms = torch.stack([torch.linalg.vector_norm(slope, dim=1) for slope in slopes])
    return norms / norms[-1]


def extremes(values: Mapping[int, Tensor]) -> dict[str, float]:
    """The smallest and the largest singular values: of all, of the first measurement, of the last."""
    every = torch.cat(list(values.values()))
    looked_at = {"": every, "_start": values[min(values)], "_end": values[max(values)]}
    return {
        f"{name}{when}": float(edge(part))
        for when, part in looked_at.items()
        for name, edge in (("smallest", torch.min), ("largest", torch.max))
    }


def place(step: int) -> float:
    """Where a measurement is drawn: 0, 1, 2, 3 for the steps 0, 1, 4, 16."""
    return 1 + log(step, 4) if step else 0.0


def by_step(values: Mapping[int, Tensor]) -> dict[str, list[float]]:
    """Over all inputs and ranks."""
    edges: dict[str, Callable[[Tensor], Tensor]] = {
        "smallest": torch.min,
        "median": torch.median,
        "largest": torch.max,
    }
    columns = {name: [float(edge(part)) for part in values.values()] for name, edge in edges.items()}
    return {"place": [place(step) for step in values]} | columns


def surface(values: Mapping[int, Tensor]) -> dict[str, list[float] | list[list[float]]]:
    """The mean over inputs by measurement and rank."""
    means = torch.stack([part.mean(dim=0) for part in values.values()])
    ranks = [float(rank) for rank in range(1, means.shape[1] + 1)]
    return {"x": [place(step) for step in values], "y": ranks, "z": means.tolist()}
