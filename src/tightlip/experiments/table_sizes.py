"""How a network of a table is trained where nothing is said: small, in small steps, and often where rows are few."""

import math

HIDDEN = (64, 64)
"""Widths of the hidden layers."""

LARGE = 5000
"""Rows of a training part from which a step takes 128 of them, and not 32."""

CLASSES, NUMBERS = 100, 200
"""Most passes over the rows, to learn classes and to learn numbers; there are 20 at least."""

PER_PASS = 1000
"""So many rows for each of the most passes are about what is seen in all."""


def batch_of(rows: int) -> int:
    """Rows per step, of so many in the training part.

    >>> batch_of(128), batch_of(60_000)
    (32, 128)
    """
    return 32 if rows < LARGE else 128


def passes_over(rows: int, most: int) -> int:
    """Epochs over so many rows.

    >>> [passes_over(rows, CLASSES) for rows in (128, 2000, 60_000)]
    [100, 50, 20]
    """
    return min(most, max(20, math.ceil(PER_PASS * most / rows)))
