"""Critics compete: each is trained in rounds of growing length, and the best by what may be hoped for stays.

A round is a whole cosine of the learning rate, twice as long as the one before, until two do not improve.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..arguments import output_of
from ..constraints import freeze
from ..errors import TightlipError
from .choosing import Choice, chosen_range
from .critic import train_critic
from .families import SoftFunnels, funnels, linear, network
from .parts import Pair

FIRST, ROUNDS, BATCH = 100, 4, 256
"""Steps of the first round; rounds where no time is given; points of each sample for a step."""

PATIENCE = 2
"""Rounds that may do no better than the best before."""

RATE, RATE_OF_FUNNELS = 5e-3, 2e-2
"""Learning rates, for points about 1 from zero."""

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
        scores, steps = [self.enter(name, _shape(critic))], FIRST
        if not any(weight.requires_grad for weight in critic.parameters()):
            return
        while len(scores) <= ROUNDS if end is None else time.perf_counter() < end:
            self._round(critic, steps, None if end is None else max(0.0, end - time.perf_counter()))
            scores.append(self.enter(name, _shape(critic)))
            steps *= 2
            if len(scores) > PATIENCE and max(scores[-PATIENCE:]) <= max(scores[:-PATIENCE]):
                return

    def _round(self, critic: nn.Module, steps: int, seconds: float | None) -> None:
        watch, rate = None, RATE
        if isinstance(critic, SoftFunnels):
            watch, rate = (lambda step: critic.anneal(step / steps)), RATE_OF_FUNNELS
        train_critic(critic, self.batch, steps, BATCH, rate, watch=watch, seconds=seconds, progress=self.progress)

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


def _shape(critic: nn.Module) -> nn.Module:
    """What is judged: a minimum where a soft one is trained."""
    return critic.hard if isinstance(critic, SoftFunnels) else critic


@torch.no_grad()
def _values(critic: nn.Module, points: Tensor) -> Tensor:
    found = torch.cat([output_of(critic, part).cpu() for part in points[:JUDGED].split(1024)])
    if found[0].numel() != 1:
        raise TightlipError(f"the critic has outputs of shape {tuple(found.shape[1:])}: give it a single one")
    return found.flatten()
