"""The features of a table: how far each may move alone, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tightlip.records import Feature
from tightlip.report.runs import Run

MOST_FEATURES = 40
"""That a table shows; of more, those that may move least, in standard deviations where these are known."""


@dataclass(frozen=True)
class FeatureTable:
    """The features to show, how many there are, and whether their means and standard deviations are known."""

    rows: Sequence[Feature]
    features: int
    standardized: bool


def feature_table(run: Run) -> FeatureTable | None:
    """The features of a run's data; None of inputs without names for them."""
    rows: Sequence[Feature] = run.proof.features
    if not rows:
        return None
    count = len(rows)
    if count > MOST_FEATURES:
        kept = sorted(range(count), key=lambda place: rows[place].radius / (rows[place].std or 1.0))[:MOST_FEATURES]
        rows = [rows[place] for place in sorted(kept)]
    return FeatureTable(rows, count, run.proof.standardized)
