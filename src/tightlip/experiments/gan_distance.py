"""Table 2: how far a GAN's images are from the data, as critics of several activations and constraints find it.

A generator is trained with a clipped critic and frozen. Dense critics 784-720-720-1 then separate its images from real
ones; what they find is a lower bound on the Wasserstein distance, so that more is better. The paper says that
activations which keep gradient norm find more, and orthonormal layers more than spectral ones. The bound is measured on
real images that no training saw, and on those of the training (its footnote 4), each against fresh generated ones. A
difference between critics is one of the same generator: all ten rows of a seed have the same.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS, GroupSort
from ..arguments import integer, number
from ..audit import lipschitz
from ..choices import chosen
from ..constraints import Constraint, Orthonormal, SpectralBall, freeze
from ..networks import mlp
from ..records import Metric
from ..training import predict
from ..transport import train_critic
from .digits import Material
from .gan_parts import generator, images_of, latent
from .gan_training import Recipe, begun, images
from .protocol import Outcome, Preset
from .shelf import Progress, kept

ITERATIONS = 20
"""At most so many rounds of power iteration for a spectral norm in a step."""

CONSTRAINTS: dict[str, Constraint] = {"spectral": SpectralBall(ITERATIONS), "orthonormal": Orthonormal()}

ROWS: dict[str, Callable[[], nn.Module]] = {
    **{name: ACTIVATIONS[name] for name in ("relu", "maxout", "maxmin", "groupsort4")},
    "groupsort9": partial(GroupSort, 9, contiguous=False),
}
"""The activations of the table."""

PUBLISHED = {
    "spectral": (0.95, 1.20, 1.36, 1.64, 1.70),
    "orthonormal": (1.40, 1.95, 2.16, 2.31, 2.31),
}
"""On MNIST, with the paper's generator, which is not at hand; in the order of `ROWS`."""

FRESH, PROBES = 2**30, 2**31
"""Seeds of latent numbers: of the critic's training, plus its own seed, and of the evaluation."""

PACE = 4.0
"""What the paper's rates for the generator and its clipped critic, 2e-4, are multiplied by."""

PROBED = 1000
"""Images of the curve."""


@dataclass(frozen=True)
class Config:
    """One cell of the table."""

    activation: str = "maxmin"
    """relu, maxout (the larger of two), maxmin (sorts pairs), groupsort4 or groupsort9."""
    constraint: str = "orthonormal"
    """spectral (‖W‖₂ ≤ 1) or orthonormal (all singular values 1)."""
    data: str = "mnist"
    """Data set of images, by its name or path."""
    width: int = 720
    """Of the two hidden layers, before the activation."""
    steps: int = 2000
    """Of the critic's optimizer."""
    batch_size: int = 64
    """Real images, and generated ones, in a step."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to zero along a cosine."""
    clip: float = 0.1
    """The largest 2-norm of all gradients together in a step."""
    points: int = 10_000
    """Real images of the test part, and of the train part, or as many as there are, and generated ones beside each."""
    generator_width: int = 16
    """The generator's channels; the paper's has 64."""
    generator_steps: int = 2000
    """Of the generator, each after five of its clipped critic; at four times the paper's rates, as they are fewer."""


GRID = {"activation": tuple(ROWS), "constraint": tuple(CONSTRAINTS), "data": ("mnist", "fashion-mnist")}
SMOKE = Preset(
    {"width": 36, "steps": 5, "points": 200, "generator_width": 4, "generator_steps": 3}, grid={"data": ("mnist5k",)}
)
PAPER = Preset(seeds=3)
METRICS = {
    "objective": Metric(
        "mean f(real) − mean f(generated) of the frozen critic, on test images and fresh generated ones.",
        published="published",
    ),
    "standard_error": "Of the objective, from sampling the images.",
    "training_objective": "The same on real images of the training.",
    "constant": Metric("The audited Lipschitz constant of the frozen critic, in the 2-norm.", "up"),
    "bound": "objective / constant: on average over samples no more than the Wasserstein-1 distance.",
    "cpu_seconds": "Of all processor threads, in training the critic.",
    "published": "In the paper's Table 2, whose generator is another.",
}
CURVES = {"step": "step of the critic", "objective": "objective on 1,000 test images"}


