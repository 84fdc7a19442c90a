"""The cells of an experiment as the report shows them: rows, put together over seeds."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tightlip.records import CellRow, Definition
from tightlip.report.wording import spoken

Curve = dict[str, list[float]]
"""Columns of equal length: the first is drawn along x, each other one along y."""


@dataclass(frozen=True)
class Row:
    """One cell of an experiment as it is shown: options in words, numbers (NaN where there are none), drawings."""

    record: CellRow
    definition: Definition
    config: dict[str, str]
    metrics: dict[str, float]
    drawn: dict[str, Any]

    @property
    def curve(self) -> Curve:
        """Its curve; no columns where it has none."""
        return self.drawn.get("curve", {})  # type: ignore[no-any-return]

    @property
    def commit(self) -> str:
        """The commit, or of an installed package its version."""
        version = self.record.versions.get("tightlip")
        return self.record.commit or ("unknown" if version is None else f"tightlip {version}, installed")


@dataclass(frozen=True)
class Group:
    """The rows of one cell over its seeds."""

    key: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What a person would call the cell: 'activation relu, depth 3'."""
        return ", ".join(f"{spoken(name)} {value}" for name, value in self.key) or "the only cell"

    def values(self, name: str) -> list[float]:
        """The finite values of a metric, seed by seed."""
        return [row.metrics[name] for row in self.rows if math.isfinite(row.metrics.get(name, math.nan))]

    def metric(self, name: str) -> str:
        """The mean over seeds and, of several, the range: '0.935 (0.934–0.937)'; a dash where no row has it."""
        values = self.values(name)
        if not values:
            return "–"
        shown = self.rows[0].definition.of(name).shown
        low, high = shown(min(values)), shown(max(values))
        notes = [f"{low}–{high}"] if low != high else []
        notes += [f"{len(values)} of {len(self.rows)} seeds"] if len(values) < len(self.rows) else []
        return shown(fmean(values)) + (f" ({', '.join(notes)})" if notes else "")
