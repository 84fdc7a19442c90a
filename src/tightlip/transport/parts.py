"""Three disjoint parts of each sample, drawn by a seed: one trains critics, one chooses, and one is looked at once.

What is proven rests on the last part alone, so it gets half of the points, and all that the others have no use for.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from .rows import Rows

MOST = 2**24
"""Numbers that the training part holds at most, of each sample."""

Pair = tuple[Tensor, Tensor]
"""Something of the first sample, and of the second."""


@dataclass(frozen=True)
class Part:
    """Sorted row numbers of both samples."""

    first: Int64[np.ndarray, " k"]
    second: Int64[np.ndarray, " l"]

    def points(self, samples: tuple[Rows, Rows]) -> Pair:
        """The points themselves, in float64."""
        return samples[0].take(self.first), samples[1].take(self.second)


def three_parts(samples: tuple[Rows, Rows], seed: int) -> tuple[Part, Part, Part]:
    """To train, to choose and to confirm: two fifths, a tenth and half of each sample, none of them empty."""
    cuts = [_cut(rows, np.random.default_rng([seed, which])) for which, rows in enumerate(samples)]
    train, choose, confirm = (Part(*both) for both in zip(*cuts, strict=True))
    return train, choose, confirm


def _cut(rows: Rows, draws: np.random.Generator) -> list[np.ndarray]:
    n, most = len(rows), max(1, MOST // rows.size)
    order = draws.permutation(n)
    confirm, choose = n // 2, min(max(1, n // 10), max(1, most // 4))
    train = min(n - confirm - choose, most)
    return [np.sort(part) for part in (order[:train], order[train : train + choose], order[train + choose :])]
