"""For each x_i the few y_j with the least ‖x_i − y_j‖ + p_j, and from below what all others have.

While prices rise, the threshold T_i, the least sum outside the list, stays a lower bound on everything outside, and it
falls with a price that falls; a list is made again only when its own best sum has risen above T_i. So min(best of the
list, T_i) is not above the least sum of all, and proves what prices are worth without a look at all pairs
(`Candidates.proven`).
Memory is n·k, time for all lists that of n² distances.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from ..linalg.rounding import gamma
from .distances import FEW, LEAST_ROWS, LOST, PIECE, distances, smallest

FLAT, IN_PLANES, ELSEWHERE = 3, 256, 32
"""Candidates of each point in up to so many dimensions, where prices reach far, and in more."""

SINGLE_LOST = 2.0**-60
"""More than underflow in float32 can take from a square or a norm of numbers near 1."""


class Candidates:
    """Lists of k candidates: ``index``, ``cost`` (n, k) and ``threshold`` (n,), ∞ where a list is complete.

    ``nearest`` (n,) is the least squared distance of all, where products made the list.

    Args:
        x: Points (n, d), float64, of size near 1.
        y: Likewise.
        p: The norm.
        careful: Whether distances are differences in float64. Otherwise products in float32 choose the candidates of
            p = 2 where they are faster, and thresholds are as good as those (`blur`).
    """

    def __init__(self, x: Float64[Tensor, "n d"], y: Float64[Tensor, "n d"], p: float, careful: bool) -> None:
        n, d = x.shape
        self.x, self.y, self.p = x, y, p
        size = min(n, IN_PLANES if d <= FLAT else ELSEWHERE)
        self.index = torch.empty(n, size, dtype=torch.int32)
        self.cost = torch.empty(n, size, dtype=torch.float64)
        self.threshold = torch.full((n,), torch.inf, dtype=torch.float64)
        self.nearest, self.highest = torch.zeros(n), 0.0
        products = None if careful or p != 2 or d <= FEW or size == n else _Products(x, y)
        self.products = products if products is not None and products.faithful() else None

    def fill(self, prices: Float64[Tensor, " n"], check: Callable[[], None]) -> None:
        """Make all lists; ``check`` is called now and then, and may raise."""
        self.highest = float(prices.abs().max())
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
            least, found = smallest(all_costs + prices, size + 1)
            costs = all_costs.gather(1, found[:, :-1])
        else:
            sums, self.nearest[rows] = self.products.sums(rows, prices)
            least, found = smallest(sums, size + 1)
            costs = least[:, :-1].double() - prices[found[:, :-1]]
        self.index[rows], self.cost[rows] = found[:, :-1].int(), costs
        self.threshold[rows] = least[:, -1].double()

    def cheaper(self, y: Int64[Tensor, " f"], sums: Float64[Tensor, "n f"], prices: Float64[Tensor, " n"]) -> None:
        """Prices of these y fell: no threshold stays above their sums, by differences, but of lists that have them."""
        rows, which = (sums < self.threshold[:, None]).nonzero(as_tuple=True)
        outside = ~(self.index[rows] == y[which, None]).any(1)
        self.threshold.scatter_reduce_(0, rows[outside], sums[rows[outside], which[outside]], "amin")
        self.highest = max(self.highest, float(prices.abs().max()))

    def sums(self, rows: Tensor, prices: Tensor) -> tuple[Int[Tensor, "r k"], Float64[Tensor, "r k"]]:
        """The candidates of these rows, and their costs with prices."""
        index = self.index.index_select(0, rows)
        sums = prices.index_select(0, index.view(-1)).view(index.shape)
        return index, sums.add_(self.cost.index_select(0, rows))

    def blur(self) -> float:
        """About how far thresholds are off."""
        typical = float(self.cost.median())
        if self.products is None:
            return 0.0
        return self.products.coarseness() / typical if typical else torch.inf

    def least(self, prices: Tensor) -> Float64[Tensor, " n"]:
        """min_j(‖x_i − y_j‖ + p_j) as the lists know it: as good as their arithmetic."""
        parts = torch.arange(len(self.x)).split(max(1, PIECE // self.index.shape[1]))
        best = torch.cat([self.sums(rows, prices)[1].amin(1) for rows in parts])
        return torch.minimum(best, self.threshold)

    def proven(self, prices: Tensor) -> tuple[Float64[Tensor, " n"], float]:
        """At most min_j(‖x_i − y_j‖ + p_j) for each x_i, up to an error that comes with it, like that of `least_sums`.

        **Theorem.** For prices that nowhere fell since the lists were made, but as `cheaper` was told, the least sum of
        x_i is at least v̂_i − 2γ_{d+8}·(max|v̂| + max|p|) − `LOST` − 2⁻²²·max|p|, with v̂_i what `least` has, less
        loss_i, and the largest p of then, of falls and now. Careful lists have no loss and no last term.

        *Proof.* Let prices be p' when the list was made; p' ≤ p. By differences, what is computed as ŝ is at least ŝ −
        γ_{d+8}·(|ŝ| + max|p'|), which grows with ŝ, and ŝ ≥ T_i outside the list; by products it is at least ŝ − loss_i
        − 2⁻²²·max|p'| (`_Products.loss`). What fell to p' is by differences again. In the list p' is taken away and p
        added, which rounds twice. ∎
        """
        values, highest = self.least(prices), max(self.highest, float(prices.abs().max()))
        error = 2.0 * gamma(self.x.shape[1] + 8) * (float(values.abs().max()) + highest) + LOST
        if self.products is None:
            return values, error
        return values - self.products.loss(self.nearest), error + 2.0**-22 * highest


class _Products:
    """Distances in float32 by ‖x‖² + ‖y‖² − 2⟨x, y⟩, of points moved to their center.

    Let x̃, ỹ be the points as they are stored here and R = ‖x̃‖ + max‖ỹ‖. Moving and rounding them takes less than
    2⁻²³·R from a distance. A computed square q̂ is within E = γ_{d+24}·R² of that of ‖x̃ − ỹ‖, in units of float32, so
    √q̂ is too large by E/max(√q̂, √E) at most, which is largest for the least q̂ of a row. The root, the prices and their
    sum round by less than 2⁻²²·(R + max|p|) together. Underflow takes less than `SINGLE_LOST`.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        center = (x.mean(0) + y.mean(0)) / 2
        self.x, self.y = (x - center).float(), (y - center).float()
        self.x_squares, self.y_squares = self.x.square().sum(1, keepdim=True), self.y.square().sum(1)
        self.buffer = torch.empty(max(1, PIECE // len(y)), len(y))
        self.units = (x.shape[1] + 25) * 2.0**-24
        share = self.units / (1.0 - self.units)
        reach = (self.x_squares[:, 0].double().sqrt() + float(self.y_squares.max()) ** 0.5) * (1.0 + share)
        self.off = share * reach.square() + SINGLE_LOST
        self.rounding = 2.0**-21 * reach + SINGLE_LOST

    def sums(self, rows: Tensor, prices: Tensor) -> tuple[Tensor, Tensor]:
        """‖x_i − y_j‖ + p_j for these i (r,), in a buffer (r, n) that is written to again; and the least q̂ of each."""
        squares = self._squares(rows).add_(self.x_squares[rows])
        nearest = squares.amin(1)
        return squares.clamp_(min=0).sqrt_().add_(prices.float()), nearest

    def loss(self, nearest: Tensor) -> Float64[Tensor, " n"]:
        """How far sums may be too high, but for 2⁻²²·max|p|, by the least q̂ of each row."""
        return self.off / torch.maximum(nearest.double(), self.off).sqrt() + self.rounding

    def _squares(self, rows: Tensor) -> Tensor:
        """‖y_j‖² − 2⟨x_i, y_j⟩."""
        return torch.addmm(self.y_squares, self.x[rows], self.y.mT, alpha=-2, out=self.buffer[: len(rows)])

    def faithful(self) -> bool:
        """Whether products are those of float32, of not too many terms: torch may be told to drop digits."""
        for count in {1, min(LEAST_ROWS, len(self.buffer)), len(self.buffer)}:
            rows = torch.arange(min(count, len(self.x)))
            exact = self.y.double().square().sum(1) - 2 * self.x[rows[:1]].double() @ self.y.double().mT
            if float((self._squares(rows)[:1].double() - exact).abs().max()) > float(self.off[0]):
                return False
        return self.units < 0.1

    def coarseness(self) -> float:
        """About the error of half a square of a distance."""
        return 2.0**-22 * float(self.x_squares.mean() + self.y_squares.mean())
