"""Error bands without a model: all that a slope K and measurements say of a function at another point.

Let |f(x) − f(x′)| ≤ K·‖x − x′‖_p everywhere, and let y_i be within ``noise`` of f(x_i). Then

    lower(x) = max_i (y_i − noise − K·‖x − x_i‖_p)  ≤  f(x)  ≤  upper(x) = min_i (y_i + noise + K·‖x − x_i‖_p),

and nothing tighter follows: both ends are themselves K-Lipschitz and within the noise of all measurements (McShane
1934, Whitney 1934). There is such a function at all if and only if |y_i − y_j| ≤ 2·noise + K·‖x_i − x_j‖_p for all
pairs. The middle of the band is the prediction with the least worst error, half its width (Sukharev 1978).

Distances by differences err by a small share of themselves (`transport.distances`); ends are moved outward by it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from .arguments import number
from .decimals import round_up
from .errors import TightlipError
from .linalg.rounding import UNIT_ROUNDOFF
from .norms import as_norm
from .tensors import as_tensor, refuse_non_finite
from .transport.distances import FARTHEST, LOST, PIECE, distance_error, distances


class Band(NamedTuple):
    """Where a function can be at some points: from ``lower`` to ``upper``, both (n,), in the unit of the values."""

    lower: Float64[Tensor, " n"]
    upper: Float64[Tensor, " n"]

    @property
    def middle(self) -> Float64[Tensor, " n"]:
        """The prediction with the least worst error."""
        return self.lower + (self.upper - self.lower) / 2

    @property
    def half_width(self) -> Float64[Tensor, " n"]:
        """That error: how far the function can be from the middle."""
        return (self.upper - self.lower) / 2


class ErrorBand:
    """Where any function of slope ≤ K can be, given measurements of it: called with points, it returns a `Band`.

    For claims about what was measured, beside or without a network: of a prediction z at x the error is at most
    max(upper − z, z − lower). The band is exact; it is wide where measurements are far, and in many dimensions all are
    far. It rests on K and on the noise, which are claims of yours: the data can refute them, and never prove them.

    Takes time and memory in proportion to points × measurements, in pieces; to check them, to their square.

    Args:
        points: x, shape (n, d), a tensor or an array; converted to float64 exactly. Where features have units of their
            own, give standardized rows here and later.
        values: y, shape (n,) or (n, 1).
        K: The slope, in units of the values per unit of the points, ≥ 0.
        noise: What a value may be off by, in its unit, ≥ 0.
        p: The norm of differences of points: 1, 2 or ``math.inf``.

    Raises:
        TightlipError: for other shapes, numbers that are not finite, or measurements that no such function has: then it
            says which least K, or which least noise, would do.

    >>> band = ErrorBand(torch.tensor([[0.0], [4.0]]), torch.tensor([1.0, 3.0]), K=1.0)
    >>> [round(float(end), 6) for end in band(torch.tensor([[2.0]]))]
    [1.0, 3.0]
    """

    def __init__(self, points: Any, values: Any, K: float, noise: float = 0.0, p: float = 2) -> None:
        self.K, self.noise, self.p = number("K", K, least=0.0), number("noise", noise, least=0.0), as_norm(p)
        self.points, self.values = _rows("points", points), _column(values)
        if len(self.points) != len(self.values) or not len(self.points):
            raise TightlipError(f"each point has a value: got {len(self.points)} points and {len(self.values)} values")
        self._refuse_contradiction()

    def __repr__(self) -> str:
        n, d = self.points.shape
        return f"ErrorBand({n} measurements in {d} dimensions, K={self.K:g}, noise={self.noise:g}, p={self.p:g})"

    @torch.no_grad()
    def __call__(self, x: Any) -> Band:
        """The band at points of shape (m, d), which holds the function for certain, rounding included.

        Raises:
            TightlipError: for points of another shape, or numbers that are not finite.
        """
        rows = _rows("points", x)
        if rows.shape[1] != self.points.shape[1]:
            raise TightlipError(
                f"measurements are in {self.points.shape[1]} dimensions, and these points in {rows.shape[1]}: give "
                "points as they were measured"
            )
        pieces = [self._ends(away) for away in _pieces(rows, self.points, self.p)]
        return Band(*(torch.cat(ends).to(_place(x)) for ends in zip(*pieces, strict=True)))

    def _ends(self, away: Float64[Tensor, "k n"]) -> tuple[Tensor, Tensor]:
        """Of some points with these distances, both moved outward by what their own measurement's sum may be off."""
        reach = self.K * away + self.noise
        lower, below = (self.values - reach).max(1)
        upper, above = (self.values + reach).min(1)
        down, up = (
            self._share * (reach.gather(1, place[:, None])[:, 0] + self.values[place].abs()) + (self.K + 1) * LOST
            for place in (below, above)
        )
        return lower - 2 * down, upper + 2 * up

    @property
    def _share(self) -> float:
        """Of the numbers in a sum y ± (K·‖x − x_i‖ + noise): what rounding takes, that of the distance included."""
        return distance_error(self.points.shape[1]) + 8 * UNIT_ROUNDOFF

    def _refuse_contradiction(self) -> None:
        """Raise unless some function of this slope is within the noise of all values."""
        noise, slope, first = 0.0, 0.0, 0
        for away in _pieces(self.points, self.points, self.p):
            apart = (self.values[first : first + len(away), None] - self.values).abs()
            share = 4 * self._share * (apart + self.noise + self.K * away) + (self.K + 1) * LOST
            noise = max(noise, float((apart - self.K * away - share).max()) / 2)
            excess = apart - 2 * self.noise - share
            slope = max(slope, float(torch.where(excess > 0, excess / away, 0.0).max()))
            first += len(away)
        if noise > self.noise:
            steeper = "no slope suffices, as points repeat with other values"
            steeper = steeper if slope == torch.inf else f"K ≥ {round_up(slope, 6)}"
            raise TightlipError(
                f"no function of slope K={self.K:g} is within noise={self.noise:g} of all measurements: declare noise "
                f"≥ {round_up(noise, 6)}, or a larger K ({steeper})"
            )


def _pieces(x: Tensor, y: Tensor, p: float) -> Iterator[Float64[Tensor, "k n"]]:
    """Distances of some x at a time to all y."""
    for some in x.split(max(1, PIECE // len(y))) if len(x) else (x,):
        yield distances(some, y, p)


def _place(given: Any) -> torch.device:
    """Where a caller's tensor lies; arrays lie in memory."""
    return given.device if isinstance(given, Tensor) else torch.device("cpu")


def _rows(name: str, given: Any) -> Float64[Tensor, "n d"]:
    rows = as_tensor(given, name).to("cpu", torch.float64)
    if rows.dim() != 2 or not rows.shape[1]:
        raise TightlipError(f"{name} must have shape (n, d), got {tuple(rows.shape)}: give a row for each")
    refuse_non_finite(rows, name)
    if rows.numel() and float(rows.abs().max()) > FARTHEST:
        raise TightlipError(f"{name} have coordinates beyond {FARTHEST:g}: change the unit of length")
    return rows


def _column(given: Any) -> Float64[Tensor, " n"]:
    values = as_tensor(given, "values").to("cpu", torch.float64)
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dim() != 1:
        raise TightlipError(f"values must have shape (n,), one for each point, got {tuple(values.shape)}")
    refuse_non_finite(values, "values")
    return values
