"""Rows of features with a number to be predicted: what a regression learns from, and its one seeded split.

64 % of the rows are for training, 16 % to choose by and 20 % to judge by, drawn from one seeded permutation. (More
than of a classifier are to choose by: the epoch is chosen, and the constant as well.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from tightlip.arguments import integer
from tightlip.choices import hint
from tightlip.data.labeled import SUFFIXES, Rows, read_rows
from tightlip.data.tables import number
from tightlip.errors import TightlipError

FEWEST = 10
"""Rows that a table has at least: of these, two are to choose by and two are to judge by."""

OTHER_TASK = "name another column by label= (--label), or predict classes without --task regression"

_TEST, _VALIDATION = 0.2, 0.16


@dataclass(frozen=True, eq=False)
class Measurements:
    """Rows and the number that belongs to each: ``inputs`` (n, features) in float32, ``targets`` (n,) in float64."""

    inputs: Float32[Tensor, "n features"]
    targets: Float64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, index: Int64[Tensor, " some"]) -> "Measurements":
        """Some of them."""
        return Measurements(self.inputs[index], self.targets[index])


@dataclass(frozen=True, eq=False)
class MeasuredTable:
    """A table as a regression takes it; ``label`` is the column of the targets, ``feature_names`` are the others."""

    name: str
    source: str
    sha256: str
    rows: Measurements
    feature_names: tuple[str, ...]
    label: str


@dataclass(frozen=True, eq=False)
class MeasuredParts:
    """Three disjoint parts: fit on ``train``, choose on ``validation``, report on ``test``."""

    train: Measurements
    validation: Measurements
    test: Measurements


def load_measured(path: str, label: str | None = None, drop: Sequence[str] | None = None) -> MeasuredTable:
    """A user's table with a column of numbers.

    Args:
        path: Of a ``.csv``, ``.tsv`` or ``.parquet`` file whose columns have names.
        label: The column to be predicted; None is the last.
        drop: Columns that are left out, whatever they hold.

    Raises:
        TightlipError: for a file that is no table or cannot be read, no such column, missing cells, features or targets
            that are no numbers, targets that are all the same, or fewer than ten rows.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        raise TightlipError(_no_table(path, file))
    rows = read_rows(file, label, drop=drop)
    if len(rows.cells) < FEWEST:
        raise TightlipError(f"{path} has {len(rows.cells)} rows: a regression takes {FEWEST} at least")
    targets = targets_of(rows)
    if float(targets.min()) == float(targets.max()):
        raise TightlipError(
            f"the column {rows.label} of {path} is {float(targets[0]):g} in every row: there is nothing to learn"
        )
    measured = Measurements(rows.features(), targets)
    return MeasuredTable(file.stem, file.name, rows.sha256, measured, rows.names, rows.label)


def targets_of(rows: Rows, advice: str = OTHER_TASK) -> Float64[Tensor, " n"]:
    """The label column as numbers.

    Raises:
        TightlipError: for a cell that is none, by its row, with the advice.
    """
    found = [number(cell) for cell in rows.cells]
    wrong = next((row for row, value in enumerate(found) if value is None or not np.isfinite(value)), None)
    if wrong is not None:
        raise TightlipError(
            f"{rows.path} holds {rows.cells[wrong]!r:.40} in row {wrong} of the column {rows.label}, which is to be "
            f"predicted as a number: {advice}"
        )
    return torch.tensor(found, dtype=torch.float64)


def _no_table(path: str, file: Path) -> str:
    kinds = ", ".join(SUFFIXES)
    if not path:
        return f"a regression learns from a table: give its path by --data, one of {kinds}"
    if file.suffix.lower() in SUFFIXES or not file.exists():
        beside = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        return f"{path} does not exist{hint(file.name, beside)}: give the path of a table ({kinds})"
    return f"{path} is not a table: a regression learns from one of {kinds}"


def split_measured(rows: Measurements, seed: int) -> MeasuredParts:
    """Train, validation and test parts; the same seed gives the same ones, and torch's generator is left alone."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(integer("seed", seed, least=0)))
    test, held_out = round(_TEST * len(rows)), round(_VALIDATION * len(rows))
    parts = order.split([test, held_out, len(rows) - test - held_out])
    return MeasuredParts(rows.at(parts[2]), rows.at(parts[1]), rows.at(parts[0]))
