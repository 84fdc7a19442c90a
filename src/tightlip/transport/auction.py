"""The auction for assignments: points x_i bid for points y_j until everyone has one (Bertsekas 1988).

Everyone keeps to the rule of ε-complementary slackness: who holds y_j pays at most ε more, with its price, than the
least sum that there is for him. A bid raises a price by as much as keeps that true, p_j + (second best − best) + ε.
When all have one, the mean cost is within ε of the least. ε falls from phase to phase, and who keeps the rule under
the new ε keeps his point.

A y far from all others is dear to everyone, and prices of all others would have to rise by as much before anybody turns
to it. So where few are left, what nobody holds becomes cheaper instead (`Auction._reduce`).
"""

import math
import sys
from collections import deque
from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from .candidates import Candidates
from .distances import PIECE, distances, pair_distances

BATCH = 2048
"""Most bids at once."""

FEW = 16
"""So few bid one after the other, each with the prices that the last one left."""


class Auction:
    """Prices (n,), which only rise; ``held`` (n,), the y that each x holds, and ``holder``, the x of each y; or −1.

    Args:
        candidates: Lists made at these prices.
        prices: Where to start.
        generator: Of the order of bidders.
    """

    def __init__(self, candidates: Candidates, prices: Float64[Tensor, " n"], generator: torch.Generator) -> None:
        n = len(prices)
        self.candidates, self.prices, self.generator = candidates, prices.clone(), generator
        self.held = torch.full((n,), -1, dtype=torch.long)
        self.holder = torch.full((n,), -1, dtype=torch.long)

    def phase(self, eps: float, leave: int, check: Callable[[], None]) -> None:
        """Bid until all but ``leave`` points hold one, or for ``leave`` > 0 until few go on and on.

        ``check`` is called before each batch, and may raise.
        """
        self._keep(eps)
        waiting = (self.held < 0).nonzero()[:, 0]
        waiting = waiting[torch.randperm(len(waiting), generator=self.generator)]
        while len(waiting) > max(leave, FEW):
            check()
            bidders, rest = waiting[:BATCH], waiting[BATCH:]
            without = self._sell(bidders, *self._bids(bidders, eps))
            waiting = torch.cat((rest, without))
        self._reduce()
        self._one_by_one(deque(waiting.tolist()), eps, leave, check)

    def _one_by_one(self, waiting: deque[int], eps: float, leave: int, check: Callable[[], None]) -> None:
        """The same bids in numpy, which takes less time than torch to begin; it writes to the same memory."""
        lists = self.candidates
        index, cost, threshold = lists.index.numpy(), lists.cost.numpy(), lists.threshold.numpy()
        prices, held, holder = self.prices.numpy(), self.held.numpy(), self.holder.numpy()
        most = sys.maxsize if leave == 0 else len(prices)
        while len(waiting) > leave and (most := most - 1) >= 0:
            check()
            i = waiting.popleft()
            sums = prices[index[i]] + cost[i]
            if sums.min() > threshold[i]:
                lists.renew(torch.tensor([i]), self.prices)
                sums = prices[index[i]] + cost[i]
            place = sums.argmin()
            best, j, before = sums[place], index[i, place], holder[index[i, place]]
            sums[place] = math.inf
            prices[j] += max(min(sums.min(), threshold[i]) - best, 0.0) + eps
            holder[j], held[i] = i, j
            if before >= 0:
                held[before] = -1
                waiting.append(int(before))

    def _reduce(self) -> None:
        """Prices of free y fall to the largest that somebody would pay without paying more than now.

        No least sum changes, so everyone keeps the rule, and prices prove more. It is a step of a reverse auction
        (Bertsekas and Castañon 1992).
        """
        lists, free = self.candidates, (self.holder < 0).nonzero()[:, 0]
        least = lists.least(self.prices)[:, None]
        for y in free.split(max(1, PIECE // len(least))):
            costs = distances(lists.x, lists.y[y], lists.p)
            self.prices[y] = torch.minimum((least - costs).amax(0), self.prices[y])
            lists.cheaper(y, costs + self.prices[y], self.prices)

    def _keep(self, eps: float) -> None:
        """Who breaks the rule lets go."""
        x = (self.held >= 0).nonzero()[:, 0]
        y = self.held[x]
        paid = pair_distances(self.candidates.x, self.candidates.y, x, y, self.candidates.p) + self.prices[y]
        broken = paid > self.candidates.least(self.prices)[x] + eps
        self.held[x[broken]] = -1
        self.holder[y[broken]] = -1

    def _bids(self, bidders: Int64[Tensor, " b"], eps: float) -> tuple[Int64[Tensor, " b"], Float64[Tensor, " b"]]:
        """What each bids for, and the price that he offers."""
        candidates, prices = self.candidates, self.prices
        index, sums = candidates.sums(bidders, prices)
        best, place = sums.min(1)
        outdated = best > candidates.threshold[bidders]
        if bool(outdated.any()):
            candidates.renew(bidders[outdated], prices)
            index, sums = candidates.sums(bidders, prices)
            best, place = sums.min(1)
        place = place[:, None]
        second = torch.minimum(sums.scatter_(1, place, torch.inf).amin(1), candidates.threshold[bidders])
        wanted = index.gather(1, place)[:, 0].long()
        return wanted, prices[wanted] + (second - best).clamp_(min=0) + eps

    def _sell(self, bidders: Tensor, wanted: Tensor, offers: Tensor) -> Int64[Tensor, " w"]:
        """The highest bid for each y wins; returns who goes without: losers, and holders until now."""
        order = offers.argsort()
        order = order[wanted[order].argsort(stable=True)]
        y = wanted[order]
        wins = torch.ones(len(y), dtype=torch.bool)
        wins[:-1] = y[1:] != y[:-1]
        winners, y = order[wins], y[wins]
        before = self.holder[y]
        before = before[before >= 0]
        self.held[before] = -1
        self.prices[y] = torch.maximum(offers[winners], self.prices[y])  # lists hold for prices that only rise
        self.holder[y], self.held[bidders[winners]] = bidders[winners], y
        return torch.cat((bidders[order[~wins]], before))

    def completed(self) -> Int64[Tensor, " n"]:
        """The assignment, where those without a point take what is left, each in turn the nearest."""
        held = self.held.clone()
        x, y = (held < 0).nonzero()[:, 0], (self.holder < 0).nonzero()[:, 0]
        if len(x) > BATCH:
            held[x] = y
            return held
        points = self.candidates
        costs = torch.cdist(points.x[x], points.y[y], p=points.p)
        for row, i in enumerate(x):
            column = int(costs[row].argmin())
            held[i] = y[column]
            costs[:, column] = torch.inf
        return held
