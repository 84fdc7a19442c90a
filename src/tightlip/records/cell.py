"""The row of one cell of an experiment."""

from dataclasses import dataclass, field
from typing import Any

from .fields import Fields
from .record import Row

DRAWINGS = ("curve", "surface")
"""What rows of format 1 kept among their metrics."""


@dataclass(frozen=True)
class CellRow(Row):
    """One cell: its options, which of them are axes, its seed, numbers, what is drawn of it, provenance.

    ``place`` is its place in the grid and ``preset`` the name of the preset, where they are known; ``drawings`` are by
    their kind (`report.drawings`); ``true_curves`` are the true values of columns of the curve.
    """

    command: str
    experiment: str
    axes: tuple[str, ...]
    config: dict[str, Any]
    seed: int
    metrics: dict[str, Any]
    seconds: dict[str, float]
    preset: str = ""
    place: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    drawings: dict[str, Any] = field(default_factory=dict)
    true_curves: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, fields: Fields) -> "CellRow":
        """The row in a file; one of format 1 keeps its drawings among its metrics."""
        values = fields.values
        if values.get("format") == 1:
            metrics = fields.mapping("metrics")
            drawings = {kind: metrics.pop(kind) for kind in DRAWINGS if kind in metrics}
            values = {**values, "metrics": metrics, "drawings": drawings}
        row = super().from_json(Fields(fields.file, fields.where, values))
        numbers = Fields(fields.file, "metrics.", row.metrics)
        for name, value in row.metrics.items():
            if not isinstance(value, bool):
                numbers.number(name)
        return row
