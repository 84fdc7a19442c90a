"""What can be drawn of an experiment's cells, by kind: how a row's entry is read, and what the page shows of all cells.

A kind is added by an entry in `DRAWINGS` and the template that it names, which shows ``drawn``, what ``draw`` returned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightlip.records import Fields
from tightlip.report.cells import Group
from tightlip.report.curves import panels, read_curve
from tightlip.report.images import mosaics, read_images
from tightlip.report.surfaces import read_surface, reliefs


@dataclass(frozen=True)
class Kind:
    """One kind of drawing."""

    read: Callable[[Fields, str], Any]
    """Takes the drawings of a row and the name of the kind; what `Row.drawn` holds of it, checked."""

    draw: Callable[[Sequence[Group], Mapping[str, str], str], Sequence[Any]]
    """Takes the cells, words of columns, and what begins all ids; nothing, where no cell has such a drawing."""

    template: str
    """Shows what is drawn."""

    turns: bool = False
    """Whether the page's script turns it."""


DRAWINGS = {
    "curve": Kind(read_curve, panels, "curves.html"),
    "surface": Kind(read_surface, reliefs, "surfaces.html", turns=True),
    "images": Kind(read_images, mosaics, "images.html"),
}
"""In the order of the page."""
