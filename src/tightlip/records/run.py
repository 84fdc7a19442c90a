"""``metrics.json``: one run of `tightlip train`."""

from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import TightlipError
from .fields import Fields
from .record import Integers, Record, Row


def _by_eps(fields: Fields, name: str) -> dict[str, float]:
    """Shares by radius."""
    table = fields.table(name)
    for eps in table:
        try:
            float(eps)
        except ValueError:
            raise TightlipError(
                f"{fields.file}: the field {fields.where + name!r} has the key {eps!r}, but each key must be an eps "
                "such as '0.3'; make the run again"
            ) from None
    return table


def counts(fields: Fields, name: str) -> dict[str, int]:
    """Whole numbers by name."""
    inside = fields.inside(name)
    return {part: inside.integer(part) for part in inside.values}


@dataclass(frozen=True)
class Epoch(Record):
    """One row of the training history; accuracies in [0, 1], time in seconds."""

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    validation_accuracy: float
    validation_score: float
    seconds: float
    validation_loss: float | None = None


@dataclass(frozen=True)
class Data(Record):
    """What a run was trained on; ``split`` has the sizes of the parts, ``shape`` is that of one input.

    Of a table ``feature_names`` are its columns, and ``label`` is the one that is predicted.
    """

    name: str
    source: str
    sha256: str
    split: Annotated[dict[str, int], counts]
    classes: int
    shape: Integers
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Tested(Record):
    """Accuracies on the test part, in [0, 1]; certified and attacked ones by radius."""

    accuracy: float
    certified: Annotated[dict[str, float], _by_eps]
    attacked: Annotated[dict[str, float], _by_eps]


@dataclass(frozen=True)
class RunRow(Row):
    """Options, data, history and results of a run; ``seconds`` are by stage.

    ``cpu_seconds`` are those of the processor, where a training was not resumed; ``warnings`` are sentences.
    """

    command: str
    config: dict[str, Any]
    data: Data
    seed: int
    history: tuple[Epoch, ...]
    best_epoch: int
    test: Tested
    name: str
    seconds: dict[str, float]
    model_sha256: str | None = None
    cpu_seconds: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
