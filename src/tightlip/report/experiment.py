"""The page of an experiment: one table over its cells, and their curves."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from tightlip.atomic import replacing
from tightlip.report.drawing import RUN_COLORS, Plot, plot, run_color
from tightlip.report.page import environment
from tightlip.report.rows import Group, columns, read_groups

DASHES = ("-", "--", ":")


def render_experiment(folder: Path) -> str:
    """One self-contained HTML page of the rows in ``folder``; the same rows give the same text.

    Raises:
        TightlipError: see `read_groups`.
    """
    groups = read_groups(folder)
    axes, metrics = columns(groups)
    first = groups[0].rows[0]
    rows = [row for group in groups for row in group.rows]
    return (
        environment()
        .get_template("experiment.html")
        .render(
            title=first.experiment,
            summary=first.summary,
            axes=axes,
            metrics=metrics,
            groups=groups,
            plots=_plots(groups),
            count=len(rows),
            seconds=sum(row.seconds for row in rows),
            commits=sorted({row.commit for row in rows}),
            machines=sorted({f"{row.machine} ({row.device})" for row in rows}),
            dirty=any(row.dirty for row in rows),
        )
    )


def write_experiment(folder: Path, page: Path) -> None:
    """Render the page and put it at ``page``, whole or not at all."""
    text = render_experiment(folder)
    with replacing(Path(page)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _plots(groups: Sequence[Group]) -> list[tuple[str, Plot]]:
    """A panel for each y column and each value of the axes after the first; a line for each value of the first."""
    panels: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        if group.rows[0].curve:
            panels.setdefault(group.key[1:], []).append(group)
    lines = list(dict.fromkeys(group.key[0][1] for group in groups if group.key))
    made = []
    for place, (rest, members) in enumerate(panels.items()):
        x, *ys = members[0].rows[0].curve
        for column in ys:
            title = ", ".join([_spoken(column), *(f"{_spoken(axis)} {value}" for axis, value in rest)])
            made.append((title, _panel(f"curve-{place}-{column}".replace("_", "-"), title, members, x, column, lines)))
    return made


def _panel(name: str, title: str, members: Sequence[Group], x: str, y: str, lines: Sequence[str]) -> Plot:
    def draw(axes: Axes) -> None:
        values = [value for group in members for value in group.rows[0].curve[y] if value > 0]
        for group in members:
            place = lines.index(group.key[0][1]) if group.key else 0
            curve = group.rows[0].curve
            (line,) = axes.plot(curve[x], curve[y], color=run_color(place), linestyle=DASHES[place // RUN_COLORS % 3])
            line.set_label(group.key[0][1] if group.key else y)
        if values and max(values) > 1e3 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylim(bottom=max(min(values) / 2, 1e-17), top=min(max(values) * 2, 1e3))
        if any(a > b for group in members for a, b in pairwise(group.rows[0].curve[x])):
            axes.invert_xaxis()
        axes.set_xlabel(_spoken(x))
        axes.set_ylabel(_spoken(y))
        axes.legend(loc="best", fontsize=7)

    ends = [group.rows[0].curve[y][-1] for group in members if math.isfinite(group.rows[0].curve[y][-1])]
    reach = f"; the lines end between {min(ends):.3g} and {max(ends):.3g}" if ends else ""
    return plot(name, f"{title}, against {_spoken(x)}, {len(members)} lines{reach}.", draw)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
