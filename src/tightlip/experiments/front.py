"""The front of two accuracies: which settings no other one beats, and rows that draw it."""

from collections.abc import Sequence
from pathlib import Path

from ..atomic import make_folder
from ..decimals import exact
from ..errors import TightlipError
from ..provenance import provenance
from ..records import CellRow, Definition, Metric
from ..records.metric import FILE
from .tuning import named

NAME = "front"
"""Of the rows, and of their folder."""

Point = tuple[float, float]
"""Clean and certified accuracy of a setting."""

_DEFINITION = Definition(
    NAME,
    "The front of clean against certified accuracy, on the validation part.",
    "Each setting is a point. The front is what can be certified with at least so much clean accuracy.",
    {"eps": "Radius that is certified, in units of the inputs."},
    {
        "settings": Metric("How many were trained."),
        "on_front": Metric("How many of them no other one beats: better in one accuracy and no worse in the other."),
    },
    {
        "accuracy": "clean accuracy",
        "certified": "certified accuracy of each setting",
        "front": "the front: certified accuracy with so much clean accuracy",
    },
)


def on_front(points: Sequence[Point]) -> list[bool]:
    """Whether no other point is better in one accuracy and no worse in the other; equal points do not beat each other.

    Args:
        points: Of the settings.

    Raises:
        TightlipError: if an accuracy is NaN.
    """
    if any(value != value for point in points for value in point):
        raise TightlipError("an accuracy is NaN, so there is no front: train again")
    return [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]


def points_at(rows: Sequence[CellRow], eps: float) -> list[Point]:
    """Of the rows of `tuning` at a radius."""
    return [(row.metrics["accuracy"], row.metrics[named(eps)]) for row in rows]


def write_fronts(rows: Sequence[CellRow], radii: Sequence[float], folder: Path) -> Path:
    """A row for each radius, in a folder of their own in this one, which is returned; those there are replaced."""
    place = folder / NAME
    make_folder(place)
    _DEFINITION.write(place / FILE)
    for number, eps in enumerate(radii):
        _row(rows, eps, number).write(place / f"eps={exact(eps)}_seed0.json")
    return place


def _row(rows: Sequence[CellRow], eps: float, place: int) -> CellRow:
    points = sorted(points_at(rows, eps))
    curve = {
        "accuracy": [clean for clean, _ in points],
        "certified": [certified for _, certified in points],
        "front": [max(other for least, other in points if least >= clean) for clean, _ in points],
    }
    return CellRow(
        command="tune",
        experiment=NAME,
        axes=("eps",),
        config={"eps": eps},
        seed=rows[0].seed,
        metrics={"settings": len(points), "on_front": sum(on_front(points))},
        seconds={"total": 0.0},
        place=place,
        data=dict(rows[0].data),
        drawings={"curve": curve},
        **provenance("cpu"),
    )
