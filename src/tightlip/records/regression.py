"""``metrics.json`` and ``certificate.json`` of one run of `tightlip train --task regression`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from .certificate import Audit, Norm
from .fields import Fields
from .record import FileRecord, Record, Row, Vector, unequal
from .run import counts

TASK = "regression"
"""What both files call it; those of a classifier have no task."""


def is_regression(fields: Fields) -> bool:
    """Whether a file of a run speaks of a regression."""
    return fields.values.get("task") == TASK


@dataclass(frozen=True)
class Step(Record):
    """One row of the training history; losses are of standardized targets, time is in seconds."""

    epoch: int
    loss: float
    learning_rate: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class TableData(Record):
    """What a run was trained on: ``label`` was predicted from ``feature_names``; ``split`` has the sizes of parts."""

    name: str
    source: str
    sha256: str
    split: Annotated[dict[str, int], counts]
    label: str
    feature_names: tuple[str, ...]


@dataclass(frozen=True)
class Tried(Record):
    """A constant that was tried, in units of the target per standardized unit, and its error on validation data."""

    k: float
    validation_rmse: float


@dataclass(frozen=True)
class Errors(Record):
    """On the test part, in units of the target: root mean square and mean absolute error.

    ``rmse_of_mean`` is what the mean of the training part has for every row.
    """

    rmse: float
    mae: float
    rmse_of_mean: float


@dataclass(frozen=True)
class RegressionRow(Row):
    """Options, data, history and results of a run; ``seconds`` are by stage, ``k`` is the constant of the network."""

    task: str
    command: str
    config: dict[str, Any]
    data: TableData
    seed: int
    k: float
    tried: tuple[Tried, ...]
    history: tuple[Step, ...]
    best_epoch: int
    test: Errors
    name: str
    seconds: dict[str, float]
    model_sha256: str | None = None
    cpu_seconds: dict[str, float] | None = None


@dataclass(frozen=True)
class Slope(Record):
    """How fast the prediction can change along one feature, proven: by ``slope`` per unit of it.

    ``mean`` and ``std`` are what it is standardized by.
    """

    name: str
    mean: float
    std: float
    slope: float


@dataclass(frozen=True)
class TruthBand(Record):
    """Where the truth can be at each test row, in units of the target: from ``lower`` to ``upper``.

    That is what the training rows say of any function of the network's constant that is within ``noise`` of all their
    targets. ``refuted`` says why there is none; then there are no ends.
    """

    noise: float
    lower: Vector
    upper: Vector
    refuted: str | None = None

    def off(self, prediction: Vector) -> Vector:
        """How far off each prediction can be, at most."""
        return np.maximum(self.upper - prediction, prediction - self.lower)

    def outside(self, target: Vector) -> int:
        """How many test targets are farther from it than ``noise``: one is enough to refute the claims."""
        return int(((target > self.upper + self.noise) | (target < self.lower - self.noise)).sum())


@dataclass(frozen=True)
class SlopesFile(FileRecord):
    """What is proven of a run's model, and its predictions on the test part.

    ``bound`` is that of the network behind its standardization: units of the target per standardized unit, in the
    norm ``input_norm``.
    """

    task: str
    input_norm: Norm
    bound: Audit
    features: tuple[Slope, ...]
    target: Vector
    prediction: Vector
    model_sha256: str | None = None
    band: TruthBand | None = None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is a prediction for each target, a band at all of them or nowhere, and a target at all."""
        if self.band is not None:
            sizes = {len(self.band.lower), len(self.band.upper)}
            if sizes != {0 if self.band.refuted else len(self.target)}:
                yield "band", f"two ends for each of the {len(self.target)} targets, or none where it is refuted"
        yield from unequal(self, "target", "prediction")
        if not len(self.target):
            yield "target", "one number at least"
