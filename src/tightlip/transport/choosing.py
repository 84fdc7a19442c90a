"""Which critic, clipped to which interval, and by which inequality: foreseen on points that confirm nothing.

A bound on a difference of means pays for the length of the interval that holds all values (`confidence`), so a few
values far out are better cut off. What is foreseen is the bound itself, for as many points as the last part has.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from .confidence import bernstein_lower, hoeffding_lower
from .parts import Pair

SHARES = (0.0, 0.001, 0.01, 0.05)
"""Of all values, how many may be cut off at each end."""


@dataclass(frozen=True, order=True)
class Choice:
    """Values are clipped to [low, high], and ``bound`` is applied; ordered by what may be hoped for."""

    hope: tuple[float, float]
    low: float = field(compare=False)
    high: float = field(compare=False)
    bound: Callable[[Any, Any, float, float], float] = field(compare=False)


def chosen_range(train: Pair, choose: Pair, counts: tuple[int, int], alpha: float) -> Choice:
    """The best choice for one critic, by its values on both parts, for so many points that confirm."""
    values = torch.cat([*train, *choose]).double()
    return max(_choices(values, choose, counts, alpha))


def _choices(values: Float64[Tensor, " k"], choose: Pair, counts: tuple[int, int], alpha: float) -> Iterator[Choice]:
    ordered = values.sort().values
    for share in SHARES:
        cut = int(share * len(ordered))
        low = float(ordered[cut])
        high = max(float(ordered[-1 - cut]), math.nextafter(low, math.inf))
        if cut or share == 0:
            first, second = (part.double().clamp(low, high) for part in choose)
            gap, deviations = float(first.mean() - second.mean()), values.clamp(low, high).var(correction=0)
            spreads = _hoeffding(high - low, counts, alpha), _bernstein(high - low, float(deviations), counts, alpha)
            for spread, bound in zip(spreads, (hoeffding_lower, bernstein_lower), strict=True):
                yield Choice((gap - spread if gap > spread else 0.0, gap), low, high, bound)


def _hoeffding(reach: float, counts: tuple[int, int], alpha: float) -> float:
    return reach * math.sqrt(sum(1 / n for n in counts) * math.log(1 / alpha) / 2)


def _bernstein(reach: float, variance: float, counts: tuple[int, int], alpha: float) -> float:
    log = math.log(4 / alpha)
    return sum(
        math.sqrt(2 * variance * log / n) + 7 * reach * log / (3 * (n - 1)) if n > 1 else math.inf for n in counts
    )
