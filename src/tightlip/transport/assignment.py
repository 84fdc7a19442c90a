"""The least mean cost of pairing two samples, mean_i ‖x_i − y_σ(i)‖_p, from below and from above.

For samples of equal size and equal weights this is their Wasserstein-1 distance (Birkhoff). Below it is what prices
prove, mean_i min_j(‖x_i − y_j‖ + p_j) − mean_j p_j (Kantorovich); above it is the cost of a pairing. Prices and pairing
come from an auction in which ε is scaled down until the two meet (Bertsekas 1988, *The auction algorithm*). Both
numbers are those of the points as they are given: what every sum and product may be off is known, and taken off.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..arguments import flag, integer, number
from ..errors import TightlipError
from ..norms import as_norm
from ..tensors import as_usual
from .bracket import History
from .clock import started
from .pairing import Bounds, sort
from .samples import Problem, posed
from .search import Search


@dataclass(frozen=True)
class Matching:
    """A pairing of two samples, and proven bounds on the least mean cost of any: lower ≤ W1 ≤ upper.

    Attributes:
        lower: What ``prices`` prove, rounded down; in the unit of the points.
        upper: The mean cost of ``assignment``, rounded up.
        assignment: Shape (n,), int64: x_i goes to y_{assignment[i]}; every j once.
        prices: Shape (n,), float64: `Funnels(y, prices, p)` is the potential that ``lower`` belongs to.
        reason: Why it ended: "gap", as near as was asked; "time"; "exact", as near as float64 can tell; or "going on".
        seconds: That it took.
        history: (seconds, lower, upper) of every improvement.
    """

    lower: float
    upper: float
    assignment: Int64[Tensor, " n"]
    prices: Float64[Tensor, " n"]
    reason: str
    seconds: float
    history: History = field(default_factory=list)


@as_usual()
def assign(
    x: Any,
    y: Any,
    p: float | str = 2,
    tolerance: float = 1e-3,
    seconds: float | None = None,
    progress: bool = False,
    seed: int = 0,
    start: Matching | None = None,
    heard: Callable[[Matching], None] | None = None,
) -> Matching:
    """Pair two samples of one size so that the mean distance is least, within a tolerance that is proven.

    Both bounds hold for the given numbers in exact arithmetic, whenever it ends. Time grows like n²·d, memory like n·(d
    + 32), or n·256 in up to three dimensions, where the last tenths of a percent take longest. In one dimension points
    are sorted instead, which is exact.

    Args:
        x: The first sample, a tensor or numpy array of shape (n, …), each row a point, or (n,); integers and low
            precision are exact.
        y: The second, of the same shape.
        p: The norm of distances: 1, 2 or ∞.
        tolerance: End when (upper − lower)/upper is at most this, ≥ 0.
        seconds: End after about so many, ≥ 0; None: no limit. Time for the last proof is set aside.
        progress: Show the phases on a terminal.
        seed: Of the order of bids.
        start: What was found before for these very samples, to go on from; nothing in it is believed.
        heard: Called now and then, at most every second, with what is proven so far; not on a line.

    It cannot weigh points, nor pair samples of different sizes.

    Raises:
        TightlipError: for samples of another kind, shape or size, NaN or infinity in them, a start of other samples, or
            other options.

    >>> import torch
    >>> found = assign(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[3.0, 5.0], [0.0, 0.0]]))
    >>> found.assignment, f"{found.lower:.6f}", f"{found.upper:.6f}"
    (tensor([1, 0]), '0.500000', '0.500000')
    """
    clock = started(seconds)
    p, tolerance = as_norm(p), number("tolerance", tolerance, least=0)
    progress, seed = flag("progress", progress), integer("seed", seed, least=0)
    problem = posed(x, y)
    bounds = Bounds(problem, p, clock)
    begin = None if start is None else _begun(problem, start)

    def found(reason: str) -> Matching:
        whole, unit = (bounds.whole_assignment(), bounds.whole_prices()), bounds.unit
        return Matching(*bounds.in_units(unit), *whole, reason, clock.elapsed(), bounds.history(unit))

    if problem.x.shape[1] == 1:
        return found(sort(bounds))
    listener = None if heard is None else lambda: heard(found("going on"))
    return found(Search(bounds, tolerance, clock, seed, begin, listener).run(progress))


def _begun(problem: Problem, start: Matching) -> tuple[Float64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Prices and pairing of the points to be paired, in units of the problem."""
    n, m = len(problem.all_x), len(problem.rows_y)
    places = torch.full((n,), -1)
    places[problem.rows_y] = torch.arange(m)
    fits = start.assignment.shape == start.prices.shape == (n,)
    fits = fits and bool(((start.assignment >= 0) & (start.assignment < n)).all())
    pairing = places[start.assignment[problem.rows_x]] if fits else places
    if not fits or not torch.equal(pairing.sort().values, torch.arange(m)) or not start.prices.isfinite().all():
        raise TightlipError("start is of other samples: give what assign has returned for these very ones, or leave it")
    return torch.from_numpy(np.ldexp(start.prices[problem.rows_y].numpy(), -problem.exponent)), pairing
