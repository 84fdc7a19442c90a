"""Joins that are no steeper than what they join.

    x + f(x)          (x + f(x))/2                   weights that add up to 1
    3·x               x                              factors go: K has one place
    (x_1, …, x_k)     (x_1, …, x_k)/k^(1/p)          ‖(Δ, …, Δ)‖_p = k^(1/p)·‖Δ‖_p

Numbers are rounded down, so that what is proven of the result does not exceed 1.
"""

import math
from fractions import Fraction

from ...audit import Concat, Gains, Join, Sum
from ...linalg.rounding import round_down


def mean_of(join: Sum) -> Sum | None:
    """The sum with weights that add up to 1 at most, or None where they do already."""
    total = sum(abs(Fraction(weight)) for weight in join.weights)
    if total <= 1:
        return None
    return Sum(*(math.copysign(round_down(abs(Fraction(weight)) / total), weight) for weight in join.weights))


def spread(parts: int, p: float) -> float:
    """The factor under which so many values, put together, are as steep as one."""
    beside = Gains.beside([Gains({(p, p): 1.0})] * parts).table[p, p]
    return round_down(1 / Fraction(beside))


def told(join: Join, names: list[str]) -> str:
    """A join of the network before, with what it joins."""
    if isinstance(join, Concat):
        return f"cat({', '.join(names)})"
    if not isinstance(join, Sum):
        return f"{type(join).__name__}({', '.join(names)})"
    terms = [name if weight == 1 else f"{weight:g}·{name}" for weight, name in zip(join.weights, names, strict=True)]
    return " + ".join(terms).replace("+ -1·", "− ").replace("+ -", "− ")
