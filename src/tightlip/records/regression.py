"""``metrics.json`` and ``certificate.json`` of one run of `tightlip train --task regression`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

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

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is a prediction for each target, and a target at all."""
        yield from unequal(self, "target", "prediction")
        if not len(self.target):
            yield "target", "one number at least"
