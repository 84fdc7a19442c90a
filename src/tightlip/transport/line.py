"""Points on a line: W1 = ∫ |F − G| dt exactly, and couplings of any points by their order along a line.

With weights a, b of sum A, B and the points of both samples sorted to z_1 ≤ z_2 ≤ …

    W1 = Σ_k |A_k/A − B_k/B|·(z_{k+1} − z_k),     A_k, B_k the weights at z_1, …, z_k.

Every float64 is an integer times a power of two, so the sum is one of integers, and nothing is rounded before its end.
An optimal f falls where A_k/A > B_k/B and rises where it is less, with slope 1. Source: Vallender 1974.
"""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from .bounds import Flow, of_pieces
from .costs import Clouds
from .samples import hashes

AT_ONCE = 2**16
"""So many integers are held at once."""


def on_the_line(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Fraction, np.ndarray]:
    """W1 of numbers x (n,) and y (m,) with weights a and b, exactly, and prices (m,) that attain it."""
    points, weights = np.concatenate((x, y)), _Integers(np.concatenate((a, b)))
    order = np.argsort(points, kind="stable")
    z, total_a, total_b = _Integers(points[order]), weights.sum(0, len(x)), weights.sum(len(x), len(points))
    slopes, lead, cost = np.empty(len(points) - 1), 0, 0
    for first in range(0, len(slopes), AT_ONCE):
        part = slice(first, min(first + AT_ONCE, len(slopes)))
        of_x, whole = order[part] < len(x), weights.of(order[part])
        changes = [total_b * w if left else -total_a * w for w, left in zip(whole, of_x.tolist(), strict=True)]
        leads, ends = list(accumulate(changes, initial=lead))[1:], z.of(np.arange(part.start, part.stop + 1))
        cost += sum(abs(lead) * (high - low) for lead, low, high in zip(leads, ends, ends[1:], strict=False))
        slopes[part], lead = [(lead < 0) - (lead > 0) for lead in leads], leads[-1]
    potential = np.empty(len(points))
    potential[order] = np.concatenate(([0.0], np.cumsum(slopes * np.diff(points[order]))))
    return Fraction(cost, total_a * total_b) * z.unit, potential[len(x) :]


def along_a_line(clouds: Clouds, a: np.ndarray, b: np.ndarray) -> Flow:
    """Masses a (n,) and b (m,) of nearly equal sums, coupled in the order of the points along one direction.

    The direction is that between the means, so a translation is found at once; n + m steps, and no promise otherwise.
    """
    direction = clouds.x.mean(0) - clouds.y.mean(0)
    if not bool(direction.any()):
        direction = clouds.x.var(0, correction=0)
    first, second = (clouds.x @ direction).argsort().numpy(), (clouds.y @ direction).argsort().numpy()
    ends_a, ends_b = np.cumsum(a[first]), np.cumsum(b[second])
    cuts = np.minimum(np.sort(np.concatenate((ends_a, ends_b))), min(ends_a[-1], ends_b[-1]))
    starts = np.concatenate(([0.0], cuts[:-1]))
    some = cuts > starts
    rows = np.searchsorted(ends_a, starts[some], side="right").clip(max=len(a) - 1)
    columns = np.searchsorted(ends_b, starts[some], side="right").clip(max=len(b) - 1)
    return of_pieces(clouds, first[rows], second[columns], (cuts - starts)[some])


def unmoved(x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray) -> Tensor | None:
    """Pairs (k, 2) of equal points of x (n, d) and y (m, d) that carry all mass, if both are one distribution.

    Weights are compared as integers, so nothing is rounded. Hashes of points may collide: then nothing is said.
    """
    first, second = hashes(x), hashes(y)
    if not np.array_equal(np.unique(first), np.unique(second)):
        return None
    rows, columns = first.argsort(kind="stable"), second.argsort(kind="stable")
    weights = _Integers(np.concatenate((a, b)))
    total_a, total_b = weights.sum(0, len(a)), weights.sum(len(a), len(a) + len(b))
    left, right = [w * total_b for w in weights.of(rows)], [w * total_a for w in weights.of(len(a) + columns)]
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if first[rows[i]] != second[columns[j]]:
            return None
        found.append((int(rows[i]), int(columns[j])))
        moved = min(left[i], right[j])
        left[i], right[j] = left[i] - moved, right[j] - moved
        i, j = i + (not left[i]), j + (not right[j])
    pairs = torch.tensor(found)
    return pairs if torch.equal(x[pairs[:, 0]], y[pairs[:, 1]]) else None


class _Integers:
    """Numbers as integers times a power of two, ``unit``; made a few at a time."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self.least = int(np.frexp(numbers)[1][numbers != 0].min(initial=0))
        self.unit = Fraction(2) ** (self.least - 53)

    def of(self, places: np.ndarray) -> list[int]:
        """Those at these places."""
        mantissas, exponents = np.frexp(self.numbers[places])
        shifts = np.maximum(exponents - self.least, 0).tolist()
        whole = (mantissas * 2.0**53).astype(np.int64).tolist()
        return [value << shift for value, shift in zip(whole, shifts, strict=True)]

    def sum(self, first: int, last: int) -> int:
        """Of those from ``first`` to before ``last``."""
        starts = range(first, last, AT_ONCE)
        return sum(sum(self.of(np.arange(start, min(start + AT_ONCE, last)))) for start in starts)