def run(config: Config, seed: int) -> Outcome:
    """What a frozen critic finds on images that its training did not see, and on those that it saw."""
    activation = chosen("activation", config.activation, ROWS)
    constraint = chosen("constraint", config.constraint, CONSTRAINTS)
    whole = images(config.data)
    maker = made(config, whole, seed)
    torch.manual_seed(seed)
    widths = [math.prod(whole.shape), config.width, config.width, 1]
    critic = nn.Sequential(nn.Flatten(), *mlp(widths, constraint, activation))
    frozen, curve, seconds = trained(config, critic, whole, maker, seed)
    fake = images_of(maker, integer("points", config.points, least=2), PROBES)
    objective, error = compared(frozen, whole.parts.test.images[: config.points], fake)
    constant = lipschitz(frozen, 2).constant
    metrics = {
        "objective": objective,
        "standard_error": error,
        "training_objective": compared(frozen, whole.parts.train.images[: config.points], fake)[0],
        "constant": constant,
        "bound": objective / constant,
        "cpu_seconds": seconds,
        "published": published(config),
    }
    return Outcome(metrics, {"curve": curve}, whole.source)


def made(config: Config, whole: Material, seed: int) -> nn.Sequential:
    """The frozen generator of a seed, in eval mode; trained once for all rows."""
    recipe = Recipe("clip", config.generator_width, config.generator_steps, pace=PACE, seed=seed)

    def learned(progress: Progress) -> dict[str, Any]:
        return begun(recipe, whole, progress).train(recipe.steps, progress).generator.state_dict()

    found = kept({"generator": recipe.key, "data": whole.source}, learned)
    network = generator(whole.shape, recipe.width)
    network.load_state_dict(found)
    return network.eval().requires_grad_(False)


def trained(
    config: Config, critic: nn.Module, whole: Material, maker: nn.Module, seed: int
) -> tuple[nn.Module, dict[str, list[float]], float]:
    """The critic, trained and frozen; its objective on the way; the processor seconds."""
    real, random = whole.parts.train.images, torch.Generator().manual_seed(FRESH + seed)
    probes = whole.parts.test.images[:PROBED], images_of(maker, PROBED, PROBES)
    curve: dict[str, list[float]] = {name: [] for name in CURVES}
    seen = 0.0

    def sample(count: int) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(real), (count,), generator=random)
        with torch.no_grad():
            return 2 * real[index] - 1, maker(latent(count, random))

    def watch(step: int) -> None:
        nonlocal seen
        if step % math.ceil(config.steps / 20) == 0:
            began = time.process_time()
            curve["step"].append(step)
            curve["objective"].append(compared(critic, *probes)[0])
            seen += time.process_time() - began

    began = time.process_time()
    options = {"steps": config.steps, "batch_size": config.batch_size, "learning_rate": config.learning_rate}
    train_critic(critic, sample, optimizer=partial(clipped_adam, clip=config.clip), watch=watch, **options)  # type: ignore[arg-type]
    return freeze(critic), curve, round(time.process_time() - began - seen, 3)


def clipped_adam(parameters: Iterable[nn.Parameter], rate: float, clip: float) -> torch.optim.Optimizer:
    """Adam, which sees gradients of a 2-norm of at most ``clip``, all together.

    Raises:
        TightlipError: unless that is > 0.
    """
    weights, clip = list(parameters), number("clip", clip, above=0)
    adam = torch.optim.Adam(weights, rate, fused=True)

    def shorten(*_: Any) -> None:
        nn.utils.clip_grad_norm_(weights, clip)

    adam.register_step_pre_hook(shorten)
    return adam


def compared(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Mean f(x) − mean f(x') of real images in [0, 1] and generated ones in [−1, 1], and its standard error."""
    scores = [predict(critic, images).double().flatten() for images in (2 * real - 1, fake)]
    squares = sum(float(score.var()) / len(score) for score in scores)
    return float(scores[0].mean() - scores[1].mean()), squares**0.5


def published(config: Config) -> float | None:
    """The paper's value of a cell, None where it has none."""
    if config.data != "mnist":
        return None
    return PUBLISHED[config.constraint][list(ROWS).index(config.activation)]
