"""``distance.json``: how far two samples are apart, or the distributions behind them, and what is drawn of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from .certificate import Norm
from .fields import Fields
from .record import Integers, Record, Row, Vector, unequal


def _upper(fields: Fields, name: str) -> float:
    """`null` is ∞."""
    value = fields.number(name)
    return np.inf if np.isnan(value) else value


def _matrix(fields: Fields, name: str) -> NDArray[np.float64]:
    return fields.pixels(name)[0]


@dataclass(frozen=True)
class Sample(Record):
    """One of both: what named it, how many ``rows`` of it count, and its hash."""

    given: str
    sha256: str
    rows: int
    part: str | None = None


@dataclass(frozen=True)
class Shown(Record):
    """A point as it is shown: ``sample`` 1 or 2, its name there, the potential, and its numbers."""

    sample: int
    name: str
    value: float
    numbers: Vector


@dataclass(frozen=True)
class Move(Record):
    """A pair of the coupling: from which point to which, how far, and both points' numbers."""

    first: str
    second: str
    length: float
    start: Vector
    end: Vector

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Both points have as many numbers."""
        return unequal(self, "start", "end")


@dataclass(frozen=True)
class Counts(Record):
    """A histogram of each sample: bins between ``edges``, shares of the whole."""

    edges: Vector
    first: Vector
    second: Vector

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Both histograms have the bins that the edges make."""
        return unequal(self, "edges", "first", "second", more=-1)


@dataclass(frozen=True)
class Lengths(Record):
    """How far points move: shares of all pairs between ``edges``."""

    edges: Vector
    shares: Vector

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is a share for every bin."""
        return unequal(self, "edges", "shares", more=-1)


@dataclass(frozen=True)
class Line(Record):
    """The potential of points on a line, and both samples."""

    at: Vector
    potential: Vector
    counts: Counts

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is a value at every place."""
        return unequal(self, "at", "potential")


@dataclass(frozen=True)
class Plane(Record):
    """The potential over a grid in the plane, a row of ``z`` for each x; and some points of both samples."""

    x: Vector
    y: Vector
    z: Annotated[NDArray[np.float64], _matrix]
    first_x: Vector
    first_y: Vector
    second_x: Vector
    second_y: Vector

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """The grid has all values, and points have both coordinates."""
        yield from unequal(self, "first_x", "first_y")
        yield from unequal(self, "second_x", "second_y")
        if self.z.shape != (len(self.x), len(self.y)):
            yield "z", f"{len(self.x)} rows of {len(self.y)} numbers"


@dataclass(frozen=True)
class DistanceRow(Row):
    """lower ≤ W1 ≤ upper, what it is about, where it comes from, and what is drawn of it.

    ``shape`` is that of a point, ``columns`` name the numbers of points that are shown, and ``unit`` says what they
    are; ``apart`` are the points that the potential separates most, ``close`` those that it separates least, of
    ``looked_at`` points of each sample. ``level`` and ``p_value`` are None about samples.
    """

    command: str
    name: str
    config: dict[str, Any]
    first: Sample
    second: Sample
    shape: Integers
    unit: str
    norm: Norm
    about: str
    lower: float
    upper: Annotated[float, _upper]
    estimate: float
    method: str
    reason: str
    history: dict[str, list[float]]
    seed: int
    seconds: dict[str, float]
    finished: bool = True
    level: float | None = None
    diameter: float | None = None
    p_value: float | None = None
    columns: tuple[str, ...] = ()
    looked_at: int = 0
    line: Line | None = None
    plane: Plane | None = None
    apart: tuple[Shown, ...] = ()
    close: tuple[Shown, ...] = ()
    moves: tuple[Move, ...] = ()
    lengths: Lengths | None = None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """The history has its three columns, of one length."""
        columns = [self.history.get(name) for name in ("seconds", "lower", "upper")]
        if not all(columns) or len({len(column or ()) for column in columns}) > 1:
            yield "history", "as many numbers, at least one, in each of seconds, lower and upper"

    @property
    def gap(self) -> float:
        """(upper − lower)/upper: 1 where nothing is known from one side."""
        return (self.upper - self.lower) / self.upper if 0 < self.upper < np.inf else float(self.upper > 0)
