"""W1 of images where it is known exactly: a translation of digits, and threes against eights.

Samples that differ by a vector are as far apart as it is long. Threes against eights of mnist5k, 500 of each, is a
problem of assignment, solved exactly by linear programming. Beside the truth stand the proven interval of `assign`, and
what an orthonormal critic that is trained on the same images shows of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..data import load
from ..data.dataset import to_unit_floats
from ..networks import mlp
from ..records import Metric
from ..transport import assign, train_critic
from .protocol import Outcome, Preset

DATA = "mnist5k"
"""500 images of each digit, in [0, 1]^784."""

DIGITS_APART = 8.2233113054
"""W1 of threes and eights, by the network simplex in float64."""


@dataclass(frozen=True)
class Config:
    """One pair of samples."""

    case: str = "digits"
    """digits (threes against eights) or translation (threes against themselves, moved)."""
    shift: float = 1.0
    """How far a translation goes; the unit of digits: they are multiplied by it."""
    tolerance: float = 1e-4
    """Of `assign`."""
    width: int = 128
    """Of the hidden layers of the critic."""
    steps: int = 2000
    """Of its optimizer."""
    batch_size: int = 256
    """Images of each sample per step."""


GRID = {"case": ("translation", "digits")}
SMOKE = Preset({"steps": 10, "batch_size": 64, "tolerance": 1e-2})
PAPER = Preset(seeds=3)
METRICS = {
    "truth": "W1 of the two samples.",
    "lower": Metric("What prices prove.", rounding="down"),
    "upper": Metric("The cost of the pairing that was found.", rounding="up"),
    "gap_percent": "100·(upper − lower)/truth.",
    "critic": "mean f(x) − mean f(y) of the critic, divided by its constant.",
    "critic_percent": "100·critic/truth.",
    "constant": Metric("The audited Lipschitz constant of the critic, in the Euclidean norm.", rounding="up"),
}


def run(config: Config, seed: int) -> Outcome:
    """Interval and critic beside the truth."""
    torch.manual_seed(seed)
    data = load(DATA)
    images = to_unit_floats(data.images).flatten(1).double()
    samples, truth = chosen("case", config.case, CASES)(config, images, data.labels)
    found = assign(*samples, tolerance=config.tolerance, seed=seed)
    metrics = {"truth": truth, "lower": found.lower, "upper": found.upper} | _critic(config, *samples)
    metrics["gap_percent"] = 100 * (found.upper - found.lower) / truth
    metrics["critic_percent"] = 100 * metrics["critic"] / truth
    return Outcome(metrics, data={"name": data.name, "sha256": data.sha256})


def _translation(config: Config, images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    threes = images[labels == 3]
    step = torch.randn(images.shape[1], dtype=torch.float64)
    step *= config.shift / torch.linalg.vector_norm(step)
    return (threes, threes + step), config.shift


def _digits(config: Config, images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    first, second = (config.shift * images[labels == digit] for digit in (3, 8))
    return (first, second), config.shift * DIGITS_APART


CASES = {"translation": _translation, "digits": _digits}


def _critic(config: Config, x: Tensor, y: Tensor) -> dict[str, float]:
    network = mlp([x.shape[1], config.width, config.width, 1])
    frozen = freeze(train_critic(network, (x.float(), y.float()), config.steps, config.batch_size)).double()
    constant = lipschitz(frozen, 2).constant
    with torch.no_grad():
        difference = float(frozen(x).mean() - frozen(y).mean())
    return {"critic": difference / constant, "constant": constant}
