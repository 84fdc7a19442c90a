"""Phases of the auction until proven bounds meet, or time is up."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from tqdm import tqdm

from .auction import Auction
from .candidates import FLAT, Candidates
from .clock import Clock, TimeUp
from .distances import least_sums
from .pairing import Bounds
from .samples import Problem

FACTOR = 6.0
"""By how much ε falls from phase to phase."""

FIRST = 0.1
"""The first ε as a share of the first gap; all of it for prices that a search has left, as those lie unevenly."""

LEFT, LEFT_AT_LAST = 500, 2000
"""A phase ends when one of so many points goes without: the price of a point far from all others rises slowly. Where
that is too few in the end, all is done once more, thoroughly: then nobody goes without.
"""

SMALL, HEAVY = 4000, 10.0
"""It is thorough at once for so few points, in up to three dimensions, and where one pair costs so many times the mean.
"""

FEWER, ENOUGH = 4, 1e-2
"""In up to `FLAT` dimensions one of so many points is paired first, to such a gap: all have nearly its potential."""

AT_ONCE = 2**23
"""So many pairs are looked at before time is."""

FINEST = 2.0**-48
"""ε in units of the spread, below which float64 no longer tells sums apart."""

TRIED = 256
"""Points on which prices are compared to start with."""

SPARE = 1.2
"""What is set aside for a proof, in terms of what it seems to take."""

PATIENCE, SPARSE = 1.0, 5.0
"""Who listens hears of what is proven so far at most every second, and so that proofs take a sixth of the time."""


class Search:
    """The auction for a problem, phase by phase.

    ``start`` are prices and a pairing to begin with, (m,) each; ``heard`` is called now and then, with better bounds.
    """

    def __init__(
        self,
        bounds: Bounds,
        tolerance: float,
        clock: Clock,
        seed: int,
        start: tuple[Float64[Tensor, " m"], Int64[Tensor, " m"]] | None = None,
        heard: Callable[[], None] | None = None,
    ) -> None:
        self.bounds, self.tolerance, self.clock = bounds, tolerance, clock
        self.x, self.y, self.p = bounds.problem.x, bounds.problem.y, bounds.p
        self.generator = torch.Generator().manual_seed(seed)
        self.auction: Auction | None = None
        self.opening: Tensor | None = None
        self.start, self.heard, self.next_look = start, heard, 0.0

    def run(self, progress: bool) -> str:
        """Why it ended: "gap", "time" or "exact"; the bounds hold what was found."""
        if len(self.x) < 2:
            return self._single()
        self.bounds.start()
        if self.start is not None:
            self.bounds.offer_pairing(self.start[1])
        if self._near():
            return "gap"
        with tqdm(unit="phase", disable=None if progress else True) as bar:
            try:
                return self._phases(bar)
            except TimeUp:
                self._prove()
                return "gap" if self._near() else "time"

    def _single(self) -> str:
        if len(self.x):
            self.bounds.offer_prices(self.bounds.prices)
        return "exact"

    def _near(self) -> bool:
        return self.bounds.gap <= self.tolerance

    def _prove(self) -> None:
        """Compute the bounds of what was come to: by lists, or before there were any by all pairs, if there is time."""
        if self.auction is not None:
            self._offer(self.auction)
        elif self.opening is not None and self.clock.affords_proof():
            self.bounds.offer_prices(self.opening)

    def _check(self) -> None:
        """What long loops call: raise if time is up, and tell who listens."""
        self.clock.check()
        if self.heard is not None and self.clock.elapsed() >= self.next_look:
            began = self.clock.elapsed()
            self._prove()
            self.heard()
            ended = self.clock.elapsed()
            self.next_look = ended + max(PATIENCE, SPARSE * (ended - began))

    def _phases(self, bar: Any) -> str:
        auction = self.auction = self._opened()
        mean, worst = float(self.bounds.upper), self.bounds.worst()
        heavy = worst > HEAVY * mean
        thorough = heavy or self.x.shape[1] <= FLAT or len(self.x) <= SMALL
        began = self.clock.elapsed()
        self._offer(auction)
        self.clock.aside = SPARE * (self.clock.elapsed() - began)  # lists prove with a look at themselves
        if self._near():
            return "gap"
        left = mean - self._estimate(auction)
        eps = left if self.start is not None else FIRST * (worst / 3 if heavy else left)
        while eps > FINEST:
            wanted = self.tolerance * float(self.bounds.upper) / 2
            last = eps <= 1.5 * wanted
            eps = min(eps, wanted) if last else eps
            leave = 0 if thorough else len(self.x) // (LEFT_AT_LAST if last else LEFT)
            auction.phase(eps, leave, self._check)
            if self._settled(auction):
                return "gap"
            bar.update()
            again = last and not thorough
            thorough, eps = thorough or again, FIRST * worst / 3 if again else eps / FACTOR
        self.bounds.offer_prices(auction.prices)
        return "gap" if self._near() else "exact"

    def _opened(self) -> Auction:
        """Lists at the prices that prove most on a few points; by differences where products are too coarse."""
        self.clock.check()
        prices = self.opening = self._first_prices()
        candidates = self._listed(prices, careful=False)
        if candidates.blur() > self.tolerance * float(self.bounds.upper) / 4:
            candidates = self._listed(prices, careful=True)
        self.clock.check()
        return Auction(candidates, prices, self.generator)

    def _listed(self, prices: Tensor, careful: bool) -> Candidates:
        candidates = Candidates(self.x, self.y, self.p, careful)
        candidates.fill(prices, self.clock.check)
        return candidates

    def _first_prices(self) -> Float64[Tensor, " m"]:
        some = torch.randperm(len(self.x), generator=self.generator)[:TRIED]
        choices = [torch.zeros_like(self.bounds.prices), self.bounds.prices]
        choices += self._of_fewer() if self.start is None else [self.start[0]]
        began = self.clock.elapsed()
        proven = [float(least_sums(self.x[some], self.y, c, self.p)[0].mean() - c.mean()) for c in choices]
        self.clock.aside = SPARE * (self.clock.elapsed() - began) / len(choices) * len(self.x) / len(some)
        return choices[max(range(len(choices)), key=proven.__getitem__)]

    def _of_fewer(self) -> list[Float64[Tensor, " m"]]:
        """The prices that the potential of a part of the points leads to, where there is one (McShane)."""
        count = len(self.x) // FEWER
        if self.x.shape[1] > FLAT or count < TRIED:
            return []
        x, y = (z[torch.randperm(len(z), generator=self.generator)[:count]] for z in (self.x, self.y))
        part = Problem(x, y, self.bounds.problem.exponent, torch.empty(2, 0, dtype=torch.long))
        bounds = Bounds(part, self.p, self.clock)
        Search(bounds, ENOUGH, self.clock, int(torch.randint(2**31, (1,), generator=self.generator))).run(False)
        return [-self._least(self.y, x, -self._least(x, y, bounds.prices))]

    def _least(self, x: Tensor, y: Tensor, prices: Tensor) -> Float64[Tensor, " m"]:
        """min_j(‖x_i − y_j‖ + p_j) of all pairs, while there is time."""
        found = []
        for part in x.split(max(1, AT_ONCE // len(y))):
            self.clock.check()
            found.append(least_sums(part, y, prices, self.p)[0])
        return torch.cat(found)

    def _estimate(self, auction: Auction) -> float:
        """What prices seem to prove, by the lists."""
        return float(auction.candidates.least(auction.prices).mean() - auction.prices.mean())

    def _offer(self, auction: Auction) -> None:
        """Take the pairing, and what lists prove of the prices."""
        self.bounds.offer_pairing(auction.completed())
        self.bounds.offer_prices(
            auction.prices, self.bounds.value(auction.prices, auction.candidates.proven(auction.prices))
        )

    def _settled(self, auction: Auction) -> bool:
        """Whether the bounds have met. Where lists promise it and do not prove it, all pairs are looked at.

        Where these deny it too, lists are made by differences.
        """
        self._offer(auction)
        upper, seems = float(self.bounds.upper), self._estimate(auction)
        blurred = auction.candidates.products is not None
        if self._near() or not blurred or upper - max(seems, float(self.bounds.lower)) > self.tolerance * upper:
            return self._near()
        self.bounds.offer_prices(auction.prices)
        if not self._near() and seems - float(self.bounds.lower) > self.tolerance * upper / 4:
            auction.candidates = self._listed(auction.prices, careful=True)
        return self._near()
