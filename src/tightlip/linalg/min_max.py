"""Sorting by minima and maxima alone, for formats and verifiers that know no sort.

The comparators of a network (`comparators`) that share no member stand in one stage, and a stage is

    (a, b, rest) ↦ (min(a, b), max(a, b), rest),

with a and b gathered before it: n members take about ½·log₂²n stages of five operations, whatever n.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from .comparators import LARGEST_NETWORK, sort_by_network, sorting_network

Stage = tuple[tuple[int, ...], int]
"""The places before from which members are taken, and how many of the first are compared with as many after them."""


def sort_by_min_max(members: Tensor, dim: int) -> Tensor:
    """``members`` sorted ascending along ``dim``; small groups by single comparators."""
    if members.shape[dim] <= LARGEST_NETWORK:
        return sort_by_network(members, dim, plain=False, differentiated=False)
    for order, pairs in stages(members.shape[dim]):
        members = members.index_select(dim, torch.tensor(order, device=members.device))
        low, high, rest = members.split((pairs, pairs, len(order) - 2 * pairs), dim)
        members = torch.cat((torch.minimum(low, high), torch.maximum(low, high), rest), dim)
    return members


@cache
def stages(size: int) -> tuple[Stage, ...]:
    """The stages that sort ``size`` members; the last one only puts them in order.

    >>> stages(3)
    (((0, 2, 1), 1), ((0, 2, 1), 1), ((1, 2, 0), 1), ((2, 0, 1), 0))
    """
    found, places = [], list(range(size))  # which member stands at each place
    for stage in _disjoint(sorting_network(size)):
        first, second = (list(side) for side in zip(*stage, strict=True))
        wanted = first + second + sorted(set(range(size)) - {*first, *second})
        found.append((_taken(wanted, places), len(stage)))
        places = wanted
    return (*found, (_taken(list(range(size)), places), 0))


def _taken(wanted: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    """At which place each wanted member stands."""
    where = {member: place for place, member in enumerate(places)}
    return tuple(where[member] for member in wanted)


def _disjoint(comparators: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Comparators in stages: each as early as its members are free."""
    depth: dict[int, int] = {}
    found: list[list[tuple[int, int]]] = []
    for i, j in comparators:
        level = max(depth.get(i, 0), depth.get(j, 0))
        depth[i] = depth[j] = level + 1
        found += [[]] * (level + 1 - len(found))
        found[level] = [*found[level], (i, j)]
    yield from found
