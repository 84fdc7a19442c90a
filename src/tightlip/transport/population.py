"""W1 of the distributions behind two samples: a confidence interval, from one critic and one coupling.

Three disjoint parts of each sample train critics, choose one, and confirm it; the last is looked at once. With f the
chosen critic, clipped to [a, b], and K its audited constant, W1 ≥ (E f(X) − E f(Y))/K, and the mean difference of the
last part bounds that from below (`confidence`). Clipping leaves f as Lipschitz as it was, and gives values a known
length. From above there is a coupling of the samples, where a diameter is declared (`ceiling`).
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..arguments import confidence_level, flag, integer, number
from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..errors import TightlipError
from ..norms import as_norm
from ..tensors import as_usual
from .ceiling import refuse_small_diameter, upper_bound
from .confirming import Confirmed, confirmed
from .contest import Contest, compete
from .critic import refuse_free_weights
from .interval import Interval
from .parts import three_parts
from .rows import Rows, pair_of_rows
from .views import like, rescaled

FAMILIES = {"linear": ("linear",), "network": ("network",), "funnels": ("funnels", "funnels, turned over")}
"""What a name of a critic lets compete."""

ALL = tuple(name for names in FAMILIES.values() for name in names)

LARGEST_SEED = 2**63 - 1
"""Of torch's generators."""

LEAST = 3
"""Points of each sample: one to train, one to choose and one to confirm."""

ABOVE = 0.3
"""Share of the time that is for the upper end, where there is one."""


@as_usual()
def population(
    x: Any,
    y: Any,
    p: float | str = 2,
    level: float = 0.95,
    diameter: float | None = None,
    critic: nn.Module | str | None = None,
    seconds: float | None = None,
    progress: bool = False,
    seed: int = 0,
) -> Interval:
    """A confidence interval of the Wasserstein-1 distance of two distributions, from independent draws of each.

    With probability ``level`` the distance is inside, whatever the distributions, as long as points are independent and
    a declared diameter is one. Each end is wrong with half the rest, or the lower one with all of it where the upper
    one is infinite. Without ``seconds`` the interval depends on the samples, options and ``seed`` alone, so processes
    with equal samples find the same one. The global generator is left as it was. Memory-mapped arrays are read by
    index, and never held whole.

    Args:
        x: The first sample, a tensor or array (n, …), at least three points; several axes are one point. Critics are
            trained on the device of a tensor.
        y: The second, (m, …).
        p: The norm of the distance: 1, 2 or ∞.
        level: Of confidence, in (0, 1).
        diameter: Bound on the distance of any two points that can occur, in the p-norm; None leaves the upper end
            infinite. It is declared, never measured.
        critic: None lets a linear critic, a network and funnels compete; "linear", "network" or "funnels" one of them.
            A constrained module of your own takes points (n, …) as they are, and is the only one; a copy of it is
            trained if it has anything to train.
        seconds: Train and couple for about so long; None for a fixed number of steps. Reading and confirming come on
            top: some 10 s for 10⁷ points of 16 numbers and a linear critic.
        progress: Whether to show training on a terminal.
        seed: Of the parts, the training and the permutations.

    Returns:
        An `Interval` whose ``estimate`` is the difference of means of the last part, within the interval, whose
        ``critic`` is in float64 and 1-Lipschitz, and whose ``p_value`` is that of the last part.

    It is no test of what a diameter is, and in high dimension, where critics are far from the best, it is wide.

    Raises:
        TightlipError: for points of different shapes, too few, NaN or infinite ones; a diameter that points exceed; a
            critic whose constant cannot be proven or that has several outputs; other options.

    >>> x = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    >>> found = population(x[:1000], x[1000:] + 1.0, diameter=2 * 2**0.5, critic="linear")
    >>> found.lower < 2**0.5 < found.upper, found.p_value
    (True, 0.001)
    """
    began = time.perf_counter()
    p, level = as_norm(p), confidence_level("level", level)
    limit = None if seconds is None else number("seconds", seconds, least=0)
    progress, seed = flag("progress", progress), integer("seed", seed, least=0, most=LARGEST_SEED)
    samples = pair_of_rows(x, y, LEAST)
    bound = None if diameter is None else number("diameter", diameter, least=0)
    critics = _critics(critic, p)
    _refuse(samples, bound, p)
    alpha = (1 - level) if bound is None else (1 - level) / 2
    upper, above = upper_bound(samples, p, bound, alpha, None if limit is None else ABOVE * limit, seed)
    history = [(time.perf_counter() - began, 0.0, upper)]
    end = None if limit is None else began + limit
    found, below = _from_below(samples, p, alpha, critics, end, progress, seed)
    took = time.perf_counter() - began
    return Interval(
        lower=found.lower,
        upper=upper,
        estimate=min(upper, max(found.lower, found.difference)),
        critic=found.critic,
        p_value=found.p_value,
        method=f"below, {below}; above, {above}",
        reason="the time was over" if end is not None and time.perf_counter() >= end else "training came to its end",
        seconds=took,
        history=[*history, (took, found.lower, upper)],
    )


def _refuse(samples: tuple[Rows, Rows], diameter: float | None, p: float) -> None:
    """Look at all points once: NaN, infinity, and distances above the diameter."""
    if diameter is None:
        for rows in samples:
            rows.range()
    else:
        refuse_small_diameter(samples, diameter, p)


def _critics(critic: Any, p: float) -> nn.Module | Sequence[str]:
    """A copy of a critic of the caller's, or the names of ours."""
    if critic is None:
        return ALL
    if isinstance(critic, str):
        return chosen("critic", critic, FAMILIES)
    if not isinstance(critic, nn.Module):
        kind = type(critic).__name__
        raise TightlipError(f"critic must be a module, one of {', '.join(FAMILIES)}, or None, got a {kind}")
    refuse_free_weights(critic)
    lipschitz(freeze(critic), p)
    return copy.deepcopy(critic)


def _from_below(
    samples: tuple[Rows, Rows],
    p: float,
    alpha: float,
    critics: nn.Module | Sequence[str],
    end: float | None,
    progress: bool,
    seed: int,
) -> tuple[Confirmed, str]:
    """What the last part says of the best critic, and its name."""
    train, choose, confirm = three_parts(samples, seed)
    points = train.points(samples)
    view = like(critics) if isinstance(critics, nn.Module) else rescaled(points, p, samples[0].device)
    counts = len(confirm.first), len(confirm.second)
    contest = Contest(view(points), view(choose.points(samples)), counts, alpha, progress)
    del points
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        if isinstance(critics, nn.Module):
            left = None if end is None else max(0.0, end - time.perf_counter())
            contest.train_and_enter("the given critic", critics, left)
        else:
            compete(contest, critics, p, end)
    assert contest.choice is not None
    found = confirmed(view.function(contest.winner), contest.choice, samples, confirm, p, alpha, seed)
    return found, f"{contest.name} on {counts[0]} and {counts[1]} points that nothing was chosen by"
