"""Statements of the paper that need no table of their own, each beside the numbers that test it.

infinity_norm: "ReLU networks cannot approximate absolute value with ∞-norm constraints" (§5, after Huster et al.).
True. No elementwise monotone activation gets beyond an objective of 1/2 (docs/theory/universality.md); ReLU gets there.
larger_K: a ReLU critic of three cones, trained under norm 1, stays wrong when it is multiplied by the best K after it:
what it loses of the shape in Figure 5 is no loss of scale.
gradient_penalty, jacobian_penalty: "these methods don't provably enforce a Lipschitz constraint" (§5). True: slopes are
small where the penalty looks, larger elsewhere, and what can be proven is larger by far.
backpropagated_norm: "the gradient norm is non-increasing as it is processed by each layer" (§3). True of both; MaxMin
keeps all of it, ReLU a part.
fifteen_iterations: "with p = 1 around 15 iterations is typically sufficient" (§4.2.1). True from weights as training
leaves them, false from a square Gaussian matrix, whose smallest singular value is too small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..audit import lipschitz
from ..choices import chosen
from ..constraints import RowL1Ball
from ..data import load, split
from ..descent import descend
from ..diagnostics import gradient_norm, jacobian_singular_values
from ..losses import kantorovich
from ..penalties import gradient_penalty, jacobian_spectral_penalty
from ..records import Metric
from ..transport import absolute_value, circular_cones, high_dimensional_cone
from . import bjorck_convergence
from .circular_cones import grid
from .critics import critic, distance_to_potential, linear_layers, trained
from .protocol import Outcome, Preset

DEPTH = 8
"""Linear layers of the critics whose gradients are followed backwards."""


@dataclass(frozen=True)
class Config:
    """One statement."""

    claim: str = "infinity_norm"
    """infinity_norm, larger_K, gradient_penalty, jacobian_penalty, backpropagated_norm or fifteen_iterations."""
    width: int = 240
    """Of hidden layers; the matrices of fifteen_iterations are three times as large."""
    steps: int = 1000
    """Of the optimizer, where something is trained."""
    learning_rate: float = 1e-2
    """Of Adam; it falls to zero along a cosine."""


Numbers = dict[str, float | None]


def _infinity_norm(config: Config, seed: int) -> Outcome:
    """Critics of 0 against ±1 with rows of L1 norm at most 1."""
    pair, found, constants = absolute_value(), dict[str, float | None](), []
    for name in ("relu", "maxmin"):
        network = critic([1, config.width, config.width, 1], name, constraint=RowL1Ball())
        for layer in linear_layers(network):  # begins with rows of norm 1, not below it
            layer.weight.data /= layer.weight.data.abs().sum(1, keepdim=True)
        frozen = trained(pair, network, seed, batch_size=32, **_training(config))
        found[f"{name}_objective"] = pair.objective(frozen, 2)[0]
        constants.append(lipschitz(frozen, inf).constant)
    return Outcome(found | {"constant": max(constants)})


def _larger_constant(config: Config, seed: int) -> Outcome:
    """How far critics of three cones are from the potential, as they are and multiplied by the best K."""
    pair, points, found = circular_cones(), grid(121, 41, 3.0, 1.0), dict[str, float | None]()
    discs = points[torch.cdist(points, pair.centers).amin(1) <= 1]
    for name in ("relu", "maxmin"):
        network = critic([2, *[config.width] * 3, 1], name)
        frozen = trained(pair, network, seed, **_training(config))
        found[f"{name}_error"] = distance_to_potential(pair, frozen, discs)
        with torch.no_grad():
            best = rescaled_distance(frozen(discs).squeeze(1), pair.potential(discs))
        found |= {f"{name}_best_error": best[0], f"{name}_best_K": best[1]}
    return Outcome(found)


def rescaled_distance(values: Tensor, truth: Tensor, most: float = 20.0, count: int = 4001) -> tuple[float, float]:
    """The least sup |K·f + c − f*| over K from 0 to ``most`` and all c, and its K; ``count`` values of K are tried."""
    scales = torch.linspace(0.0, most, count, dtype=torch.float64)
    gaps = [scale * values.double() - truth.double() for scale in scales]
    errors = torch.stack([(gap.max() - gap.min()) / 2 for gap in gaps])
    return float(errors.min()), float(scales[errors.argmin()])


def _gradient_penalty(config: Config, seed: int) -> Outcome:
    """A free ReLU critic of three cones with ten times the penalty of Gulrajani et al."""
    pair, generator = circular_cones(), torch.Generator().manual_seed(seed)
    network = free([2, *[config.width] * 3, 1])

    def loss(_: int) -> Tensor:
        first, second = pair.sample(256, generator)
        return kantorovich(network(first), network(second)) + 10 * gradient_penalty(
            network, first, second, generator=generator
        )

    _descend(network, loss, config)
    first, second = pair.sample(2000, generator)
    asked = first + torch.rand(2000, 1, generator=generator) * (second - first)
    elsewhere = gradient_norm(network, grid(201, 201, 10.0, 10.0))
    return _slopes(network, gradient_norm(network, asked), elsewhere)


def _jacobian_penalty(config: Config, seed: int) -> Outcome:
    """A free ReLU classifier of digits with 0.05 times the penalty on the Jacobian, as the paper's baseline has it."""
    data, generator = load("mnist5k"), torch.Generator().manual_seed(seed)
    part, network = split(data, seed).train, free([784, config.width, config.width, 10])
    images, labels = part.images.flatten(1), part.labels

    def loss(_: int) -> Tensor:
        batch = torch.randint(len(images), (128,), generator=generator)
        penalty = jacobian_spectral_penalty(network, images[batch], iterations=1, generator=generator)
        return functional.cross_entropy(network(images[batch]), labels[batch]) + 0.05 * penalty

    _descend(network, loss, config)
    noise = 2 * torch.rand(256, 784, generator=generator) - 1
    asked, elsewhere = (jacobian_singular_values(network, x)[:, 0] for x in (images[:256], noise))
    return _slopes(network, asked, elsewhere, {"name": data.name, "sha256": data.sha256})


