"""The curves of an experiment: a panel for each y column, a line for each value of the first axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from tightlip.report.drawing import RUN_COLORS, Plot, plot, run_color
from tightlip.report.rows import Group
from tightlip.report.wording import spoken

DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}
"""The names of CSS, and matplotlib's."""


@dataclass(frozen=True)
class Line:
    """How one value of the first axis is drawn."""

    label: str
    place: int

    @property
    def color(self) -> int:
        """The number of its color."""
        return self.place % RUN_COLORS + 1

    @property
    def dash(self) -> str:
        """What tells it from the lines of the same color."""
        return list(DASHES)[self.place // RUN_COLORS % len(DASHES)]


@dataclass(frozen=True)
class Panel:
    """A figure, its heading, and the key to its lines, which stands below so that it covers none of them."""

    title: str
    plot: Plot
    lines: Sequence[Line]


def panels(groups: Sequence[Group], words: Mapping[str, str], name: str) -> list[Panel]:
    """A panel for each y column and each value of the axes after the first; ``name`` begins the ids of all."""
    by_rest: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        if any(group.rows[0].curve.values()):
            by_rest.setdefault(group.key[1:], []).append(group)
    values = dict.fromkeys(group.key[0][1] for group in groups if group.key)
    lines = {value: Line(value, place) for place, value in enumerate(values)}
    made: list[Panel] = []
    for rest, members in by_rest.items():
        x, *ys = members[0].rows[0].curve
        for column in ys:
            having = [group for group in members if {x, column} <= group.rows[0].curve.keys()]  # versions may differ
            drawn = [lines[group.key[0][1]] if group.key else Line("the only cell", 0) for group in having]
            y_words = words.get(column, spoken(column))
            title = ", ".join([y_words, *(f"{spoken(axis)} {value}" for axis, value in rest)])
            curves = [(group.rows[0].curve[x], group.rows[0].curve[column]) for group in having]
            x_words = words.get(x, spoken(x))
            made.append(Panel(title, _plot(f"{name}-curve-{len(made)}", title, curves, drawn, x_words, y_words), drawn))
    return made


def _plot(
    name: str, title: str, curves: Sequence[tuple[list[float], list[float]]], lines: Sequence[Line], x: str, y: str
) -> Plot:
    def draw(axes: Axes) -> None:
        for (across, up), line in zip(curves, lines, strict=True):
            axes.plot(across, up, color=run_color(line.place), linestyle=DASHES[line.dash])
        _scale(axes, curves)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    ends = [up[-1] for _, up in curves if math.isfinite(up[-1])]
    reach = f"; the lines end between {min(ends):.3g} and {max(ends):.3g}" if ends else ""
    return plot(name, f"{title}, against {x}, {len(curves)} lines{reach}.", draw)


def _scale(axes: Axes, curves: Sequence[tuple[list[float], list[float]]]) -> None:
    """Logarithmic where values span decades, backwards where x falls, whole numbers where x holds nothing else."""
    values = [value for _, up in curves for value in up if value > 0]
    if values and max(values) > 1e3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=max(min(values) / 2, 1e-17), top=min(max(values) * 2, 1e3))
    if any(a > b for across, _ in curves for a, b in pairwise(across)):
        axes.invert_xaxis()
    if all(value.is_integer() for across, _ in curves for value in across):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
