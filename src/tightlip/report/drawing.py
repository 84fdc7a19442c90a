"""matplotlib to inline SVG: colors become CSS variables, so that one figure serves light and dark.

Ids are unique on the page and the same each time, and no text of the user's ever enters a figure.
"""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tightlip.decimals import round_nearest

RUN_COLORS = 6
LEVELS = 8
"""Of a surface's height."""

VARIABLES = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--line",
    "#040404": "--proven",
    "#050505": "--attacked",
    "#060606": "--quiet",
    "#070707": "--card",
    "#110101": "--run-1",
    "#110202": "--run-2",
    "#110303": "--run-3",
    "#110404": "--run-4",
    "#110505": "--run-5",
    "#110606": "--run-6",
    **{f"#12{level:02}{level:02}": f"--level-{level}" for level in range(1, LEVELS + 1)},
}
COLORS = {variable.removeprefix("--"): color for color, variable in VARIABLES.items()}

STYLE: dict[Any, Any] = {  # keyed by matplotlib's literal names in some versions, by str in others
    "svg.fonttype": "none",
    "svg.hashsalt": "tightlip",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": COLORS["ink"],
    "axes.labelcolor": COLORS["muted"],
    "axes.edgecolor": COLORS["line"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.facecolor": COLORS["card"],
    "legend.edgecolor": "none",
    "legend.framealpha": 1.0,
    "legend.fancybox": False,
    "legend.labelcolor": COLORS["ink"],
    "lines.linewidth": 1.7,
    "lines.markersize": 4.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """A figure for the page: inline SVG, and what it shows in one sentence for those who do not see it."""

    svg: Markup
    alt: str
    axis: str = ""
    """JSON: left and right end of the horizontal axis, top and bottom in units of the SVG, then the axis' limits."""


def run_color(place: int) -> str:
    """The color of the run at this place of a comparison (they repeat after six)."""
    return COLORS[f"run-{place % RUN_COLORS + 1}"]


def plot(name: str, alt: str, draw: Callable[[Axes], None], size: tuple[float, float] = (4.4, 3.0)) -> Plot:
    """Draw one figure; `name` (letters, digits and '-') must be unique on the page, as it prefixes the SVG's ids."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=size)
        axes = figure.subplots(gridspec_kw={"left": 0.165, "right": 0.975, "bottom": 0.16, "top": 0.965})
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
        place = _place(axes, figure)
    return Plot(Markup(_inline(buffer.getvalue(), name)), alt, place)  # matplotlib's own markup: no text of users


def _place(axes: Axes, figure: Figure) -> str:
    """`Plot.axis`; an SVG has 72 units to the inch, and its vertical axis points down."""
    width, height = 72 * figure.get_size_inches()
    box = axes.get_position()
    ends = width * box.x0, width * box.x1, height * (1 - box.y1), height * (1 - box.y0), *axes.get_xlim()
    return json.dumps([float(round_nearest(end, 6)) for end in ends])


def _inline(svg: str, name: str) -> str:
    """A stand-alone SVG document as an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    # Metadata hold the date; style would leak into the page; the rest is for stand-alone files only.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\sxmlns(:\w+)?=\"[^\"]*\"", "", svg).replace("xlink:href", "href")
    svg = re.sub(r"\b(id=\"|href=\"#|url\(#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"#(?:0[1-7]|1[12])\d{4}\b", lambda match: _variable(match.group()), svg)
    box = re.search(r"viewBox=\"[^\"]*\"", svg)
    opening = f'<svg {box.group() if box else ""} aria-hidden="true" focusable="false">'
    return opening + svg[svg.index(">") + 1 :].strip()


def _variable(color: str) -> str:
    return f"var({VARIABLES[color]})" if color in VARIABLES else color