def _slopes(network: nn.Module, asked: Tensor, elsewhere: Tensor, data: dict[str, str] | None = None) -> Outcome:
    metrics = {
        "slope_asked": float(asked.mean()),
        "steepest_found": max(float(asked.max()), float(elsewhere.max())),
        "constant": lipschitz(network, 2, 2).constant,
    }
    return Outcome(metrics, data=data) if data else Outcome(metrics)


def _backpropagated_norm(config: Config, seed: int) -> Outcome:
    """Orthonormal critics of one cone, none of whose layers widens: ‖∂f/∂h‖ from the input to the last layer."""
    pair = high_dimensional_cone(config.width)
    curve: dict[str, list[float]] = {"layer": [float(layer) for layer in range(DEPTH)]}
    for name in ("relu", "maxmin"):
        network = critic([*[config.width] * DEPTH, 1], name)
        curve[f"{name}_at_start"] = backpropagated(network, pair.sample(1000)[1])
        frozen = trained(pair, network, seed, **_training(config))
        curve[f"{name}_trained"] = backpropagated(frozen, pair.sample(1000)[1])
    kept = {f"{name.replace('at_start', 'start')}_kept": norms[0] for name, norms in curve.items() if name != "layer"}
    return Outcome(kept, {"curve": curve})


def backpropagated(network: nn.Module, x: Tensor) -> list[float]:
    """The mean over inputs of ‖∂f/∂h_l‖₂: h_0 = x, and h_l is what comes out of the l-th activation, from 1 on."""
    values = x.detach().requires_grad_()
    hidden = [values]
    for layer in network.children():
        values = layer(values)
        if not isinstance(layer, nn.Linear) and values.shape[1] > 1:
            hidden.append(values)
    gradients = torch.autograd.grad(values.sum(), hidden)
    return [float(torch.linalg.vector_norm(gradient, dim=1).mean()) for gradient in gradients]


