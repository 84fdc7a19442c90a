"""For each x_i the few y_j with the least ‖x_i − y_j‖ + p_j, and from below what all others have.

Prices only rise, so the threshold T_i, the least sum outside the list, stays a lower bound on everything outside
while prices change; a list is made again only when its own best sum has risen above T_i. Memory is n·k, time for all
lists that of n² distances.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from .distances import FEW, PIECE, distances

IN_PLANES, ELSEWHERE = 256, 32
"""Candidates of each point in up to three dimensions, where prices reach far, and in more."""


class Candidates:
    """Lists of k candidates: ``index``, ``cost`` (n, k) and ``threshold`` (n,), ∞ where a list is complete.

    Args:
        x: Points (n, d), float64, of size near 1.
        y: Likewise.
        p: The norm.
        careful: Whether distances are differences in float64. Otherwise products in float32 choose the candidates of
            p = 2 where they are faster, and costs and thresholds are as good as those (`blur`).
    """

    def __init__(self, x: Float64[Tensor, "n d"], y: Float64[Tensor, "n d"], p: float, careful: bool) -> None:
        n, d = x.shape
        self.x, self.y, self.p = x, y, p
        size = min(n, IN_PLANES if d <= 3 else ELSEWHERE)
        self.index = torch.empty(n, size, dtype=torch.int32)
        self.cost = torch.empty(n, size, dtype=torch.float64)
        self.threshold = torch.full((n,), torch.inf, dtype=torch.float64)
        self.products = None if careful or p != 2 or d <= FEW or size == n else _Products(x, y)

    def fill(self, prices: Float64[Tensor, " n"], check: Callable[[], None]) -> None:
        """Make all lists; ``check`` is called now and then, and may raise."""
        for rows in torch.arange(len(self.x)).split(max(1, PIECE // len(self.y))):
            check()
            self._renew(rows, prices)

    def renew(self, rows: Int64[Tensor, " r"], prices: Float64[Tensor, " n"]) -> None:
        """Make these lists again, at prices as they are now."""
        for part in rows.split(max(1, PIECE // len(self.y))):
            self._renew(part, prices)

    def _renew(self, rows: Tensor, prices: Tensor) -> None:
        size = self.index.shape[1]
        if size == len(self.y):
            self.index[rows] = torch.arange(size, dtype=torch.int32)
            self.cost[rows] = distances(self.x[rows], self.y, self.p)
            return
        if self.products is None:
            all_costs = distances(self.x[rows], self.y, self.p)
            least, found = (all_costs + prices).topk(size + 1, 1, largest=False)
            costs = all_costs.gather(1, found[:, :-1])
        else:
            least, found = self.products.sums(rows, prices).topk(size + 1, 1, largest=False)
            costs = least[:, :-1].double() - prices[found[:, :-1]]
        self.index[rows], self.cost[rows] = found[:, :-1].int(), costs
        self.threshold[rows] = least[:, -1].double()

    def sums(self, rows: Tensor, prices: Tensor) -> tuple[Int[Tensor, "r k"], Float64[Tensor, "r k"]]:
        """The candidates of these rows, and their costs with prices."""
        index = self.index.index_select(0, rows)
        sums = prices.index_select(0, index.view(-1)).view(index.shape)
        return index, sums.add_(self.cost.index_select(0, rows))

    def blur(self) -> float:
        """About how far costs and thresholds are off."""
        typical = float(self.cost.median())
        if self.products is None:
            return 0.0
        return self.products.coarseness() / typical if typical else torch.inf

    def least(self, prices: Tensor) -> Float64[Tensor, " n"]:
        """min_j(‖x_i − y_j‖ + p_j) as the lists know it: exact but for the arithmetic of thresholds."""
        parts = torch.arange(len(self.x)).split(max(1, PIECE // self.index.shape[1]))
        best = torch.cat([self.sums(rows, prices)[1].amin(1) for rows in parts])
        return torch.minimum(best, self.threshold)


class _Products:
    """Distances in float32 by ‖x‖² + ‖y‖² − 2⟨x, y⟩, of points moved to their center."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        center = (x.mean(0) + y.mean(0)) / 2
        self.x, self.y = (x - center).float(), (y - center).float()
        self.x_squares, self.y_squares = self.x.square().sum(1, keepdim=True), self.y.square().sum(1)
        self.buffer = torch.empty(max(1, PIECE // len(y)), len(y))

    def sums(self, rows: Tensor, prices: Tensor) -> Tensor:
        squares = torch.addmm(self.y_squares, self.x[rows], self.y.mT, alpha=-2, out=self.buffer[: len(rows)])
        return squares.add_(self.x_squares[rows]).clamp_(min=0).sqrt_().add_(prices.float())

    def coarseness(self) -> float:
        """About the error of half a square of a distance."""
        return 2.0**-22 * float(self.x_squares.mean() + self.y_squares.mean())
