"""A few examples of each class: standard training, dropout and weight decay against training for margin (appendix G).

The paper's appendix has classification of MNIST from few examples; its text and numbers are not at hand. Its claim is
that a constant regularizes. To be shown is that orthonormal MaxMin networks, trained for margin, are at least as
accurate as standard ReLU networks from 30 examples a class on, and their accuracy within eps is proven besides. The
strength of each regularization is chosen on the validation part, by accuracy. For margin it is the offset, in units of
K: the loss is in the same units, so that K itself would change nothing but the scale of the logits and of the biases.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..arguments import integer
from ..choices import chosen
from ..data import Part
from ..errors import TightlipError
from ..records import Metric
from ..robustness import certify
from ..training import accuracy
from .classification_options import Config as Options
from .digits import SCORED, Material, Trained, material, scored, trained_as
from .protocol import Outcome, Preset


@dataclass(frozen=True)
class Way:
    """How networks are trained: the activation, and the option whose value is chosen on validation data."""

    activation: str
    option: str | None = None
    strengths: tuple[float, ...] = ()


WAYS = {
    "standard": Way("relu"),
    "dropout": Way("relu", "dropout", (0.2, 0.5)),
    "weight_decay": Way("relu", "weight_decay", (0.1, 1.0, 10.0)),
    "orthonormal": Way("maxmin", "offset", (0.4, 0.8, 1.2)),
}
"""By the name of the method of `tightlip train`."""

HIDDEN_LAYERS = 3

EPS = 0.3
"""The radius that is certified, in the 2-norm."""


@dataclass(frozen=True)
class Config:
    """One method and one size of the training data."""

    method: str = "orthonormal"
    """standard, dropout or weight_decay of ReLU networks, or orthonormal MaxMin networks trained for margin."""
    per_class: int = 10
    """Training examples of each class, drawn at random."""
    width: int = 256
    """Of the three hidden layers."""
    data: str = "mnist"
    """Data set, by its name or path; its validation and test parts are used whole."""
    epochs: int = 100
    """Passes over the training examples; the best by validation is kept."""
    batch_size: int = 32
    """Examples per step."""


GRID = {"method": tuple(WAYS), "per_class": (10, 30, 100, 300)}
SMOKE = Preset({"data": "mnist5k", "width": 32, "epochs": 1}, grid={"per_class": (10, 30)})
PAPER = Preset(seeds=5)
METRICS = {
    "certified": Metric("The share of the test part that is proven to stay right within 0.3, in the 2-norm.", "down"),
    "strength": "What was chosen: the share of dropout, the weight decay, or the offset in units of K.",
    "validation_accuracy": "Of the network that was chosen: the highest of those tried.",
    **SCORED,
}


def run(config: Config, seed: int) -> Outcome:
    """The network of the best strength, on the test part; `cpu_seconds` are those of all strengths."""
    way, whole = chosen("method", config.method, WAYS), material(config.data, seed)
    few = replace(whole, parts=replace(whole.parts, train=some(whole.parts.train, config.per_class, whole, seed)))
    tried = [(strength, trained_as(options(config, way, strength, seed), few)) for strength in way.strengths or (None,)]
    strength, best = max(tried, key=lambda one: score(one[1], whole.parts.validation))
    test = whole.parts.test
    metrics: dict[str, Any] = scored(best, whole) | {
        "certified": certify(best.network, test.images, test.labels, 2).accuracy(EPS),
        "strength": strength,
        "validation_accuracy": score(best, whole.parts.validation),
        "cpu_seconds": round(sum(result.cpu_seconds for _, result in tried), 3),
    }
    return Outcome(metrics, data=whole.source)


def score(result: Trained, part: Part) -> float:
    """The accuracy on a part."""
    return accuracy(result.network, part.images, part.labels)


def some(part: Part, per_class: int, images: Material, seed: int) -> Part:
    """As many examples of each class, drawn at random.

    Raises:
        TightlipError: where a class has fewer.
    """
    integer("per_class", per_class)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    drawn = [order[part.labels[order] == label][:per_class] for label in range(images.classes)]
    fewest = min(map(len, drawn))
    if fewest < per_class:
        raise TightlipError(f"per_class={per_class} is more than a class has for training, {fewest}: give fewer")
    index = torch.cat(drawn)
    return Part(part.images[index], part.labels[index])


def options(config: Config, way: Way, strength: float | None, seed: int) -> Options:
    """Those of `tightlip train`; no means are taken off."""
    own: Any = {} if way.option is None else {way.option: strength}
    size: Any = {"hidden": (config.width,) * HIDDEN_LAYERS, "epochs": config.epochs, "batch_size": config.batch_size}
    how: Any = {"method": config.method, "activation": way.activation, "shift": 0, "seed": seed}
    return Options(data=config.data, norm="2", **size, **how, **own)
