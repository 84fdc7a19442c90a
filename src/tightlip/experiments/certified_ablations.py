"""What buys certified accuracy in the 2-norm: one change at a time, judged on validation data.

The base is what `tightlip train --eps` trains: a dense orthonormal MaxMin network, and the cross-entropy with the
offset and the temperature that suit the radius. Each change alters one thing. The test part is not looked at, so that
what is learned here may be used there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..choices import chosen
from ..records import Metric
from . import tuning
from .protocol import Outcome, Preset

HIDDEN_LAYERS = 3

Change = Callable[[Any], Mapping[str, Any]]
"""Of the base, a `tuning.Config`: the options that are other than there."""

CHANGES: dict[str, Change] = {
    "base": lambda base: {},
    "offset × 2/3": lambda base: {"offset": base.offset * 2 / 3},
    "offset × 3/2": lambda base: {"offset": base.offset * 3 / 2},
    "temperature × 1/2": lambda base: {"temperature": base.temperature / 2},
    "temperature × 2": lambda base: {"temperature": base.temperature * 2},
    "hinge": lambda base: {"loss": "hinge", "temperature": None},
    "hinge-Kantorovich": lambda base: {"loss": "hinge_kantorovich", "temperature": None},
    "EMMA": lambda base: {"loss": "emma"},
    "half as wide": lambda base: {"hidden": tuple(width // 2 for width in base.hidden)},
    "twice as wide": lambda base: {"hidden": tuple(2 * width for width in base.hidden)},
    "two hidden layers": lambda base: {"hidden": base.hidden[:2]},
    "five hidden layers": lambda base: {"hidden": (*base.hidden, *base.hidden[:2])},
    "groups of 4": lambda base: {"activation": "groupsort4"},
    "absolute value": lambda base: {"activation": "abs"},
    "ReLU": lambda base: {"activation": "relu"},
    "last rows of length 1": lambda base: {"last_layer": "rows"},
    "weights averaged": lambda base: {"average": 0.999},
    "no means taken off": lambda base: {"center": "no"},
    "means of inputs alone taken off": lambda base: {"center": "inputs"},
    "no shifts": lambda base: {"shift": 0},
    "shifts by two pixels": lambda base: {"shift": 2},
    "half the rate": lambda base: {"learning_rate": 1e-3},
    "twice the rate": lambda base: {"learning_rate": 4e-3},
    "batches of half the size": lambda base: {"batch_size": base.batch_size // 2},
    "twice the epochs": lambda base: {"epochs": 2 * base.epochs},
    "convnet": lambda base: {"network": "convnet", "hidden": None},
    "convnet with 3×3 kernels": lambda base: {"network": "convnet", "depth": 1, "hidden": None},
    "mixer": lambda base: {"network": "mixer", "hidden": None},
}


@dataclass(frozen=True)
class Config:
    """One change, for one radius."""

    change: str = "base"
    """What is other than in the base."""
    eps: float = 0.3
    """Radius that is asked for and certified, in the 2-norm, in units of the inputs."""
    width: int = 512
    """Of the three hidden layers of the base."""
    data: str = "mnist"
    """Data set of images, by its name or path."""
    epochs: int = 10
    """Passes over the training data; the best by what is certified is kept."""
    batch_size: int = 256
    """Examples per step."""


GRID = {"eps": (0.3, 1.58), "change": tuple(CHANGES)}
FEW = ("base", "offset × 3/2", "EMMA", "last rows of length 1", "weights averaged")
SMOKE = Preset({"data": "mnist5k", "width": 16, "epochs": 1}, grid={"eps": (0.3,), "change": FEW})
PAPER = Preset(seeds=3)
METRICS = {
    "certified": Metric("The share of validation inputs that is proven to stay right within eps.", "down"),
    **{name: words for name, words in tuning.METRICS.items() if name != "inputs"},
}
CURVES = tuning.CURVES


def run(config: Config, seed: int) -> Outcome:
    """One network, on the validation part."""
    change = chosen("change", config.change, CHANGES)
    base = based(config)
    found = tuning.run(replace(base, **change(base)), seed)
    names = {tuning.named(config.eps): "certified", **{name: name for name in METRICS}}
    return replace(found, metrics={names[name]: value for name, value in found.metrics.items() if name in names})


def based(config: Config) -> tuning.Config:
    """The options of the base, those of the loss written out."""
    size: Any = {"hidden": (config.width,) * HIDDEN_LAYERS, "epochs": config.epochs, "batch_size": config.batch_size}
    base = tuning.Config(data=config.data, eps=(config.eps,), **size)
    asked = tuning.options_of(base).settings
    return replace(base, offset=asked["offset"], temperature=asked["temperature"])
