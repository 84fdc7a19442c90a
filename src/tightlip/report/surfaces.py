"""Surfaces of an experiment: read and checked, put into one box, and drawn as they stand at first.

The page's script (surface.js) draws the same box, and turns it. With x, y and z from the middle of the box,

    across = x cos(turn) − y sin(turn)            the picture's horizontal
    away   = x sin(turn) + y cos(turn)
    up     = z cos(tilt) + away sin(tilt)         the picture's vertical
    depth  = away cos(tilt) − z sin(tilt)         what is deeper is drawn first
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from tightlip.decimals import round_nearest
from tightlip.records import Fields
from tightlip.report.cells import Group
from tightlip.report.drawing import COLORS, LEVELS, Plot, plot

Array = NDArray[np.float64]

TURN, TILT = -0.5, 0.6
"""How a surface stands at first, in radians."""

HEIGHT = 0.42
"""Half the height of the box; the longer half of its floor is 1."""

PATCHES = 800
"""At most so many make a still picture."""

HUGE = 1e100

GAP = 0.14
"""Between the floor and the numbers beside it."""

FRAME = (
    ((-1, -1, -1), (1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, -1, -1)),
    ((-1, -1, -1), (-1, -1, 1), (-1, 1, 1), (1, 1, 1), (1, 1, -1)),
    ((-1, 1, -1), (-1, 1, 1)),
)
"""The floor and the edges behind the surface as it stands at first, in units of half the box."""


@dataclass(frozen=True)
class Surface:
    """z over a grid: one row for each x, one column for each y."""

    x: Array
    y: Array
    z: Array


@dataclass(frozen=True)
class Box:
    """The box around surfaces that are to be compared: its corners, and half its sizes as drawn."""

    low: Array
    high: Array

    @property
    def half(self) -> Array:
        """The floor keeps its shape unless it is very slender; all heights are drawn alike."""
        floor = self.high[:2] - self.low[:2]
        return np.array([*np.maximum(floor / floor.max(), 0.3), HEIGHT])

    @property
    def ends(self) -> list[list[str]]:
        """Where the axes begin and end, in words."""
        return [[round_nearest(low, 3), round_nearest(high, 3)] for low, high in zip(self.low, self.high, strict=True)]

    def placed(self, surface: Surface) -> Surface:
        """The surface in the units of the drawing, from the middle of the box."""
        x, y, z = (self._axis(place, values) for place, values in enumerate((surface.x, surface.y, surface.z)))
        return Surface(x, y, z)

    def _axis(self, place: int, values: Array) -> Array:
        size = self.high[place] - self.low[place]
        share = (values - self.low[place]) / size if size > 0 else np.full_like(values, 0.5)
        return np.asarray(self.half[place] * (2 * share - 1), dtype=np.float64)


@dataclass(frozen=True)
class Relief:
    """A surface as the page shows it: heading, still picture, and what the script needs to turn it."""

    title: str
    plot: Plot
    data: str


def read_surface(drawings: Fields, name: str) -> Surface:
    """The object that a row calls its surface.

    Raises:
        TightlipError: if x or y does not rise, a number is not finite, or sizes do not agree.
    """
    fields = drawings.inside(name)
    x, y = (_rising(fields, axis) for axis in ("x", "y"))
    rows = fields.raw("z")
    if not isinstance(rows, list) or len(rows) != len(x):
        fields.fail("z", f"a list for each x, {len(x)} in all,")
    inside = Fields(fields.file, f"{fields.where}z", {f"[{place}]": row for place, row in enumerate(rows)})
    z = [inside.numbers(key) for key in inside.values]
    if any(len(row) != len(y) or not _finite(row) for row in z):
        fields.fail("z", f"lists of {len(y)} finite numbers, one for each y,")
    return Surface(x, y, np.array(z))


def reliefs(groups: Sequence[Group], words: Mapping[str, str], name: str) -> list[Relief]:
    """The surfaces of cells' first seeds in one box; ``name`` begins the ids of all."""
    found = [(group.title, group.rows[0].drawn.get("surface")) for group in groups]
    surfaces = [(title, surface) for title, surface in found if surface is not None]
    if not surfaces:
        return []
    box = _box([surface for _, surface in surfaces])
    return [
        Relief(title, _still(f"{name}-surface-{place}", title, surface, box), _data(surface, box))
        for place, (title, surface) in enumerate(surfaces)
    ]


def relief(title: str, surface: Surface, name: str) -> Relief:
    """One surface in a box of its own; ``name`` begins its id."""
    box = _box([surface])
    return Relief(title, _still(f"{name}-surface", title, surface, box), _data(surface, box))


def _rising(fields: Fields, name: str) -> Array:
    values = fields.numbers(name)
    if len(values) < 2 or not _finite(values) or any(a >= b for a, b in pairwise(values)):
        fields.fail(name, "two or more finite numbers, each larger than the one before,")
    return values


