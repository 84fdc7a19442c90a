"""The curves of an experiment: a panel for each y column, a line for each value of the first axis.

All panels of one column have the same axes, so that they can be compared by eye.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from tightlip.records import Fields
from tightlip.report.cells import Curve, Group
from tightlip.report.drawing import COLORS, RUN_COLORS, Plot, plot, run_color
from tightlip.report.wording import spoken

DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}
"""The names of CSS, and matplotlib's."""

DECADES = 1e3
"""How far apart values are for their axis to be logarithmic."""

TAIL = 0.07
"""Values below a hundredth of the largest, as a share of all, that are no more than the tails of curves."""

FITS = 36
"""Most letters of a title beside an axis; the heading says all of them."""

Points = tuple[Sequence[float], Sequence[float]]
"""x and y of a line."""


@dataclass(frozen=True)
class Line:
    """How one value of the first axis is drawn."""

    label: str
    place: int

    @property
    def variable(self) -> str:
        """Its color in CSS."""
        return f"--run-{self.place % RUN_COLORS + 1}"

    @property
    def color(self) -> str:
        """Its color in a figure."""
        return run_color(self.place)

    @property
    def dash(self) -> str:
        """What tells it from the lines of the same color."""
        return list(DASHES)[self.place // RUN_COLORS % len(DASHES)]


@dataclass(frozen=True)
class Truth(Line):
    """How the true values are drawn, where they are known."""

    label: str = "the truth"
    place: int = 0
    variable = "--ink"
    color = COLORS["ink"]
    dash = "dashed"


@dataclass(frozen=True)
class Panel:
    """A figure, its heading, and the key to its lines, which stands below so that it covers none of them."""

    title: str
    plot: Plot
    lines: Sequence[Line]


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn in one panel: the lines, and the names of the two columns that they show."""

    title: str
    x: str
    column: str
    curves: Sequence[tuple[Line, Points]]


@dataclass(frozen=True)
class Frame:
    """The two axes: where they begin and end, and how they are divided."""

    left: float
    right: float
    bottom: float
    top: float
    logarithmic: bool
    whole: bool

    def apply(self, axes: Axes) -> None:
        """Give a figure these axes."""
        if self.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if self.whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(self.left, self.right)
        axes.set_ylim(self.bottom, self.top)


def read_curve(fields: Fields, name: str) -> Curve:
    """The columns that a row calls its curve."""
    return fields.columns(name)


def panels(groups: Sequence[Group], words: Mapping[str, str], name: str) -> list[Panel]:
    """A panel for each y column and each value of the axes after the first; ``name`` begins the ids of all."""
    drawings = _drawings(groups, words)
    frames = {
        key: frame(points for drawing in drawings if (drawing.x, drawing.column) == key for _, points in drawing.curves)
        for key in {(drawing.x, drawing.column) for drawing in drawings}
    }
    return [
        Panel(
            drawing.title,
            _plot(
                f"{name}-curve-{place}",
                drawing,
                frames[drawing.x, drawing.column],
                *(words.get(column, spoken(column)) for column in (drawing.x, drawing.column)),
            ),
            [line for line, _ in drawing.curves],
        )
        for place, drawing in enumerate(drawings)
    ]


def frame(curves: Iterable[Points]) -> Frame:
    """Axes for all these lines: y is logarithmic where values are positive and span decades, x may fall.

    Where only their tails are small, as of shares that fall from 1 to 0, y is not logarithmic.
    """
    curves = list(curves)
    across = [value for x, _ in curves for value in x if math.isfinite(value)]
    up = [value for _, y in curves for value in y if math.isfinite(value)]
    left, right = _ends(across)
    if any(a > b for x, _ in curves for a, b in pairwise(x)):
        left, right = right, left
    whole = all(value.is_integer() for value in across)
    positive = [value for value in up if value > 0]
    most = max(positive, default=0.0)
    if positive and min(up) >= 0 and most > DECADES * min(positive) and not _tails_alone(curves, positive):
        return Frame(left, right, max(min(positive) / 2, 1e-17), min(most * 2, 1e3), True, whole)
    return Frame(left, right, *_ends(up), False, whole)


def _tails_alone(curves: Sequence[Points], positive: Sequence[float]) -> bool:
    """Whether few values are below a hundredth of the largest, and no curve is so as a whole."""
    small = max(positive) / 100
    whole = any(0 < max(filter(math.isfinite, y), default=0.0) < small for _, y in curves)
    return not whole and sum(value < small for value in positive) <= TAIL * len(positive)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """A little beyond the least and the largest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _drawings(groups: Sequence[Group], words: Mapping[str, str]) -> list[Drawing]:
    by_rest: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        if any(group.rows[0].curve.values()):
            by_rest.setdefault(group.key[1:], []).append(group)
    values = dict.fromkeys(group.key[0][1] for group in groups if group.key)
    lines = {value: Line(value, place) for place, value in enumerate(values)}
    made: list[Drawing] = []
    for rest, members in by_rest.items():
        x, *columns = members[0].rows[0].curve
        for column in columns:
            having = [group for group in members if {x, column} <= group.rows[0].curve.keys()]  # versions may differ
            drawn = [lines[group.key[0][1]] if group.key else Line("the only cell", 0) for group in having]
            points = [(group.rows[0].curve[x], group.rows[0].curve[column]) for group in having]
            title = ", ".join([words.get(column, spoken(column)), *(f"{spoken(axis)} {value}" for axis, value in rest)])
            curves = [*zip(drawn, points, strict=True), *_truth(having, x, column)]
            made.append(Drawing(title, x, column, curves))
    return made


def _truth(groups: Sequence[Group], x: str, column: str) -> list[tuple[Line, Points]]:
    """The true values, point by point or a constant, where the rows know them."""
    for group in groups:
        row = group.rows[0]
        if column in row.record.true_curves:
            return [(Truth(), (row.curve[x], row.record.true_curves[column]))]
        truth = row.definition.of(column).truth
        if truth is not None:
            ends = [min(row.curve[x]), max(row.curve[x])]
            return [(Truth(), (ends, [truth] * 2))]
    return []


def _plot(name: str, drawing: Drawing, frame: Frame, x_words: str, y_words: str) -> Plot:
    def draw(axes: Axes) -> None:
        for line, (across, up) in drawing.curves:
            seen = [max(value, frame.bottom) for value in up] if frame.logarithmic else up  # 0 is at the bottom
            width = 1.0 if isinstance(line, Truth) else None
            axes.plot(across, seen, color=line.color, linestyle=DASHES[line.dash], linewidth=width)
        frame.apply(axes)
        axes.set_xlabel(x_words)
        axes.set_ylabel(y_words if len(y_words) <= FITS else "")

    learned = [up for line, (_, up) in drawing.curves if not isinstance(line, Truth)]
    ends = [up[-1] for up in learned if math.isfinite(up[-1])]
    reach = f"; the lines end between {min(ends):.3g} and {max(ends):.3g}" if ends else ""
    return plot(name, f"{drawing.title}, against {x_words}, {len(learned)} lines{reach}.", draw)
