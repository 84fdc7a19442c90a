"""Whether minima and maxima of some entries put them in order: the 0–1 principle.

Minima and maxima commute with every monotone function. So what is made of k entries by them sorts all numbers if and
only if it sorts the 2ᵏ vectors of zeros and ones (Knuth, The Art of Computer Programming 3, §5.3.4). Each value is
kept as its table over these vectors, an integer of 2ᵏ bits: a minimum is "and", a maximum "or".

>>> a, b = entry("x", 1, 2, 0), entry("x", 1, 2, 1)
>>> is_sorted([a._replace(table=a.table & b.table), a._replace(table=a.table | b.table)], 1)
True
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

MOST_SORTED = 12
"""Entries whose tables are kept: 4,096 bits each."""


class Order(NamedTuple):
    """A value that minima and maxima make of the entries of an axis, and what it is for each vector of 0 and 1."""

    source: str
    dim: int
    size: int
    table: int


def entry(source: str, dim: int, size: int, index: int) -> Order:
    """One of the entries themselves."""
    return Order(source, dim, size, _table(size, lambda vector: vector >> index & 1))


def is_sorted(orders: Sequence[Order], dim: int) -> bool:
    """Whether values are all entries of an axis ``dim``, ascending."""
    first = orders[0]
    if first.dim != dim or len(orders) != first.size or any(order[:-1] != first[:-1] for order in orders):
        return False
    return [order.table for order in orders] == [
        _at_least(first.size, first.size - place) for place in range(len(orders))
    ]


def _at_least(size: int, ones: int) -> int:
    return _table(size, lambda vector: vector.bit_count() >= ones)


def _table(size: int, holds: Callable[[int], bool | int]) -> int:
    return sum(1 << vector for vector in range(2**size) if holds(vector))
