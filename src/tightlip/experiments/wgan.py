"""Wasserstein GANs with a clipped critic, with a gradient penalty, and with a critic that is 1-Lipschitz (paper §7.2).

The paper trains such GANs with critics of its layers, shows samples and leaves the rest to a future study. Here the
three are measured alike: Fréchet distance and recall in the features of a classifier of the same data, against the test
part. They are compared at equal steps of the generator and at equal processor time, each at its best rate of several,
which short trainings choose by the validation part. The critic's constant is audited through training. Generator and
critics have the paper's shapes at a quarter of its width, as one core trains all cells.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..arguments import integer
from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..errors import TightlipError
from ..records import Metric
from .digits import Material
from .gan_parts import CRITICS, images_of
from .gan_training import Gan, Recipe, begun, images
from .protocol import Outcome, Preset
from .sample_quality import NEIGHBORS, Judge, Reference, judge, reference
from .shelf import Progress, kept

LOGGED = 10
"""How often samples are judged and the critic is audited in training, at equal distances; the last time at the end."""

SHOWN = 5
"""How many of these times are drawn."""

COLUMNS = 8
"""Images drawn each time, always of the same latent numbers."""

BUDGET = 200.0
"""Processor seconds of training at which methods are compared; less than any of the paper preset takes."""

CHOOSING = 2**20
"""The seed of the short trainings that choose a pace."""

SEEN = 2**31
"""The seed of the latent numbers of images that are looked at."""

_COMPARED = ("frechet", "recall")


@dataclass(frozen=True)
class Config:
    """One critic on one data set."""

    critic: str = "orthonormal dense"
    """clip (entries of weights at most .01), gradient penalty (10 times), or orthonormal with MaxMin, dense or conv."""
    data: str = "mnist"
    """Data set of images, by its name or path."""
    width: int = 16
    """Of generator and critic: their narrowest layer's channels; the paper's is 64."""
    steps: int = 3000
    """Of the generator."""
    critic_steps: int = 5
    """Of the critic, for each of the generator."""
    batch_size: int = 64
    """Real images, and generated ones, in a step."""
    paces: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """What the usual rates of Adam are multiplied by; the best is chosen."""
    tuning: float = 0.15
    """The share of the steps that each of them is tried for."""
    inputs: int = 10_000
    """Images of the test part, or as many as it has, and as many generated ones, that are compared."""
    epochs: int = 12
    """Of the classifier whose features are used."""


GRID = {"critic": tuple(CRITICS), "data": ("mnist", "fashion-mnist")}
SMOKE = Preset(
    {"width": 4, "steps": 4, "batch_size": 16, "tuning": 0.25, "paces": (0.5, 1.0), "inputs": 200, "epochs": 1},
    grid={"data": ("mnist5k",)},
)
PAPER = Preset(seeds=3)
METRICS = {
    "frechet": "The Fréchet distance of generated images from the test part, at the end.",
    "frechet_at_equal_seconds": "The same when training had taken 200 processor seconds; none if it took less.",
    "recall": "The share of test images within the reach of a generated one, at the end.",
    "recall_at_equal_seconds": "The same when training had taken 200 processor seconds; none if it took less.",
    "precision": "The share of generated images within the reach of a test image, at the end.",
    "pace": "What the usual rates were multiplied by: the best of those tried.",
    "validation_frechet": "Of that one's short training, from the validation part.",
    "constant": Metric(
        "The audited Lipschitz constant of the critic, frozen at a logged step, in the 2-norm: the largest of all.",
        "up",
    ),
    "trained_constant": Metric("The same of the critic as it trains, whose weights are rounded to float32.", "up"),
    "judge_accuracy": Metric("On the test part, of the classifier whose features are used.", "down"),
    "critic_step_seconds": "Processor seconds of one step of the critic, also for the images that it is shown.",
    "cpu_seconds": "Of all processor threads, in training.",
}
CURVES = {
    "step": "step of the generator",
    "frechet": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "constant": "audited constant of the frozen critic",
    "trained_constant": "audited constant of the critic as it trains",
    "cpu_seconds": "processor seconds of training",
}


def run(config: Config, seed: int) -> Outcome:
    """The pace that is best on the validation part, and a training at that pace, judged by the test part."""
    chosen("critic", config.critic, CRITICS)
    whole = images(config.data)
    eye = judge(whole, config.epochs)
    pace, best = tuned(config, whole, eye)
    recipe = _recipe(config, config.steps, pace, seed)
    against = reference(eye, _some(whole.parts.test.images, config))
    key = {"gan": recipe.key, "data": whole.source, "judge": config.epochs, "inputs": config.inputs}
    found = kept(key, lambda progress: _trained(recipe, whole, against, progress))
    curve = found["curve"]
    metrics: dict[str, Any] = {name: curve[name][-1] for name in ("frechet", "recall", "precision", "cpu_seconds")}
    metrics |= {f"{name}_at_equal_seconds": _at(BUDGET, curve["cpu_seconds"], curve[name]) for name in _COMPARED}
    metrics |= {"pace": pace, "validation_frechet": best}
    metrics |= {name: max(curve[name]) for name in ("constant", "trained_constant")}
    metrics |= {"judge_accuracy": eye.accuracy, "critic_step_seconds": found["critic_step_seconds"]}
    return Outcome(metrics, {"curve": curve, "images": found["images"]}, whole.source)


def tuned(config: Config, whole: Material, eye: Judge) -> tuple[float, float]:
    """The pace whose short training comes nearest to the validation part, and how near; the same for all seeds.

    Raises:
        TightlipError: if training diverges at every pace.
    """
    against = reference(eye, _some(whole.parts.validation.images, config))
    steps = math.ceil(config.tuning * config.steps)

    def short(recipe: Recipe, progress: Progress) -> dict[str, Any]:
        try:
            return against.compared(seen(begun(recipe, whole, progress).train(steps, progress), against))
        except TightlipError:
            return {"frechet": math.inf}

    tried = {}
    for pace in config.paces:
        recipe = _recipe(config, steps, pace, CHOOSING)
        key = {"short": recipe.key, "data": whole.source, "judge": config.epochs, "inputs": config.inputs}
        tried[pace] = kept(key, partial(short, recipe))["frechet"]
    best = min(tried, key=lambda pace: tried[pace])
    if not tried[best] < math.inf:
        raise TightlipError(f"training diverges at all paces, {list(config.paces)}: try lower ones")
    return best, tried[best]


def _trained(recipe: Recipe, whole: Material, against: Reference, progress: Progress) -> dict[str, Any]:
    """Train, and look at samples and at the critic on the way."""
    gan = begun(recipe, whole, progress)
    log = gan.log = gan.log or {"curve": {name: [] for name in CURVES}, "pictures": []}
    for to in sorted({math.ceil(recipe.steps * number / LOGGED) for number in range(1, LOGGED + 1)}):
        if to not in log["curve"]["step"]:
            _look(gan.train(to, progress), log, against)
            progress.write(gan.state())
    every = math.ceil(len(log["pictures"]) / SHOWN)
    rows = [
        {"heading": f"step {step}", "signed": False, "images": pictures.tolist()}
        for step, pictures in log["pictures"][::-1][::every][::-1]
    ]
    drawn = {"columns": [str(number + 1) for number in range(COLUMNS)], "scale": "image", "rows": rows}
    seconds = gan.cpu["critic"] / (gan.step * recipe.critic_steps)
    return {"curve": log["curve"], "images": drawn, "critic_step_seconds": seconds}


def _look(gan: Gan, log: dict[str, Any], against: Reference) -> None:
    """Add a row to the curve, and pictures."""
    made = seen(gan, against)
    row = against.compared(made) | {"step": gan.step, "cpu_seconds": gan.cpu_seconds}
    row |= {
        "constant": lipschitz(freeze(gan.critic), 2).constant,
        "trained_constant": lipschitz(gan.critic, 2).constant,
    }
    for name, column in log["curve"].items():
        column.append(row[name])
    log["pictures"].append((gan.step, made[:COLUMNS].mul(100).round().div(100)))


def seen(gan: Gan, against: Reference) -> Tensor:
    """As many generated images in [0, 1] as real ones, always of the same latent numbers."""
    return (images_of(gan.generator, len(against.features), SEEN) + 1) / 2


def _recipe(config: Config, steps: int, pace: float, seed: int) -> Recipe:
    return Recipe(config.critic, config.width, steps, config.critic_steps, config.batch_size, pace, seed)


def _some(real: Tensor, config: Config) -> Tensor:
    return real[: integer("inputs", config.inputs, least=NEIGHBORS + 1)]


def _at(budget: float, seconds: list[float], values: list[float]) -> float | None:
    """The value at a time, on straight lines between the logged ones; none after the end."""
    return float(np.interp(budget, seconds, values)) if seconds[0] <= budget <= seconds[-1] else None
