"""Critics compete: each is trained in rounds of growing length, and the best by what may be hoped for stays.

A round is a whole cosine of the learning rate, twice as long as the one before, until one does not improve.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..constraints import freeze
from .choosing import Choice, chosen_range
from .critic import train_critic
from .families import funnels, linear, network
from .parts import Pair

FIRST, ROUNDS, BATCH, RATE = 100, 4, 256, 3e-3
"""Steps of the first round; rounds where no time is given; points of each sample for a step; the learning rate."""

JUDGED = 2**14
"""Of the training part, how many points of each sample tell the range of a critic."""


@dataclass
class Contest:
    """The points that train and choose, as critics take them, and the best critic so far, frozen, with its choice."""

    train: Pair
    choose: Pair
    counts: tuple[int, int]
    alpha: float
    progress: bool
    winner: nn.Module = field(default_factory=nn.Identity)
    choice: Choice | None = None
    name: str = ""

    def enter(self, name: str, critic: nn.Module) -> Choice:
        """Judge a critic as it is; it wins if it is better than the best."""
        frozen = freeze(critic)
        choice = self.judged(frozen)
        if self.choice is None or choice > self.choice:
            self.winner, self.choice, self.name = frozen, choice, name
        return choice

    def train_and_enter(self, name: str, critic: nn.Module, seconds: float | None) -> None:
        """Train it for so long, or for some rounds, as long as rounds help; one without weights to train is judged."""
        end = None if seconds is None else time.perf_counter() + seconds
        best, steps, rounds = self.enter(name, critic), FIRST, 0
        if not any(weight.requires_grad for weight in critic.parameters()):
            return
        while rounds < ROUNDS if end is None else time.perf_counter() < end:
            left = None if end is None else max(0.0, end - time.perf_counter())
            train_critic(critic, self.batch, steps, BATCH, RATE, seconds=left, progress=self.progress)
            last, best = best, max(best, self.enter(name, critic))
            steps, rounds = 2 * steps, rounds + 1
            if not best > last:
                return

    def judged(self, critic: nn.Module) -> Choice:
        """What may be hoped for with this critic."""
        train, choose = ((_values(critic, a), _values(critic, b)) for a, b in (self.train, self.choose))
        return chosen_range(train, choose, self.counts, self.alpha)

    def batch(self, count: int) -> Pair:
        """Points of the training part, by the global generator."""
        first, second = (part[torch.randint(len(part), (count,)).to(part.device)] for part in self.train)
        return first, second


def compete(contest: Contest, names: Sequence[str], p: float, end: float | None) -> None:
    """Families one after the other, each with its share of the time; funnels begin as the best so far."""
    x, y = contest.train
    for place, name in enumerate(names):
        left = None if end is None else max(0.0, end - time.perf_counter()) / (len(names) - place)
        if name == "linear":
            contest.enter(name, linear((x, y), p))
        elif name == "network":
            contest.train_and_enter(name, network(x.shape[1], p).to(x.device), left)
        else:
            start = linear((x, y), p) if contest.choice is None else contest.winner
            sign, points = (1, y) if name == "funnels" else (-1, x)
            contest.train_and_enter(name, funnels(points, start, p, sign), left)


@torch.no_grad()
def _values(critic: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    return torch.cat([critic(part).reshape(len(part)).cpu() for part in points[:JUDGED].split(1024)])
