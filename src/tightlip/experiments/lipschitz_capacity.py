"""Figure 6: how much of the constant K networks of digits use, and how often their units are positive.

The paper: GroupSort uses 10 of 10, ReLU about 8; the smaller K, the more units are positive, at worst about 10 % of
them always; without a constraint almost none more often than 40 % of the time. Where no layer widens (784, 512, 512,
512, 10), all singular values of the Jacobian of an orthonormal MaxMin or GroupSort network are K, at every input and
step: a theorem, for each factor of Jᵀ keeps norms. Width 1024 widens, and there K is only a bound, of which most is
used. The loss is the plain cross-entropy, since one that asks for a margin changes what is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..choices import chosen
from ..diagnostics import ActivationStatistics, activation_statistics, jacobian_singular_values
from ..records import Metric
from .digits import SCORED, classifier, material, scored, trained
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Network:
    """One of those compared; without a K there is no constraint, and weights begin as ``start`` says."""

    activation: str
    K: float | None
    start: str = "torch"
    published: float | None = None
    """What the paper says of ``largest``, in words: about 8, or tight."""


NETWORKS = {
    "10-Lipschitz maxmin": Network("maxmin", 10.0, published=10.0),
    "10-Lipschitz groupsort4": Network("groupsort4", 10.0, published=10.0),
    "10-Lipschitz relu": Network("relu", 10.0, published=8.0),
    "3-Lipschitz relu": Network("relu", 3.0),
    "1-Lipschitz relu": Network("relu", 1.0),
    "free relu": Network("relu", None),
    "free relu, orthogonal start": Network("relu", None, "orthogonal"),
}

HIDDEN_LAYERS = 3

THRESHOLDS = 50


@dataclass(frozen=True)
class Config:
    """One network."""

    network: str = "10-Lipschitz maxmin"
    """Constant and activation; free ones have no constraint, and begin as torch has it, or orthogonal with the gain
    1/√fan_in, as in the paper's code."""
    width: int = 512
    """Of the three hidden layers."""
    data: str = "mnist"
    """Data set, by its name or path."""
    epochs: int = 20
    """Passes over the training data; the one of the best validation accuracy is kept."""
    batch_size: int = 256
    """Examples per step."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to zero along a cosine."""
    inputs: int = 2000
    """Training inputs at which the Jacobian is looked at; units are, at all of them."""


GRID = {"network": tuple(NETWORKS), "width": (512, 1024)}
SMOKE = Preset({"data": "mnist5k", "epochs": 1, "inputs": 50}, grid={"width": (32,)})
PAPER = Preset(seeds=3)
METRICS = {
    "largest": Metric("The largest σ_max of the Jacobian over the training inputs.", published="published"),
    "published": "What the paper says of it: tight for GroupSort, for ReLU closer to 8 than to 10.",
    "median": "The median of σ_max.",
    "smallest": "The smallest σ_max.",
    "used": "The largest σ_max divided by K.",
    "active_40": "The share of units that are positive at 40 % of the training inputs or more.",
    "active_90": "The share that is positive at 90 % or more.",
    "always": "The share that is positive at 99 % or more.",
    "never": "The share that is positive at none: dead.",
    **SCORED,
}
LAYERS = ("first", "second", "third")
CURVES = {
    "tau": "threshold τ, or quantile",
    "spectral_norm": "quantile of σ_max",
    "positive": "units positive at τ of inputs",
    **{f"positive_{place}": f"units positive, {name} hidden layer" for place, name in enumerate(LAYERS, 1)},
}


def run(config: Config, seed: int) -> Outcome:
    """σ_max of the frozen network over training inputs, and how often its units are positive."""
    known = chosen("network", config.network, NETWORKS)
    images = material(config.data, seed)
    torch.manual_seed(seed)
    network = classifier(images, [config.width] * HIDDEN_LAYERS, known.activation, known.K, known.start)
    options = {"epochs": config.epochs, "batch_size": config.batch_size}
    result = trained(network, images, functional.cross_entropy, seed, learning_rate=config.learning_rate, **options)
    inputs = images.parts.train.images
    spectral = jacobian_singular_values(result.network, inputs[: config.inputs])[:, 0]
    layers = activation_statistics(result.network, inputs)
    metrics = used(spectral, known) | frequencies(layers) | scored(result, images)
    return Outcome(metrics, {"curve": curve(spectral, layers)}, images.source)


def used(spectral: Tensor, network: Network) -> dict[str, float | None]:
    """How much of K there is at the inputs."""
    largest = float(spectral.max())
    return {
        "largest": largest,
        "published": network.published,
        "median": float(spectral.median()),
        "smallest": float(spectral.min()),
        "used": None if network.K is None else largest / network.K,
    }


def frequencies(layers: Sequence[ActivationStatistics]) -> dict[str, float]:
    """Shares of all units, by how often they are positive."""
    positive = torch.cat([layer.positive for layer in layers])
    shares = {"active_40": positive >= 0.4, "active_90": positive >= 0.9, "always": positive >= 0.99}
    return {name: float(share.double().mean()) for name, share in (shares | {"never": positive == 0}).items()}


def curve(spectral: Tensor, layers: Sequence[ActivationStatistics]) -> dict[str, list[float]]:
    """Both panels of the figure over one axis from 0 to 1: quantiles of σ_max, and shares of units."""
    thresholds = torch.linspace(0, 1, THRESHOLDS, dtype=torch.float64)
    positive = torch.cat([layer.positive for layer in layers])
    columns = {"tau": thresholds.tolist(), "spectral_norm": torch.quantile(spectral, thresholds).tolist()}
    columns["positive"] = _shares(positive, thresholds)
    return columns | {f"positive_{place}": _shares(layer.positive, thresholds) for place, layer in enumerate(layers, 1)}


def _shares(positive: Tensor, thresholds: Tensor) -> list[float]:
    """Of units, those positive at a share τ of inputs or more, for each τ."""
    shares: list[float] = (positive >= thresholds[:, None]).double().mean(dim=1).tolist()
    return shares
