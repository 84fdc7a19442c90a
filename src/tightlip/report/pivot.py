"""Our numbers above the paper's, as the paper lays its tables out: the first axis downwards, the others across."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN
from itertools import groupby
from statistics import fmean, stdev

from tightlip.decimals import DASH, decimals, fixed
from tightlip.records import Metric
from tightlip.report.cells import Group
from tightlip.report.rows import columns, definition

ROUNDING = {"nearest": ROUND_HALF_EVEN, "up": ROUND_CEILING, "down": ROUND_FLOOR}
"""The rounding of a `Metric`, as `decimal` calls it."""

Rest = tuple[str, ...]
"""The values of all axes but the first."""


@dataclass(frozen=True)
class Head:
    """One line above the columns: the name of an axis, and its values, each with the number of columns below it."""

    axis: str
    values: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Entry:
    """What stands in one place: ours with its spread, and the paper's; '' where the paper has none."""

    ours: str
    published: str


@dataclass(frozen=True)
class Pivot:
    """The table; ``metric`` is what is compared, ``seeds`` says whether there are several and so a spread."""

    metric: str
    axis: str
    heads: Sequence[Head]
    lines: Sequence[tuple[str, Sequence[Entry]]]
    seeds: bool


def pivot(groups: Sequence[Group]) -> Pivot | None:
    """The table of an experiment with two axes or more and published values; of any other, None."""
    axes, metrics = columns(groups)
    described = definition(groups)
    ours = next((name for name in metrics if described.of(name).published in metrics), None)
    theirs = described.of(ours or "").published or ""
    known = [value for group in groups for value in group.values(theirs)]
    if len(axes) < 2 or not known or ours is None:
        return None
    cells = {tuple(value for _, value in group.key): group for group in groups}
    across = _across(cells)
    entries = _Entries(ours, theirs, described.of(ours), max(map(decimals, known)))
    lines = [
        (first, [entries.of(cells.get((first, *rest))) for rest in across])
        for first in dict.fromkeys(key[0] for key in cells)
    ]
    return Pivot(ours, axes[0], _heads(axes[1:], across), lines, any(len(group.rows) > 1 for group in groups))


@dataclass(frozen=True)
class _Entries:
    """How cells are written: the paper's with its own decimals, ours with one more."""

    ours: str
    theirs: str
    metric: Metric
    places: int

    def of(self, group: Group | None) -> Entry:
        """What stands for a cell; a dash where there is no row."""
        values, theirs = (group.values(self.ours), group.values(self.theirs)) if group else ([], [])
        return Entry(self._written(values) if values else DASH, fixed(theirs[0], self.places) if theirs else "")

    def _written(self, values: Sequence[float]) -> str:
        mean = fixed(fmean(values), self.places + 1, ROUNDING[self.metric.rounding])
        return f"{mean} ± {fixed(stdev(values), self.places + 1)}" if len(values) > 1 else mean


def _across(cells: dict[tuple[str, ...], Group]) -> list[Rest]:
    """Every column that has a row, equal values beside each other."""
    rests = list(dict.fromkeys(key[1:] for key in cells))
    orders = [list(dict.fromkeys(values)) for values in zip(*rests, strict=True)]
    return sorted(rests, key=lambda rest: [order.index(value) for order, value in zip(orders, rest, strict=True)])


def _heads(axes: Sequence[str], across: Sequence[Rest]) -> list[Head]:
    return [Head(axis, _spans([rest[: place + 1] for rest in across])) for place, axis in enumerate(axes)]


def _spans(beginnings: Sequence[Rest]) -> list[tuple[str, int]]:
    """The last value of each, and of how many columns in a row it is the same."""
    return [(beginning[-1], len(list(same))) for beginning, same in groupby(beginnings)]
