"""The page of one distance or of several, from their ``distance.json`` alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightlip.atomic import replacing
from tightlip.data.channels import is_image
from tightlip.data.dataset import words_for
from tightlip.errors import TightlipError
from tightlip.records import DistanceRow, Shown
from tightlip.report import distance_figures as figures
from tightlip.report import wording
from tightlip.report.drawing import Plot
from tightlip.report.page import environment
from tightlip.report.pictures import picture
from tightlip.report.script import script
from tightlip.report.surfaces import Relief, Surface, relief

DISTANCE = "distance.json"
"""The file of a distance in its folder."""


@dataclass(frozen=True)
class Tile:
    """A point that is shown: its picture, or its numbers; the name, and the potential above the least of all."""

    name: str
    value: float
    image: str | None
    numbers: Sequence[float]


@dataclass(frozen=True)
class Group:
    """Points of one sample that have something in common."""

    title: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Pair:
    """Two points that are matched, and how far they are apart."""

    first: Tile
    second: Tile
    length: float

    @property
    def numbers(self) -> list[tuple[float, float]]:
        """Of both points, coordinate by coordinate."""
        return list(zip(self.first.numbers, self.second.numbers, strict=True))


@dataclass(frozen=True)
class Section:
    """One distance and what is drawn of it; ``id`` begins the ids of all that it shows."""

    id: str
    row: DistanceRow
    plots: dict[str, Plot]
    relief: Relief | None
    groups: Sequence[Group]
    pairs: Sequence[Pair]

    @property
    def sure(self) -> bool:
        """Whether it is about the samples themselves."""
        return self.row.about == "samples"

    @property
    def bounded(self) -> bool:
        """Whether anything bounds it from above."""
        return math.isfinite(self.row.upper)

    @property
    def images(self) -> bool:
        """Whether points are shown as images."""
        return is_image(self.row.shape.tolist())

    @property
    def called(self) -> str:
        """What points are called: images, rows or examples; numbers on a line."""
        return "numbers" if self.row.shape.tolist() == [1] else words_for(self.row.shape.tolist())[0]

    @property
    def size(self) -> int:
        """How many coordinates a point has."""
        return math.prod(self.row.shape.tolist())

    def counted(self, count: int) -> str:
        """So many of them: '500 images', '1 row'."""
        return f"{wording.count(count)} {self.called if count != 1 else self.called.removesuffix('s')}"

    @property
    def confidence(self) -> str:
        """The level in percent."""
        return f"{100 * (self.row.level or 0):.6g}\N{NO-BREAK SPACE}%"

    @property
    def same_shown(self) -> bool:
        """Whether the points of a group that are shown are all that were looked at."""
        return self.row.looked_at >= max(self.row.first.rows, self.row.second.rows)

    @property
    def seconds(self) -> float:
        """How long the search took."""
        return self.row.seconds.get("search", math.nan)


def render_distances(folders: Sequence[Path]) -> str:
    """One self-contained HTML page; the same JSON gives the same text.

    Raises:
        TightlipError: no folder was given, or the JSON of one is absent or broken.
    """
    if not folders:
        raise TightlipError("a report needs at least one folder: name what 'tightlip distance' wrote")
    sections = [
        section(DistanceRow.read(Path(folder) / DISTANCE), f"distance-{place}")
        for place, folder in enumerate(folders, 1)
    ]
    turning = any(one.relief is not None for one in sections)
    page = environment().get_template("distances.html")
    return page.render(sections=sections, script=script("surface.js") if turning else None)


def write_distances(folders: Sequence[Path], path: Path) -> None:
    """Render the page and put it at ``path``, whole or not at all."""
    text = render_distances(folders)
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def section(row: DistanceRow, name: str) -> Section:
    """What is drawn of one distance."""
    plots = {"interval": figures.interval(row, f"{name}-interval")}
    if figures.is_narrow(row):
        plots["close"] = figures.close_up(row, f"{name}-close")
    plots["history"] = figures.history(row, f"{name}-history")
    if row.line is not None:
        plots |= {"potential": figures.potential(row.line, f"{name}-potential")}
        plots |= {"samples": figures.samples(row.line, f"{name}-samples")}
    if row.plane is not None:
        plots["plane"] = figures.plane(row.plane, row.moves, f"{name}-plane")
    if row.lengths is not None:
        plots["lengths"] = figures.lengths(row.lengths, f"{name}-lengths", wording.norm_name(row.norm))
    turned = None if row.plane is None else Surface(row.plane.x, row.plane.y, row.plane.z)
    return Section(
        id=name,
        row=row,
        plots=plots,
        relief=None if turned is None else relief("The potential as a surface", turned, name),
        groups=_groups(row),
        pairs=_pairs(row),
    )


def _groups(row: DistanceRow) -> list[Group]:
    shown = [*row.apart, *row.close]
    least = min((point.value for point in shown), default=0.0)
    samples = {1: row.first.given, 2: row.second.given}
    titles = {
        (1, True): f"Least like {samples[2]}, of {samples[1]}",
        (2, True): f"Least like {samples[1]}, of {samples[2]}",
        (1, False): f"Most like {samples[2]}, of {samples[1]}",
        (2, False): f"Most like {samples[1]}, of {samples[2]}",
    }
    scale = _scale(row)
    return [
        Group(title, [_tile(point, row, scale, least) for point in points])
        for (sample, apart), title in titles.items()
        if (points := [point for point in (row.apart if apart else row.close) if point.sample == sample])
    ]


def _tile(point: Shown, row: DistanceRow, scale: tuple[float, float], least: float) -> Tile:
    return Tile(point.name, point.value - least, _image(point.numbers, row, scale), point.numbers.tolist())


def _pairs(row: DistanceRow) -> list[Pair]:
    scale = _scale(row)

    def tile(name: str, numbers: NDArray[np.float64]) -> Tile:
        return Tile(name, math.nan, _image(numbers, row, scale), numbers.tolist())

    return [Pair(tile(move.first, move.start), tile(move.second, move.end), move.length) for move in row.moves]


def _scale(row: DistanceRow) -> tuple[float, float]:
    """What is black and what is white: 0 and 1 where all numbers are between them, the least and the largest if not."""
    numbers = [point.numbers for point in (*row.apart, *row.close)] + [n for m in row.moves for n in (m.start, m.end)]
    low, high = min((n.min() for n in numbers), default=0.0), max((n.max() for n in numbers), default=1.0)
    return (0.0, 1.0) if (low >= 0 and high <= 1) or low == high else (float(low), float(high))


def _image(numbers: NDArray[np.float64], row: DistanceRow, scale: tuple[float, float]) -> str | None:
    shape = row.shape.tolist()
    if not is_image(shape) or len(numbers) != math.prod(shape):
        return None
    return picture((numbers.reshape(shape) - scale[0]) / (scale[1] - scale[0]))
