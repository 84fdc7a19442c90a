"""The figures of a distance: the interval, how it closed, the potential, and how far points moved."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from tightlip.decimals import round_down, round_nearest, round_up
from tightlip.records import DistanceRow, Lengths, Line, Move, Plane
from tightlip.report.drawing import COLORS, LEVELS, Plot, plot

FIRST, SECOND = COLORS["run-1"], COLORS["run-2"]
"""The colors of both samples."""

NARROW, TOLD = 0.1, 1e-7
"""An interval of such a gap is hard to see from zero, and one of such a gap is a point to the last digit shown."""

DECADES = 30.0
"""So many times the least is the longest time where times are drawn by their logarithms."""

Vector = NDArray[np.float64]


def is_narrow(row: DistanceRow) -> bool:
    """Whether a close-up shows more than the whole."""
    return math.isfinite(row.upper) and TOLD * row.upper < row.upper - row.lower < NARROW * row.upper


def interval(row: DistanceRow, name: str) -> Plot:
    """The interval from zero on; one without an upper end fades out to the right."""
    bounded = math.isfinite(row.upper)
    reach = row.upper if bounded else 2 * max(row.estimate, row.lower)
    reach = 1.15 * reach or 1.0

    def draw(axes: Axes) -> None:
        axes.barh(0, row.lower, color=COLORS["quiet"], height=0.34, alpha=0.45)
        width = (row.upper if bounded else reach) - row.lower
        least = 0.006 * reach
        axes.barh(
            0, max(width, least), left=row.lower, color=COLORS["proven"], height=0.34, alpha=1 if bounded else 0.35
        )
        if not is_narrow(row) and row.estimate < reach:
            axes.plot([row.estimate], [0], "o", color=COLORS["card"], markersize=5, markeredgecolor=COLORS["proven"])
        _ends(axes, row, bounded)
        axes.set_xlim(0, reach)
        _one_line(axes)

    return plot(name, _said(row), draw, size=(4.4, 1.7))


def close_up(row: DistanceRow, name: str) -> Plot:
    """The interval alone, from a little below it to a little above."""
    width = row.upper - row.lower

    def draw(axes: Axes) -> None:
        axes.barh(0, width, left=row.lower, color=COLORS["proven"], height=0.34)
        axes.plot([row.estimate], [0], "o", color=COLORS["card"], markersize=5)
        axes.set_xlim(row.lower - 0.4 * width, row.upper + 0.4 * width)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: round_nearest(value, 9)))
        _ends(axes, row, True, digits=8)
        _one_line(axes)

    return plot(name, f"The same interval alone. {_said(row)}", draw, size=(4.4, 1.7))


def history(row: DistanceRow, name: str) -> Plot:
    """Both ends against the time of the search."""
    seconds, lower, upper = (
        np.array(row.history[column], dtype=np.float64) for column in ("seconds", "lower", "upper")
    )
    known = np.isfinite(upper)
    positive = seconds[seconds > 0]
    spread = len(positive) > 1 and positive.max() > DECADES * positive.min()

    def draw(axes: Axes) -> None:
        if known.any():
            axes.fill_between(
                seconds,
                lower,
                np.where(known, upper, np.nan),
                step="post",
                color=COLORS["proven"],
                alpha=0.15,
                linewidth=0,
            )
            axes.step(seconds[known], upper[known], where="post", color=COLORS["attacked"], label="upper end")
        axes.step(seconds, lower, where="post", color=COLORS["proven"], label="lower end")
        for ends, color in ((lower[-1:], COLORS["proven"]), (upper[-1:], COLORS["attacked"])):
            axes.plot(seconds[-1:], ends, "o", color=color, clip_on=False)
        if spread:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: round_nearest(value, 2)))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("seconds")
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")

    end = (
        "nothing bounds it from above"
        if math.isinf(row.upper)
        else f"the upper end comes down to {round_up(row.upper, 6)}"
    )
    return plot(name, f"Against seconds the lower end rises to {round_down(row.lower, 6)}, and {end}.", draw)


def potential(line: Line, name: str) -> Plot:
    """The potential along the line."""

    def draw(axes: Axes) -> None:
        axes.plot(line.at, line.potential, color=COLORS["ink"])
        axes.set_xlim(line.at[0], line.at[-1])
        axes.set_ylabel("potential")

    low, high = (round_nearest(float(value), 3) for value in (line.at[0], line.at[-1]))
    return plot(name, f"The potential between {low} and {high}; its slope is nowhere above 1.", draw)


def samples(line: Line, name: str) -> Plot:
    """Histograms of both samples."""

    def draw(axes: Axes) -> None:
        for shares, color, label in ((line.counts.first, FIRST, "first"), (line.counts.second, SECOND, "second")):
            axes.stairs(shares, line.counts.edges, color=color, fill=True, alpha=0.25)
            axes.stairs(shares, line.counts.edges, color=color, linewidth=1.2, label=f"{label} sample")
        axes.set_xlim(line.at[0], line.at[-1])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_ylabel("share")
        axes.legend(loc="best")

    return plot(name, "Histograms of both samples, over the same numbers as the potential.", draw)


def plane(plane: Plane, moves: Sequence[Move], name: str) -> Plot:
    """Levels of the potential, points of both samples, and the pairs that moved farthest."""
    colors = [COLORS[f"level-{level}"] for level in range(1, LEVELS + 1)]

    def draw(axes: Axes) -> None:
        levels = np.linspace(plane.z.min(), plane.z.max() or 1.0, LEVELS + 1)
        if plane.z.max() > plane.z.min():
            axes.contourf(plane.x, plane.y, plane.z.T, levels=levels, colors=colors, alpha=0.45)
        for move in moves:
            axes.plot(*zip(move.start, move.end, strict=True), color=COLORS["ink"], linewidth=0.6, alpha=0.6)
        for x, y, color, label in (
            (plane.first_x, plane.first_y, FIRST, "first"),
            (plane.second_x, plane.second_y, SECOND, "second"),
        ):
            axes.plot(x, y, "o", color=color, markersize=2.4, markeredgewidth=0, label=f"{label} sample")
        axes.set_xlim(plane.x[0], plane.x[-1])
        axes.set_ylim(plane.y[0], plane.y[-1])
        axes.grid(False)
        axes.legend(loc="best")

    return plot(
        name,
        f"Levels of the potential, {len(plane.first_x)} and {len(plane.second_x)} points of both samples.",
        draw,
        size=(4.4, 3.6),
    )


def lengths(found: Lengths, name: str, norm: str) -> Plot:
    """How far the points of the coupling move."""

    def draw(axes: Axes) -> None:
        axes.stairs(found.shares, found.edges, color=COLORS["proven"], fill=True)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlabel(f"distance of a pair ({norm})")
        axes.set_ylabel("share of pairs")

    top = round_nearest(float(found.edges[-1]), 3)
    return plot(name, f"Histogram of how far points move; the longest way is {top}.", draw)


def _said(row: DistanceRow) -> str:
    high = "without an upper end" if math.isinf(row.upper) else f"to {round_up(row.upper, 6)}"
    return f"The interval from {round_down(row.lower, 6)} {high}."


def _ends(axes: Axes, row: DistanceRow, bounded: bool, digits: int = 5) -> None:
    """Its numbers, above and below the bar so that they never meet."""
    axes.annotate(round_down(row.lower, digits), (row.lower, 0.24), ha="center", va="bottom", color=COLORS["proven"])
    if bounded:
        axes.annotate(round_up(row.upper, digits), (row.upper, -0.26), ha="center", va="top", color=COLORS["attacked"])


def _one_line(axes: Axes) -> None:
    axes.set_ylim(-0.75, 0.75)
    axes.set_yticks([])
    axes.grid(False)
