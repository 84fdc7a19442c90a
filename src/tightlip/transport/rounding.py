"""W1 of two weighted samples between two bounds: couplings that are rounded to feasible ones, and prices.

Whoever proposes couplings and prices need not be believed: `bounds` computes what they prove, and rounds outward. On a
line nothing is left to propose. Few pairs go to a network simplex, many to Sinkhorn's iterations.
"""

import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from tqdm import tqdm

from ..arguments import flag, number
from ..linalg.rounding import round_down, round_up
from ..tensors import as_tensor
from .bounds import Flow, above, below, normalized, of_pieces
from .costs import Clouds, Lists, OutOfTime, lists, posed
from .distances import distances
from .line import along_a_line, on_the_line
from .simplex import Simplex
from .sinkhorn import Potentials, lacking, plan, sinkhorn

SMALL = 2**22
"""As many costs are held at once, and all of them are looked at in every sweep."""

LISTED = 32
"""Of more, so many columns of each row."""

TREES = 20_000
"""As many points, of both samples together, go to the network simplex."""

TRIFLING = 300
"""So few pairs need no start from Sinkhorn's iterations."""

WARM = 0.02
"""At this entropy, as a share of the diameter, these iterations hand over to the simplex."""

BRIEF, LONG = 8, 40
"""Sinkhorn's iterations at one entropy: for a start, and where all depends on them."""

OVER = "the time was over"


@dataclass(frozen=True)
class Coupling:
    """W1 of two weighted samples in [lower, upper]; attributes are the fields.

    ``potential`` holds prices q (m,) in float64: f(z) = min_j(‖z − y_j‖ + q_j) is 1-Lipschitz, and attains ``lower`` as
    Σ a_i·f(x_i) − Σ b_j·q_j up to rounding.
    """

    lower: float
    upper: float
    potential: Float64[Tensor, " m"]
    reason: str
    seconds: float


def couple(
    x: Any,
    y: Any,
    weights_x: Any = None,
    weights_y: Any = None,
    p: float | str = 2,
    tolerance: float = 1e-3,
    seconds: float | None = None,
    progress: bool = False,
) -> Coupling:
    """W1 of two weighted samples, of any sizes, from both sides.

    Points on a line are merged, exactly. Up to 20,000 points go to a network simplex, which ends at any tolerance above
    1e-12 but needs its time: 2 s for 1,000 against 1,500 points, 17 s for 4,000 against 6,000, on one core. Beyond that
    Sinkhorn's iterations alone, block by block, are lowered in entropy as long as it helps, and may leave a wider gap.

    Args:
        x: Points (n, …), a tensor or an array of 16 to 64 bits a number; several axes are one point, flattened.
        y: Points (m, …) of the same space.
        weights_x: Of the points of x, (n,), not negative; None for equal ones. What is stated holds for the weights
            divided by their exact sum. A weight below 2⁻¹⁰⁷⁴ of the largest counts as zero.
        weights_y: Of the points of y, (m,).
        p: The norm of the distances: 1, 2 or inf.
        tolerance: Stop when (upper − lower)/upper is at most this.
        seconds: Stop soon after so many seconds; None for no limit. The bounds hold whenever it stops.
        progress: Whether to show a bar.

    Raises:
        TightlipError: if points or weights are missing, NaN, infinite, of other shapes, or the weights negative or all
            zero; or an option is out of range.

    >>> result = couple(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(1, 2), weights_x=torch.tensor([1.0, 3.0]))
    >>> result.lower <= 3.75 <= result.upper, result.upper - result.lower < 1e-12
    (True, True)
    """
    began = time.perf_counter()
    tolerance, progress = number("tolerance", tolerance, least=0), flag("progress", progress)
    end = math.inf if seconds is None else began + number("seconds", seconds, least=0)
    clouds, kept = posed(x, y, weights_x, weights_y, p, lambda: time.perf_counter() > end)
    best = _Best(clouds, tolerance)
    with tqdm(disable=not progress, unit=" looks", leave=False) as bar:
        reason = _search(best, bar)
    return Coupling(
        max(0.0, round_down(best.lower * Fraction(2) ** clouds.exponent)),
        round_up(best.upper * Fraction(2) ** clouds.exponent),
        _extended(np.ldexp(best.prices, clouds.exponent), as_tensor(y, "y").cpu().flatten(1).double(), kept, clouds.p),
        reason,
        time.perf_counter() - began,
    )


