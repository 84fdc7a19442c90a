"""Grids of small images: one line for each thing that is shown, one column for each example.

A row of an experiment holds

    {"columns": ["0", "1"], "scale": "column",
     "rows": [{"heading": "image", "signed": false, "images": [pixels, pixels]}, …]}

with a heading for each column, and pixels (height, width) or (channels, height, width). Images that are not signed are
in [0, 1]; signed ones, such as gradients, are red above zero, blue below and white at it. Each is scaled to its own
largest number ("image"), or all of a column to one ("column"). What no scale can show, 1e100 and above, is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tightlip.records import Fields
from tightlip.report.cells import Group
from tightlip.report.pictures import Pixels, diverging, extent, picture

SCALES = {"image": "Each has a scale of its own.", "column": "Those of one column have one scale."}
"""How signed images are scaled, and what the page says of it."""

HUGE = 1e100


@dataclass(frozen=True)
class Line:
    """One line of a grid: what it shows, and an image for each column."""

    heading: str
    signed: bool
    images: tuple[Pixels, ...]


@dataclass(frozen=True)
class Grid:
    """Images of one cell of an experiment."""

    columns: tuple[str, ...]
    scale: str
    lines: tuple[Line, ...]

    @property
    def signed(self) -> bool:
        """Whether any line is."""
        return any(line.signed for line in self.lines)

    def largest(self, column: int) -> float | None:
        """What all signed images of a column are scaled to; None where each has a scale of its own."""
        sizes = [extent(line.images[column]) for line in self.lines if line.signed]
        return max(sizes, default=None) if self.scale == "column" else None


@dataclass(frozen=True)
class Mosaic:
    """A grid as the page shows it: lines of a heading and pairs (data URI, what is seen)."""

    title: str
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    note: str


def read_images(drawings: Fields, name: str) -> Grid:
    """The object that a row calls its images.

    Raises:
        TightlipError: unless each line has one image for each column, and the scale is known.
    """
    fields = drawings.inside(name)
    columns, scale = fields.texts("columns"), fields.text("scale")
    if not columns:
        fields.fail("columns", "a heading for each column")
    if scale not in SCALES:
        fields.fail("scale", f"one of {', '.join(SCALES)}")
    lines = tuple(_line(row, len(columns)) for row in fields.rows("rows"))
    return Grid(columns, scale, lines) if lines else fields.fail("rows", "one row of images at least")


def _line(row: Fields, count: int) -> Line:
    images = row.raw("images")
    if not isinstance(images, list) or len(images) != count:
        row.fail("images", f"an image for each column, {count} in all,")
    inside = Fields(row.file, f"{row.where}images", {f"[{place}]": image for place, image in enumerate(images)})
    pixels = tuple(inside.pixels(key) for key in inside.values)
    if any(np.abs(np.nan_to_num(image)).max() >= HUGE for image in pixels):
        row.fail("images", "numbers below 1e100")
    return Line(row.text("heading"), row.flag("signed") is True, pixels)


def mosaics(groups: Sequence[Group], words: Mapping[str, str], name: str) -> list[Mosaic]:
    """The images of cells' first seeds."""
    found = [(group.title, group.rows[0].drawn.get("images")) for group in groups]
    return [_mosaic(title, grid) for title, grid in found if grid is not None]


def _mosaic(title: str, grid: Grid) -> Mosaic:
    scales = [grid.largest(place) for place in range(len(grid.columns))]
    lines = [
        (line.heading, [_tile(line, *pair) for pair in zip(line.images, grid.columns, scales, strict=True)])
        for line in grid.lines
    ]
    signs = f"Red is above zero, blue below, white at it. {SCALES[grid.scale]}" if grid.signed else ""
    return Mosaic(title, grid.columns, lines, signs)


def _tile(line: Line, image: Pixels, column: str, largest: float | None) -> tuple[str, str]:
    return diverging(image, largest) if line.signed else picture(image), f"{line.heading}, {column}"
