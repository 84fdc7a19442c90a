"""W1 of two weighted samples between two bounds: couplings that are rounded to feasible ones, and prices.

Whoever proposes couplings and prices need not be believed: `bounds` computes what they prove, and rounds outward. On a
line nothing is left to propose. Few pairs go to a network simplex, many to Sinkhorn's iterations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from tqdm import tqdm

from ..arguments import flag, number
from ..norms import as_norm
from ..tensors import as_usual
from .bounds import Flow, above, along_the_means, below, normalized, of_pieces
from .bracket import Bracket, History
from .clock import Clock, TimeUp, started
from .costs import Clouds, Lists, lists, posed
from .distances import distances
from .line import along_a_line, on_the_line, unmoved
from .pot import fits, solved
from .rows import both_points
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

GAP, OVER, SETTLED = "the gap is within the tolerance", "the time was over", "no pair improves any more"
GOING = "the search is going on"

LINE, SAME = "order on the line", "points that both samples have"


@dataclass(frozen=True)
class Coupling:
    """W1 of two weighted samples in [lower, upper]; attributes are the fields.

    ``potential`` holds prices q (m,) in float64: f(z) = min_j(‖z − y_j‖ + q_j) is 1-Lipschitz, and attains ``lower`` as
    Σ a_i·f(x_i) − Σ b_j·q_j up to rounding. ``pairs`` (k, 2) are those that the coupling of ``upper`` moves mass
    between, None where it moves some between all of them; ``history`` has (seconds, lower, upper) of every improvement.
    """

    lower: float
    upper: float
    potential: Float64[Tensor, " m"]
    reason: str
    seconds: float
    method: str = ""
    pairs: Int64[Tensor, "k 2"] | None = None
    history: History = field(default_factory=list)


@as_usual()
def couple(
    x: Any,
    y: Any,
    weights_x: Any = None,
    weights_y: Any = None,
    p: float | str = 2,
    tolerance: float = 1e-3,
    seconds: float | None = None,
    progress: bool = False,
    heard: Callable[[Coupling], None] | None = None,
) -> Coupling:
    """W1 of two weighted samples, of any sizes, from both sides.

    Points on a line are merged, exactly. Up to 20,000 points go to a network simplex, which ends at any tolerance above
    1e-12 but needs its time: 2 s for 1,000 against 1,500 points, 17 s for 4,000 against 6,000, on one core; a tenth and
    a third of it where POT is installed, whose simplex then proposes (`tightlip[transport]`). Beyond that Sinkhorn's
    iterations alone, block by block, are lowered in entropy as long as it helps, and may leave a wider gap.

    Args:
        x: Points (n, …), a tensor or an array of numbers that float64 has exactly; several axes are one point,
            flattened, and (n,) are numbers.
        y: Points (m, …) of the same space.
        weights_x: Of the points of x, (n,), not negative; None for equal ones. What is stated holds for the weights
            divided by their exact sum. A weight below 2⁻¹⁰⁷⁴ of the largest counts as zero.
        weights_y: Of the points of y, (m,).
        p: The norm of the distances: 1, 2 or inf.
        tolerance: Stop when (upper − lower)/upper is at most this.
        seconds: Stop soon after so many seconds; None for no limit. The bounds hold whenever it stops.
        progress: Show a bar on a terminal.
        heard: Called now and then with what is proven so far.

    Raises:
        TightlipError: if points or weights are missing, NaN, infinite, of other shapes, or the weights negative or all
            zero; or an option is out of range.

    >>> result = couple(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(1, 2), weights_x=torch.tensor([1.0, 3.0]))
    >>> result.lower <= 3.75 <= result.upper, result.upper - result.lower < 1e-12
    (True, True)
    """
    clock, tolerance, progress = started(seconds), number("tolerance", tolerance, least=0), flag("progress", progress)
    p, (x, y) = as_norm(p), both_points(x, y)
    clouds, *kept = posed(x, y, weights_x, weights_y, p, clock.over)
    best = _Best(clouds, tolerance, clock)
    best.take_order()

    def found(reason: str) -> Coupling:
        prices = _extended(np.ldexp(best.prices, clouds.exponent), y, kept[1], p)
        return best.told(Fraction(2) ** clouds.exponent, prices, reason, kept)

    best.heard = None if heard is None else lambda: heard(found(GOING))
    with tqdm(disable=None if progress else True, unit=" looks", leave=False) as bar:
        weighted = x[kept[0]], y[kept[1]]
        same = best.take_same(*weighted)
        return found(same or (best.take_line(*weighted) if x.shape[1] == 1 else _search(best, bar)))


class _Best(Bracket):
    """The best bounds so far; zero prices prove that W1 ≥ 0."""

    def __init__(self, clouds: Clouds, tolerance: float, clock: Clock) -> None:
        super().__init__(Fraction(clouds.diameter), clock)
        self.clouds, self.tolerance, self.prices = clouds, Fraction(tolerance), np.zeros(len(clouds.y))
        self.pairs: Tensor | None = None
        self.method = self.stage = "order along a line"
        self.heard: Callable[[], None] | None = None

    @property
    def enough(self) -> bool:
        return self.gap <= self.tolerance

    def take_order(self) -> None:
        """In n + m steps: the order along a line, and the linear function along the difference of means."""
        clouds = self.clouds
        flow = along_a_line(clouds, normalized(clouds.weights_x), normalized(clouds.weights_y))
        self.take_flow(flow)
        self.pairs = flow.pairs
        lower, prices = along_the_means(clouds)
        if self.rises(lower):
            self.prices = prices

    def take_line(self, x: Tensor, y: Tensor) -> str:
        """Points (n, 1) on a line as they are given: choosing a unit may round."""
        clouds = self.clouds
        cost, prices = on_the_line(x[:, 0].numpy(), y[:, 0].numpy(), clouds.weights_x, clouds.weights_y)
        self.lower = self.upper = cost / Fraction(2) ** clouds.exponent
        self.prices, self.method = np.ldexp(prices, -clouds.exponent), LINE
        return "exact: the points are on a line"

    def take_same(self, x: Tensor, y: Tensor) -> str | None:
        """No mass moves if both samples are one distribution: nothing is rounded then."""
        pairs = unmoved(x, y, self.clouds.weights_x, self.clouds.weights_y)
        if pairs is None:
            return None
        self.falls(Fraction(0))
        self.pairs, self.method = pairs, SAME
        return "exact: both samples are one distribution"

    def take_flow(self, flow: Flow) -> None:
        if self.falls(above(self.clouds, flow)):
            self.pairs, self.method = flow.pairs, self.stage

    def take_prices(self, prices: np.ndarray, least: np.ndarray) -> None:
        if self.rises(below(self.clouds, prices, least)):
            self.prices, self.method = prices, self.stage

    def take_potentials(self, at: Potentials) -> None:
        prices = -at.g.numpy()
        self.take_prices(prices, lists(self.clouds, prices, 1).least)
        flow = plan(self.clouds, at)
        self.take_flow(flow + along_a_line(self.clouds, *lacking(self.clouds, flow)))

    def told(self, unit: Fraction, prices: Tensor, reason: str, kept: list[Tensor]) -> Coupling:
        """The result, in these units, where ``kept`` says which points of x and of y these were."""
        places = [torch.nonzero(here)[:, 0] for here in kept]
        pairs = None if self.pairs is None else torch.stack([places[k][self.pairs[:, k]] for k in (0, 1)], 1)
        lower, upper = self.in_units(unit)
        seconds, history = self.clock.elapsed(), self.history(unit)
        return Coupling(lower, upper, prices, reason, seconds, self.method, pairs, history)


def _search(best: _Best, bar: tqdm) -> str:
    """Why it stopped."""
    _shown(best, bar)
    if best.enough:
        return GAP
    few = len(best.clouds.x) + len(best.clouds.y) <= TREES
    try:
        reason = _by_pot(best) or (_by_simplex if few else _by_sinkhorn)(best, bar)
    except TimeUp:
        reason = OVER
    return GAP if best.enough else reason


def _shown(best: _Best, bar: tqdm) -> None:
    bar.set_postfix_str(f"gap {float(best.gap):.2g}")
    bar.update()
    if best.heard is not None:
        best.heard()


def _by_pot(best: _Best) -> str | None:
    """POT's simplex proposes, where it is installed and what it takes is there; None if it does not end the search."""
    if not fits(best.clouds.size, best.clock.left()):
        return None
    best.clouds = best.clouds.held()
    found = solved(best.clouds)
    if found is None:
        return None
    best.stage = "network simplex (POT)"
    best.take_flow(of_pieces(best.clouds, *found.pieces))
    best.take_prices(found.prices, lists(best.clouds, found.prices, 1).least)
    return SETTLED if found.best or best.enough else None


def _by_sinkhorn(best: _Best, bar: tqdm) -> str:
    """Less entropy as long as it closes the gap; three steps in a row that do not are the end."""
    stale, best.stage = 0, "Sinkhorn's iterations"
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
    best.stage = "network simplex"
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
    return OVER if clouds.over() else SETTLED


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