class _Best:
    """The best bounds so far; zero prices prove that W1 ≥ 0."""

    def __init__(self, clouds: Clouds, tolerance: float) -> None:
        self.clouds, self.tolerance = clouds, Fraction(tolerance)
        self.lower, self.upper, self.prices = Fraction(0), Fraction(clouds.diameter), np.zeros(len(clouds.y))

    @property
    def gap(self) -> Fraction:
        return (self.upper - self.lower) / self.upper if self.upper else Fraction(0)

    @property
    def enough(self) -> bool:
        return self.gap <= self.tolerance

    def take_flow(self, flow: Flow) -> None:
        self.upper = min(self.upper, above(self.clouds, flow))

    def take_prices(self, prices: np.ndarray, least: np.ndarray) -> None:
        lower = below(self.clouds, prices, least)
        if lower > self.lower:
            self.lower, self.prices = lower, prices

    def take_potentials(self, at: Potentials) -> None:
        prices = -at.g.numpy()
        self.take_prices(prices, lists(self.clouds, prices, 1).least)
        flow = plan(self.clouds, at)
        self.take_flow(flow + along_a_line(self.clouds, *lacking(self.clouds, flow)))


def _search(best: _Best, bar: tqdm) -> str:
    """Why it stopped."""
    clouds = best.clouds
    if clouds.x.shape[1] == 1:
        best.upper, best.prices = on_the_line(clouds)
        best.lower = best.upper
        return "exact: the points are on a line"
    best.take_flow(along_a_line(clouds, normalized(clouds.weights_x), normalized(clouds.weights_y)))
    try:
        reason = (_by_simplex if len(clouds.x) + len(clouds.y) <= TREES else _by_sinkhorn)(best, bar)
    except OutOfTime:
        reason = OVER
    return "the gap is within the tolerance" if best.enough else reason


def _shown(best: _Best, bar: tqdm) -> None:
    bar.set_postfix_str(f"gap {float(best.gap):.2g}")
    bar.update()


def _by_sinkhorn(best: _Best, bar: tqdm) -> str:
    """Less entropy as long as it closes the gap; three steps in a row that do not are the end."""
    stale = 0
    for at in sinkhorn(best.clouds, LONG):
        last = best.gap
        best.take_potentials(at)
        _shown(best, bar)
        stale = 0 if best.gap < last * Fraction(99, 100) else stale + 1
        if best.enough or stale == 3:
            return "less entropy does not close the gap any more"
    raise AssertionError


def _by_simplex(best: _Best, bar: tqdm) -> str:
    """Trees over lists of pairs; new lists with the prices of the best tree, until no other pair is better."""
    clouds, known, f, g = _start(best)
    key = known.costs - f[:, None] - g[known.columns]
    tree, pivots = Simplex(clouds.weights_x, clouds.weights_y, known, key, clouds.between), -1
    while tree.pivots > pivots and not clouds.over():
        pivots, prices = tree.pivots, _swept(tree, best, bar)
        best.take_flow(of_pieces(clouds, *tree.pieces()))
        tree.known = lists(clouds, prices, known.columns.shape[1])
        best.take_prices(prices, tree.known.least)
        _shown(best, bar)
        if best.enough:
            break
    return OVER if clouds.over() else "no pair improves any more"


def _start(best: _Best) -> tuple[Clouds, Lists, np.ndarray, np.ndarray]:
    """Potentials of a few of Sinkhorn's iterations, and the pairs that they favor."""
    few = best.clouds.size <= SMALL
    clouds = best.clouds = best.clouds.held() if few else best.clouds
    f, g = np.zeros(len(clouds.x)), np.zeros(len(clouds.y))
    if clouds.size > TRIFLING:
        for at in sinkhorn(clouds, BRIEF):
            f, g = at.f.numpy(), at.g.numpy()
            if at.epsilon <= WARM * clouds.diameter:
                break
    known = lists(clouds, -g, len(g) if few else min(LISTED, len(g)))
    best.take_prices(-g, known.least)
    return clouds, known, f, g


def _swept(tree: Simplex, best: _Best, bar: tqdm) -> np.ndarray:
    """Sweep until the known pairs leave half of the tolerance, none of them improves or the time is over."""
    most, found, improving = -math.inf, tree.prices, True
    while improving and not best.clouds.over():
        prices = tree.prices
        improving = tree.sweep(best.clouds.over)
        if tree.lower > most:
            found, most = prices, tree.lower
        bar.update()
        if tree.upper - most <= float(best.tolerance) / 2 * tree.upper:
            break
    return found


def _extended(prices: np.ndarray, y: Tensor, kept: Tensor, p: float) -> Tensor:
    """Prices of all points of y: those without weight have the potential's own value, which they do not change."""
    found = torch.empty(len(y), dtype=torch.float64)
    found[kept] = torch.from_numpy(prices)
    for point in torch.nonzero(~kept)[:, 0].tolist():
        found[point] = (distances(y[kept], y[point, None], p)[:, 0] + found[kept]).amin()
    return found
