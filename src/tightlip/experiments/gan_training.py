"""Wasserstein GANs, trained with any critic of `gan_parts`: a few steps of the critic, one of the generator.

    critic      max  mean f(x) − mean f(G(z))     kept near 1-Lipschitz by clipping, by a penalty, or exactly
    generator   max  mean f(G(z))

Adam with β = (.5, .999) trains both (paper appendix H.2, H.3). The same options and seed give the same numbers, also
after an interruption.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import integer, number
from ..choices import chosen
from ..constraints import hold
from ..descent import descend
from ..errors import TightlipError
from ..losses import kantorovich
from ..penalties import gradient_penalty
from .digits import Material, material, refuse_rows
from .gan_parts import CLIP, CRITICS, PENALTY, Kind, generator, latent
from .shelf import Progress

GENERATOR_RATE = 2e-4
"""The usual one."""

SAVED = 60.0
"""Processor seconds between two states that are kept."""


@dataclass(frozen=True)
class Recipe:
    """All that determines a training, beside the data.

    ``pace`` multiplies the usual rates of critic and generator.
    """

    critic: str
    width: int
    steps: int
    critic_steps: int = 5
    batch_size: int = 64
    pace: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        chosen("critic", self.critic, CRITICS)
        for name in ("width", "steps", "critic_steps", "batch_size"):
            integer(name, getattr(self, name))
        number("pace", self.pace, above=0)

    @property
    def kind(self) -> Kind:
        """Of the critic."""
        return CRITICS[self.critic]

    @property
    def key(self) -> dict[str, Any]:
        """For `shelf.kept`."""
        return asdict(self)


class Gan:
    """A generator and a critic in training, on real images (n, *shape) in [−1, 1]."""

    def __init__(self, recipe: Recipe, real: Tensor) -> None:
        integer("batch_size", recipe.batch_size, most=len(real))
        torch.manual_seed(recipe.seed)
        self.recipe, self.real = recipe, real
        self.generator = generator(tuple(real.shape[1:]), recipe.width)
        self.critic = recipe.kind.make(tuple(real.shape[1:]), recipe.width)
        self.engines = {
            "generator": self._engine(self.generator, GENERATOR_RATE),
            "critic": self._engine(self.critic, recipe.kind.rate),
        }
        if recipe.kind.clipped:
            self.engines["critic"].register_step_post_hook(partial(_clip, self.critic))
        if recipe.kind.constrained:
            hold(self.critic, self.engines["critic"])
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.step = 0
        self.log: dict[str, Any] = {}
        self.cpu = {"generator": 0.0, "critic": 0.0}

    @property
    def cpu_seconds(self) -> float:
        """Of all processor threads, in training so far."""
        return sum(self.cpu.values())

    def train(self, to: int, progress: Progress | None = None) -> "Gan":
        """Go on to this step of the generator, and return itself."""
        saved = self.cpu_seconds
        while self.step < to:
            self._turn("critic", self.critic, self._critic_loss, self.recipe.critic_steps)
            self.critic.requires_grad_(False)  # gradients of its weights would be computed for nothing
            self._turn("generator", self.generator, self._generator_loss, 1)
            self.critic.requires_grad_(True)
            self.step += 1
            if progress is not None and self.cpu_seconds - saved > SAVED:
                saved = self.cpu_seconds
                progress.write(self.state())
        return self

    def state(self) -> dict[str, Any]:
        """Everything that going on needs."""
        return {
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "engines": {name: engine.state_dict() for name, engine in self.engines.items()},
            "random": self.random.get_state(),
            "step": self.step,
            "cpu": dict(self.cpu),
            "log": self.log,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to such a state."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        for name, engine in self.engines.items():
            engine.load_state_dict(state["engines"][name])
        self.random.set_state(state["random"])
        self.step, self.cpu, self.log = state["step"], dict(state["cpu"]), state["log"]

    def _turn(self, name: str, network: nn.Module, loss: Callable[[int], Tensor], steps: int) -> None:
        began = time.process_time()
        descend(network, self.engines[name], loss, range(steps), where=f" of the {name}'s turn {self.step}")
        self.cpu[name] += time.process_time() - began

    def _critic_loss(self, _: int) -> Tensor:
        count = self.recipe.batch_size
        index = torch.randint(len(self.real), (count,), generator=self.random)
        with torch.no_grad():
            fake = self.generator(latent(count, self.random))
        real = self.real[index]
        loss = kantorovich(self.critic(real), self.critic(fake))
        if self.recipe.kind.penalized:
            loss = loss + PENALTY * gradient_penalty(self.critic, real, fake, generator=self.random)
        return loss

    def _generator_loss(self, _: int) -> Tensor:
        made: Tensor = self.critic(self.generator(latent(self.recipe.batch_size, self.random)))
        return -made.mean()

    def _engine(self, network: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), self.recipe.pace * rate, (0.5, 0.999), fused=True)


def images(name: str) -> Material:
    """A data set of images in [0, 1] by its name or path, split in one way for all seeds.

    Raises:
        TightlipError: for other data, and as `load`.
    """
    whole = material(name, 0)
    refuse_rows(whole, "they are generated")
    least, most = float(whole.parts.train.images.min()), float(whole.parts.train.images.max())
    if least < 0 or most > 1:
        raise TightlipError(f"images in [0, 1] are generated, and these are from {least:g} to {most:g}: scale them")
    return whole


def begun(recipe: Recipe, whole: Material, progress: Progress) -> Gan:
    """A training on the train part, at its start or where it was interrupted."""
    gan = Gan(recipe, 2 * whole.parts.train.images - 1)
    state = progress.read()
    if state is not None:
        gan.restore(state)
    return gan


@torch.no_grad()
def _clip(network: nn.Module, *_: Any) -> None:
    for weight in network.parameters():
        weight.clamp_(-CLIP, CLIP)
