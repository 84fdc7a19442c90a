"""Clean against certified accuracy on the validation part, for several margins that training asks for.

Under a fixed constant more margin is more proof, and less accuracy: one option moves a network along that trade. It
is the offset of the cross-entropy or the a of the hinge. Each cell is one network, trained as `tightlip train` does and
judged on the validation part, which chose its epoch as well; so these numbers are a little too good, and only those of
the test part, which is not looked at here, are the network's.
"""

import time
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..constraints import freeze
from ..data import split
from ..decimals import exact
from ..errors import TightlipError
from ..records import Metric
from ..robustness import certify
from .certified_run import trained
from .classification_options import Config as Options
from .classification_options import Training
from .loading import loaded, suited
from .methods import owners
from .protocol import Outcome, Preset
from .scaling import scaling_of

SPREAD = {"offset": (0.4, 1.0, 2.0), "a": (0.75, 1.0, 1.5)}
"""What is tried of each option, in units of what suits the radius."""

POINTS = 20
"""Steps of the radius in a curve, which goes to twice the largest that was asked for."""


@dataclass(frozen=True)
class Config(Training):
    """One network."""

    epochs: int | None = 10
    """Passes over the training data."""
    eps: tuple[float, ...] | None = None
    """Radii to certify at, in units of the inputs; options that are not given follow the first, which also chooses the
    epoch (default: the headline radius of train)."""


GRID: dict[str, tuple[Any, ...]] = {}
SMOKE = PAPER = Preset()
METRICS = {
    "accuracy": Metric("On the validation part, the share of inputs that are classified right.", "down"),
    "constant": Metric("The audited Lipschitz constant of the frozen network.", "up"),
    "inputs": "How many there are in the validation part.",
    "cpu_seconds": "Of all processor threads, in training.",
}
CURVES = {"eps": "radius of the perturbation", "certified": "proven accuracy on the validation part"}


def axis(config: Config) -> str:
    """The option that is tuned: offset or a.

    Raises:
        TightlipError: for a method that has neither.
    """
    options = _options(config)
    found = [name for name in SPREAD if name in options.trained_by.defaults]
    if not found:
        known = ", ".join(dict.fromkeys(name for option in SPREAD for name in owners(option)))
        raise TightlipError(f"{options.way} asks for no margin, so there is nothing to tune: choose one of {known}")
    return found[0]


def radii(config: Config) -> tuple[float, ...]:
    """Those asked for, or the headline radius of `tightlip train`."""
    return tuple(map(float, config.eps or ())) or (_options(config).radius,)


def usual(config: Config) -> tuple[float, ...]:
    """The values that are tried of `axis`, where none are given."""
    name = axis(config)
    return tuple(float(f"{factor * options_of(config).settings[name]:.3g}") for factor in SPREAD[name])


def options_of(config: Config, seed: int = 0) -> Options:
    """Those of `tightlip train` that train this network."""
    return _options(config, eps=radii(config)[0], seed=seed)


def _options(config: Config, **more: Any) -> Options:
    """What both have."""
    given = asdict(config)
    return Options(**{field.name: given[field.name] for field in fields(Training)}, **more)


def named(eps: float) -> str:
    """The metric of a radius."""
    return f"certified_{exact(eps)}"


def run(config: Config, seed: int) -> Outcome:
    """One network, trained, frozen and certified on the validation part."""
    options = options_of(config, seed)
    dataset = loaded(options)
    parts = split(dataset, seed)
    options = suited(options, dataset, len(parts.train))
    scaling = scaling_of(options, dataset, parts.train)
    began = time.process_time()
    network, _ = trained(options, scaling.seen(parts.train), scaling.seen(parts.validation), dataset.classes)
    computed = time.process_time() - began
    whole = scaling.whole(freeze(network))
    certificate = certify(whole, parts.validation, p=options.p, progress=False, standardized=scaling.standardized)
    metrics: dict[str, Any] = {"accuracy": certificate.accuracy(0.0)}
    metrics |= {named(eps): certificate.accuracy(eps) for eps in radii(config)}
    metrics |= {"constant": certificate.bound.constant, "inputs": len(parts.validation)}
    grid = [2 * max(radii(config)) * step / POINTS for step in range(POINTS + 1)]
    curve = {"eps": grid, "certified": certificate.curve(grid).tolist()}
    source = {"name": dataset.name, "sha256": dataset.sha256}
    return Outcome(metrics | {"cpu_seconds": round(computed, 3)}, {"curve": curve}, source)