def _fifteen_iterations(config: Config, seed: int) -> Outcome:
    """Björck's first order from four starts, after 15 iterations; and how many a square Gaussian matrix needs."""
    metrics: Numbers = {}
    for start in bjorck_convergence.GRID["start"]:
        found = bjorck_convergence.run(bjorck_convergence.Config(start=start, size=3 * config.width), seed).metrics
        metrics |= {f"error_{start}": found["error_after_15_steps"], f"iterations_{start}": found["steps"]}
    return Outcome(metrics)


CLAIMS: dict[str, Callable[[Config, int], Outcome]] = {
    "infinity_norm": _infinity_norm,
    "larger_K": _larger_constant,
    "gradient_penalty": _gradient_penalty,
    "jacobian_penalty": _jacobian_penalty,
    "backpropagated_norm": _backpropagated_norm,
    "fifteen_iterations": _fifteen_iterations,
}

GRID = {"claim": tuple(CLAIMS)}
SMOKE = Preset({"width": 16, "steps": 8})
PAPER = Preset(seeds=3)
METRICS = {
    "relu_objective": "infinity_norm: mean f(0) − mean f(±1) of the ReLU network; a theorem says 1/2 at most.",
    "maxmin_objective": Metric("infinity_norm: the same of the MaxMin network.", truth=1.0),
    "constant": Metric("The audited Lipschitz constant (of the two of infinity_norm, the larger).", rounding="up"),
    "relu_error": "larger_K: sup |f + c − f*| over the three discs of the ReLU critic, with the best c.",
    "relu_best_error": "larger_K: the same of K·f, with the best K; K = 0 has 1/2.",
    "relu_best_K": "larger_K: that K.",
    "maxmin_error": Metric("larger_K: sup |f + c − f*| of the MaxMin critic.", truth=0.0),
    "maxmin_best_error": Metric("larger_K: the same of K·f, with the best K.", truth=0.0),
    "maxmin_best_K": Metric("larger_K: that K.", truth=1.0),
    "slope_asked": "penalties: the mean slope where the penalty looks; that of gradient_penalty asks for 1.",
    "steepest_found": "penalties: the largest slope found, there and elsewhere; the true constant is not below it.",
    "relu_start_kept": "backpropagated_norm: ‖∂f/∂x‖₂ of the ReLU critic before training; 1 at the last layer.",
    "relu_trained_kept": "backpropagated_norm: the same after training.",
    "maxmin_start_kept": Metric("backpropagated_norm: of the MaxMin critic before training.", truth=1.0),
    "maxmin_trained_kept": Metric("backpropagated_norm: the same after training.", truth=1.0),
    **{
        f"{word}_{start}": f"fifteen_iterations: {meaning} {start} start (see bjorck_convergence)."
        for start in bjorck_convergence.GRID["start"]
        for word, meaning in (
            ("error", "‖I − WᵀW‖₂ after 15 iterations from the"),
            ("iterations", "iterations until it is 1e-6 from the"),
        )
    },
}
CURVES = {
    "layer": "layer, 0 is the input",
    "relu_at_start": "‖∂f/∂h‖₂, ReLU before training",
    "relu_trained": "‖∂f/∂h‖₂, ReLU after training",
    "maxmin_at_start": "‖∂f/∂h‖₂, MaxMin before training",
    "maxmin_trained": "‖∂f/∂h‖₂, MaxMin after training",
}


def run(config: Config, seed: int) -> Outcome:
    """The numbers that one statement is about."""
    torch.manual_seed(seed)
    return chosen("claim", config.claim, CLAIMS)(config, seed)


def free(widths: list[int]) -> nn.Sequential:
    """A ReLU network that nothing constrains."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _training(config: Config) -> dict[str, float]:
    return {"steps": config.steps, "learning_rate": config.learning_rate}


def _descend(network: nn.Module, loss: Callable[[int], Tensor], config: Config) -> None:
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    descend(network, optimizer, loss, range(config.steps), schedule)