def _finite(values: Array) -> bool:
    return bool(np.isfinite(values).all() and np.abs(values).max(initial=0) < HUGE)


def _box(surfaces: Sequence[Surface]) -> Box:
    parts = [[getattr(surface, axis) for surface in surfaces] for axis in "xyz"]
    low, high = ([edge([edge(values) for values in part]) for part in parts] for edge in (np.min, np.max))
    return Box(np.array(low), np.array(high))


def _data(surface: Surface, box: Box) -> str:
    """JSON of nothing but numbers and their names."""
    placed = box.placed(surface)
    parts = {axis: np.round(getattr(placed, axis), 4).tolist() for axis in "xyz"}
    view = {"half": np.round(box.half, 4).tolist(), "ends": box.ends, "turn": TURN, "tilt": TILT}
    return json.dumps(parts | view, separators=(",", ":"))


def _still(name: str, title: str, surface: Surface, box: Box) -> Plot:
    """As the surface stands at first, of fewer patches."""
    top = np.unravel_index(surface.z.argmax(), surface.z.shape)
    low, high, x, y = (
        round_nearest(float(value), 3)
        for value in (surface.z.min(), surface.z.max(), surface.x[top[0]], surface.y[top[1]])
    )
    alt = f"Surface, {title}: z between {low} and {high}, highest at x = {x}, y = {y}."
    placed, half = _thinned(box.placed(surface)), box.half

    def draw(axes: Axes) -> None:
        _prepare(axes, half)
        _frame(axes, half, box.ends)
        axes.add_collection(_patches(placed))

    return plot(name, alt, draw, size=(4.4, 2.8))


def _thinned(surface: Surface) -> Surface:
    """Every second line, third line … so that few enough patches remain; the last lines stay."""
    step = math.ceil(math.sqrt((len(surface.x) - 1) * (len(surface.y) - 1) / PATCHES))
    rows, columns = (sorted({*range(0, len(values), step), len(values) - 1}) for values in (surface.x, surface.y))
    return Surface(surface.x[rows], surface.y[columns], surface.z[np.ix_(rows, columns)])


def project(x: Array, y: Array, z: Array) -> Array:
    """(across, up, depth) along a last axis, as the surface stands at first."""
    across = x * math.cos(TURN) - y * math.sin(TURN)
    away = x * math.sin(TURN) + y * math.cos(TURN)
    up, depth = z * math.cos(TILT) + away * math.sin(TILT), away * math.cos(TILT) - z * math.sin(TILT)
    return np.stack(np.broadcast_arrays(across, up, depth), axis=-1)


def _patches(surface: Surface) -> PolyCollection:
    """Farthest first, each in the color of its mean height."""
    points = project(surface.x[:, None], surface.y[None, :], surface.z)
    corners = np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], axis=2).reshape(-1, 4, 3)
    z = surface.z
    heights = ((z[:-1, :-1] + z[1:, :-1] + z[1:, 1:] + z[:-1, 1:]) / 4).ravel()
    levels = np.clip((heights + HEIGHT) / (2 * HEIGHT) * LEVELS, 0, LEVELS - 1).astype(int) + 1
    order = np.argsort(-corners[..., 2].mean(axis=1), kind="stable")
    colors = [COLORS[f"level-{level}"] for level in levels[order]]
    return PolyCollection(list(corners[order, :, :2]), facecolors=colors, edgecolors=COLORS["card"], linewidths=0.3)


def _prepare(axes: Axes, half: Array) -> None:
    """Nothing but the drawing, in the middle, with room for the ends of the axes."""
    axes.set_axis_off()
    axes.set_position((0, 0, 1, 1))
    axes.set_aspect("equal")
    reach = math.hypot(half[0], half[1])
    axes.set_xlim(-1.2 * reach, 1.2 * reach)
    up = reach * math.sin(TILT) + HEIGHT * math.cos(TILT)
    axes.set_ylim(-1.1 * up, 1.1 * up)


def _frame(axes: Axes, half: Array, ends: Sequence[Sequence[str]]) -> None:
    """The floor, the edges behind the surface, and where the axes begin and end."""
    for edge in FRAME:
        line = project(*(half * np.array(edge)).T)
        axes.plot(line[:, 0], line[:, 1], color=COLORS["line"], linewidth=0.8)
    a, b, c = half
    for name, (low, high), start, end, align in (
        ("x", ends[0], (-a, -b - GAP, -c), (a, -b - GAP, -c), ("center", "top")),
        ("y", ends[1], (a + GAP, -b, -c), (a + GAP, b, -c), ("center", "top")),
        ("z", ends[2], (-a - GAP, -b - GAP, -c), (-a - GAP, -b - GAP, c), ("right", "bottom")),
    ):
        places = project(*np.linspace(start, end, 3).T)
        for text, (across, up, _) in zip((low, name, high), places, strict=True):
            axes.text(across, up, text, ha=align[0], va=align[1], color=COLORS["muted"], fontsize=8)
