"""The row of a benchmark."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .fields import Fields
from .record import Row


@dataclass(frozen=True)
class BenchRow(Row):
    """What was timed or counted, with which options; ``results`` are the benchmark's own, by name."""

    benchmark: str
    config: dict[str, Any]
    seed: int
    results: dict[str, Any]
    seconds: float | None = None

    @classmethod
    def from_json(cls, fields: Fields) -> "BenchRow":
        """The row in a file; one of format 1 had its results beside the rest."""
        values = dict(fields.values)
        if values.get("format") == 1:
            rest = {"format", *(field.name for field in dataclasses.fields(cls))}
            results = {name: value for name, value in values.items() if name not in rest}
            values |= {"benchmark": fields.file.stem, "results": results}
        return super().from_json(Fields(fields.file, fields.where, values))
