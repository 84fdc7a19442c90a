"""How far apart are two samples, or the distributions behind them, and how sure are we? One call for both.

    samples          lower ≤ W1 ≤ upper for the given points and weights: always, in exact arithmetic
    distributions    lower ≤ W1 ≤ upper for what they are drawn from: with probability ``level``

About samples nothing is random. Who proposes is chosen by their shape: order on a line; the auction (`assign`) for
samples of one size, whose points count the same; a network simplex or Sinkhorn's iterations (`couple`) for all others.
Whoever proposed, the bounds are computed again from the points and rounded outward.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..arguments import confidence_level, flag, integer, number, taking
from ..choices import chosen
from ..errors import TightlipError
from ..norms import as_norm
from ..tensors import as_usual
from .assignment import Matching, assign
from .clock import started
from .interval import Interval
from .points import as_weights
from .population import LARGEST_SEED, population
from .pot import fits
from .potential import Funnels
from .rounding import GAP, GOING, LINE, OVER, Coupling, couple
from .rows import both_points

TOLERANCE, LEVEL = 1e-3, 0.95

AUCTION = "auction"
"""The method that goes on from an earlier interval."""

NUMBERS = 2**26
"""Coordinates of both samples together that are read into memory: half a GiB as float64."""

PAIRS, PAIRS_AN_HOUR = 2**40, 1.7e11
"""More pairs are looked at only for a given time; of so many the auction is done in an hour, on one core."""

PLANES = (2, 3)
"""Dimensions in which a network simplex is faster than the auction, if POT is installed."""

REASONS = {
    "gap": GAP,
    "time": OVER,
    "exact": "the bounds are as near as float64 can tell",
    "going on": GOING,
}

Heard = Callable[[Interval], None] | None


@dataclass(frozen=True)
class _Asked:
    """How two samples are searched, whoever does it; see `wasserstein1`."""

    p: float
    tolerance: float
    progress: bool
    seed: int
    start: Any
    heard: Heard


@as_usual()
def wasserstein1(
    x: Any,
    y: Any,
    *,
    p: float | str = 2,
    about: str = "samples",
    weights: tuple[Any, Any] = (None, None),
    tolerance: float = TOLERANCE,
    level: float = LEVEL,
    diameter: float | None = None,
    critic: Any = None,
    seconds: float | None = None,
    progress: bool = True,
    seed: int = 0,
    start: Any = None,
    heard: Heard = None,
) -> Interval:
    """The Wasserstein-1 distance of two samples, or of the distributions that they are drawn from, as an `Interval`.

    About samples the interval is proven for the numbers given, whenever it ends; ``level``, ``diameter`` and ``critic``
    have no meaning there. About distributions it holds with probability ``level`` if the points of each sample are
    independent draws; the samples may be far too large for memory, and ``tolerance`` has no meaning: the draws decide.
    What has no meaning is refused.

    Samples are searched on the CPU, wherever they are. Time grows like n·m·d: 2 s for 10,000 points of 16 coordinates,
    3 minutes for 100,000 of one size and equal weights. Others take longer: 20 s for 4,000 against 6,000, a third of it
    with the extra ``tightlip[transport]``. Two or three dimensions take longest. On a line it is sorting.

    Args:
        x: The first sample, a tensor or numpy array of shape (n, …), each row a point, or (n,); integers and low
            precision are exact, and an array may be memory-mapped.
        y: The second, (m, …) of the same space.
        p: The norm of distances: 1, 2 or ∞.
        about: "samples" or "distributions".
        weights: Of the points of x and of those of y, (n,) and (m,), none negative; None for equal ones.
        tolerance: About samples: end when (upper − lower)/upper is at most this, ≥ 0.
        level: About distributions: how often the interval holds, in (0, 1).
        diameter: About distributions: a bound on the distance of any two points that can occur, declared and not
            measured; without it nothing bounds the distance from above.
        critic: About distributions: "linear", "network", "funnels", or a constrained module of your own to train; None
            lets the first three compete.
        seconds: End after about so many, ≥ 0; None: no limit. The interval holds whenever it ends.
        progress: Show a progress bar on a terminal.
        seed: Of the order of bids, or of parts and training.
        start: About samples: the `Interval` that was found for these very ones before, to go on from. None of it is
            believed, and only the auction makes use of it.
        heard: About samples: called now and then with what is proven so far. Its critic is the same object each time.

    It cannot tell from samples alone how far apart distributions in high dimension are: there intervals are wide.

    Raises:
        TightlipError: for samples that are NaN, empty, of two spaces or no numbers; weights that are negative or of
            another length; options out of range or without meaning; samples of more pairs than can be looked at.

    >>> found = wasserstein1(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(1, 2))
    >>> f"{found.lower:.6f}", f"{found.upper:.6f}", found.reason
    ('2.500000', '2.500000', 'the gap is within the tolerance')
    >>> found = wasserstein1(torch.tensor([0, 1, 5]), torch.tensor([0, 5]), weights=(None, torch.tensor([2, 1])))
    >>> round(found.estimate, 6)  # a third of 1, and none of 5
    0.333333
    """
    p, progress, seed = as_norm(p), flag("progress", progress), integer("seed", seed, least=0, most=LARGEST_SEED)
    level, tolerance = confidence_level("level", level), number("tolerance", tolerance, least=0)
    weights = _pair(weights)
    if heard is not None:
        taking("heard", heard, "interval")
    if chosen("question", about, {"samples": True, "distributions": False}):
        if not isinstance(start, Interval | None):
            raise TightlipError("start must be what wasserstein1 has returned about the same two samples, or None")
        _refuse(about, level=level != LEVEL, diameter=diameter is not None, critic=critic is not None)
        return _between_samples(x, y, weights, seconds, _Asked(p, tolerance, progress, seed, start, heard))
    given = any(one is not None for one in weights)
    _refuse(about, weights=given, tolerance=tolerance != TOLERANCE, start=start is not None, heard=heard is not None)
    return population(x, y, p, level, diameter, critic, seconds, progress, seed)


def _pair(weights: Any) -> tuple[Any, Any]:
    if not isinstance(weights, tuple | list) or len(weights) != 2:
        raise TightlipError("weights must be a pair, those of x and those of y, either None for equal ones")
    return weights[0], weights[1]


def _refuse(about: str, **given: bool) -> None:
    for name in (name for name, is_given in given.items() if is_given):
        other = "distributions" if about == "samples" else "samples"
        raise TightlipError(f"{name} has no meaning about {about}: leave it out, or ask about={other!r}")


def _between_samples(x: Any, y: Any, weights: tuple[Any, Any], seconds: float | None, asked: _Asked) -> Interval:
    clock = started(seconds)
    _refuse_too_many(x, y, clock.limit)
    x, y = both_points(x, y)
    a, b = (as_weights(given, name, len(z)) for given, name, z in zip(weights, "xy", (x, y), strict=True))
    left = None if seconds is None else max(0.0, clock.left())
    flat = x.shape[1] in PLANES and fits(len(x) * len(y), clock.left())
    if x.shape == y.shape and _alike(a) and _alike(b) and not flat:
        return _paired(x, y, left, asked)
    return _coupled(x, y, a, b, left, asked)


def _paired(x: Tensor, y: Tensor, seconds: float | None, asked: _Asked) -> Interval:
    critic, method = Funnels(y, y.new_zeros(len(y)), asked.p), AUCTION if x.shape[1] > 1 else LINE

    def told(found: Matching) -> Interval:
        pairs = torch.stack((torch.arange(len(x)), found.assignment), 1)
        return _interval(found, critic, found.prices, method, REASONS[found.reason], pairs)

    start, heard = _matching(asked.start, len(x)), asked.heard
    listener = None if heard is None else lambda found: heard(told(found))
    return told(assign(x, y, asked.p, asked.tolerance, seconds, asked.progress, asked.seed, start, listener))


def _matching(start: Any, n: int) -> Matching | None:
    """What an interval that the auction has found says of prices and pairs."""
    if start is None:
        return None
    if not isinstance(start, Interval) or not isinstance(start.critic, Funnels) or start.pairs is None:
        raise TightlipError("start must be what wasserstein1 has returned about the same two samples, or None")
    rows, columns = start.pairs.unbind(1)
    prices = start.critic.offsets.detach().double()
    if len(prices) != n or not torch.equal(rows.sort().values, torch.arange(n)):
        raise TightlipError(f"start is of other samples, or of another method than the {AUCTION}: leave it out")
    return Matching(start.lower, start.upper, columns[rows.argsort()], prices, start.reason, start.seconds)


def _coupled(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, seconds: float | None, asked: _Asked
) -> Interval:
    critic, heard = Funnels(y, y.new_zeros(len(y)), asked.p), asked.heard

    def told(found: Coupling) -> Interval:
        return _interval(found, critic, found.potential, found.method, found.reason, found.pairs)

    listener = None if heard is None else lambda found: heard(told(found))
    return told(couple(x, y, a, b, asked.p, asked.tolerance, seconds, asked.progress, listener))


def _interval(
    found: Matching | Coupling,
    critic: Funnels,
    prices: Float64[Tensor, " m"],
    method: str,
    reason: str,
    pairs: Int64[Tensor, "k 2"] | None,
) -> Interval:
    """What was found, its critic with these prices."""
    critic.offsets.copy_(prices)
    middle = found.lower + (found.upper - found.lower) / 2
    ends = (found.lower, found.upper, middle)
    return Interval(*ends, critic, None, method, reason, found.seconds, found.history, pairs)


def _alike(weights: Tensor | None) -> bool:
    """Whether all points count the same."""
    return weights is None or bool((weights == weights[0]).all())


def _refuse_too_many(x: Any, y: Any, limit: float) -> None:
    """Before anything is read."""
    (n, of_x), (m, of_y) = (_size(points) for points in (x, y))
    if of_x + of_y > NUMBERS:
        raise TightlipError(
            f"samples of {of_x + of_y:.2g} numbers are not searched, since they are held in memory: give at most "
            f"{NUMBERS:.2g}, such as a part of the points, or ask about='distributions', which reads them in pieces"
        )
    if n * m > PAIRS and of_x > n and limit == math.inf:
        raise TightlipError(
            f"all {n * m:.2g} pairs of points would take about {n * m / PAIRS_AN_HOUR:.2g} hours on one core: give "
            "seconds, or fewer points, or ask about='distributions'"
        )


def _size(points: Any) -> tuple[int, int]:
    """How many points, and how many numbers."""
    shape = () if getattr(points, "is_nested", False) else tuple(getattr(points, "shape", ()))
    return (shape[0], math.prod(shape)) if shape else (0, 0)
