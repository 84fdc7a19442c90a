"""Tables with a column to be predicted: ``.csv`` and ``.parquet`` with names of columns, as rows of features.

    alcohol,ash,hue,cultivar         features are all columns but one, numbers each
    14.23,2.43,1.04,barolo           the label column holds names or whole numbers, one for each class

Nothing is guessed: a missing cell is refused by its row and column, a column of text by its name. Rows are counted
from 0, the line with the names left out.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from tightlip.choices import hint
from tightlip.data.arrays import LARGEST_INTEGER, Array, content_sha256
from tightlip.data.cells import MISSING, bad_cell, no_numbers
from tightlip.data.dataset import Dataset
from tightlip.data.labels import classes_of, refuse_rare
from tightlip.data.standardization import spreads
from tightlip.data.tables import (
    exactly,
    first_line,
    in_columns,
    is_number,
    is_plain,
    number,
    open_parquet,
    refuse_nameless,
    refuse_rounded,
    rows_of,
)
from tightlip.errors import TightlipError

SUFFIXES = (".csv", ".tsv", ".parquet")
"""What the names of tables end with."""

COARSE = 0.01
"""What rounding to float32 may take from a number, in standard deviations of its column."""

SMALLEST = 2.0**-126
"""Numbers below this lose digits in float32, however small their column is."""

_PIECE = 4096
"""Rows that are converted together."""

_TRUTH = {"true": "1", "false": "0"}


@dataclass(frozen=True, eq=False)
class Rows:
    """A table in two: features as ``values`` (rows, features) in float64, and the cells of the ``label`` column."""

    path: Path
    values: Array
    names: tuple[str, ...]
    label: str
    cells: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of what the table holds, whatever its format."""
        columns = dict(zip(self.names, self.values.T, strict=True))
        return content_sha256(columns | {self.label: np.array(self.cells)})

    def features(self, scales: Mapping[str, float] | None = None) -> Float32[Tensor, "rows features"]:
        """The features as networks take them.

        Args:
            scales: The standard deviations that a network divides them by; without, those of these rows.

        Raises:
            TightlipError: for numbers that float32 cannot hold, or not finely enough to tell rows apart.
        """
        with np.errstate(over="ignore"):
            narrow = self.values.astype(np.float32)
        if names := self._where(~np.isfinite(narrow).all(0)):
            raise TightlipError(f"{self.path} has numbers beyond float32 in {names}: give the column in another unit")
        lost = np.maximum(np.abs(self.values).max(0) * 2.0**-24, SMALLEST)
        if scales is None:
            spread = spreads(torch.from_numpy(self.values)).numpy()
        else:
            spread = np.array([scales[name] for name in self.names])
        if names := self._where((spread > 0) & (lost > COARSE * spread)):
            if scales is not None:
                raise TightlipError(
                    f"{self.path} has numbers in {names} so large that float32 loses what matters to this network, "
                    "which was trained on others: compare them with those of the training"
                )
            raise TightlipError(
                f"{self.path} has numbers in {names} that differ by less than float32 can tell well: subtract the "
                "same number from all of the column, or give it in another unit"
            )
        return torch.from_numpy(narrow)

    def _where(self, found: Any) -> str:
        """The columns where this is true, in words; nothing where it is nowhere."""
        names = [name for name, true in zip(self.names, found, strict=True) if true]
        return in_columns(names) if names else ""


def load_table(path: Path, label: str | None = None, whole: bool = False, drop: Sequence[str] | None = None) -> Dataset:
    """A user's table as a data set of rows, with the names of its features and classes.

    Args:
        path: Of a ``.csv``, ``.tsv`` or ``.parquet`` file whose columns have names.
        label: The column of the classes; None is the last.
        whole: Look at it whole, and never split it: a class may have fewer than three rows.
        drop: Columns that are left out, whatever they hold.

    Raises:
        TightlipError: for a file that cannot be read, no such column, missing cells, features that are no numbers, a
            label column of other numbers than whole ones, or fewer than three rows of a class.
    """
    rows = read_rows(path, label, drop=drop)
    labels, names = classes_of(path, rows.label, rows.cells)
    if not whole:
        refuse_rare(path, rows.label, names, np.bincount(labels))
    return Dataset(
        name=path.stem,
        source=path.name,
        sha256=rows.sha256,
        images=rows.features(),
        labels=torch.from_numpy(labels),
        test_images=None,
        test_labels=None,
        classes=len(names),
        licence="the user's own",
        class_names=names,
        whole=whole,
        feature_names=rows.names,
        label=rows.label,
    )


def read_rows(path: Path, label: str | None = None, labeled: bool = True, drop: Sequence[str] | None = None) -> Rows:
    """The table in a file, its label column apart; None is the last. Without ``labeled`` all are features.

    Columns of ``drop`` are left out, whatever they hold.

    Raises:
        TightlipError: as `load_table`, whatever the label column holds.
    """
    reader = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
    return _checked(reader(path, label, labeled, dropped(drop)))


def dropped(drop: Sequence[str] | None) -> tuple[str, ...]:
    """The names of columns that are left out.

    Raises:
        TightlipError: for one name in the place of a list.
    """
    if isinstance(drop, str):
        raise TightlipError(f"drop must be a list of columns, such as ['id'], got {drop!r}")
    return tuple(drop or ())


def column_names(path: Path) -> tuple[str, ...]:
    """What the columns of a table are called."""
    names = open_parquet(path).column_names if path.suffix.lower() == ".parquet" else first_line(path)[0]
    return tuple(name.strip() for name in names)


def is_blank(path: Path, name: str) -> bool:
    """Whether every cell of a column is missing."""
    if path.suffix.lower() == ".parquet":
        table = open_parquet(path)
        return bool(table[name].null_count == table.num_rows)
    first, separator = first_line(path)
    place = [cell.strip() for cell in first].index(name)
    rows = itertools.islice(rows_of(path, separator), 1, None)
    return all(len(line) <= place or line[place].strip().lower() in MISSING for line in rows)


def _read_csv(path: Path, label: str | None, labeled: bool, drop: Sequence[str]) -> Rows:
    first, separator = first_line(path)
    names = [cell.strip() for cell in first]
    if numbers := [cell for cell in names if number(cell) is not None]:
        raise TightlipError(
            f"the first line of {path} holds the number {numbers[0]}, and it must name the columns: add such a line"
        )
    chosen = _chosen(path, names, label, labeled, drop)
    parts, cells, start = [], [], 0
    rows = itertools.islice(rows_of(path, separator), 1, None)
    while piece := list(itertools.islice(rows, _PIECE)):
        for row, line in enumerate(piece, start):
            if len(line) != len(names):
                raise TightlipError(f"{path} has {len(line)} cells in row {row} and {len(names)} columns: mend the row")
        if labeled:
            place = names.index(chosen.label)
            cells += [line[place].strip() for line in piece]
        if len(chosen.places) < len(names):
            piece = [[line[place] for place in chosen.places] for line in piece]
        parts.append(_numbers(path, chosen.features, piece, start))
        start += len(piece)
    if not parts:
        raise TightlipError(f"{path} holds no rows but its first line: give some below it")
    return Rows(path, np.concatenate(parts), chosen.features, chosen.label, tuple(cells))


def _numbers(path: Path, names: Sequence[str], rows: list[list[str]], start: int) -> Array:
    """Cells as float64 (rows, features); ``start`` is the number of the first row."""
    try:
        if not all(map(is_plain, itertools.chain.from_iterable(rows))):
            raise ValueError
        found = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    except ValueError:
        rows = [[_TRUTH.get(cell.strip().lower(), cell) for cell in row] for row in rows]
        found = np.array([[_or_nan(cell) for cell in row] for row in rows]).reshape(len(rows), len(names))
    if not np.isfinite(found).all():
        raise no_numbers(path, names, rows, np.isfinite(found), start)
    if (np.abs(found) >= LARGEST_INTEGER).any():
        refuse_rounded(path, names, rows, start)
    return found


def _or_nan(cell: str) -> float:
    found = number(cell)
    return math.nan if found is None else found


def _read_parquet(path: Path, label: str | None, labeled: bool, drop: Sequence[str]) -> Rows:
    table = open_parquet(path)
    chosen = _chosen(path, list(table.column_names), label, labeled, drop)
    features = chosen.features
    if not table.num_rows:
        raise TightlipError(f"{path} holds no rows: give some")
    for name in (*features, chosen.label) if labeled else features:
        if table[name].null_count:
            raise bad_cell(path, table[name].is_null().to_pylist().index(True), name, "")
    kinds = {name: table.schema.field(name).type for name in features}
    if text := [name for name, kind in kinds.items() if not is_number(kind) and str(kind) != "bool"]:
        texts = [[str(value) for value in row] for row in zip(*(table[name].to_pylist() for name in text), strict=True)]
        raise no_numbers(path, text, texts, np.zeros((len(texts), len(text)), dtype=bool), 0)
    columns = [exactly(path, name, table[name].to_numpy()) for name in features]
    values = np.column_stack(columns) if columns else np.empty((table.num_rows, 0))
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise bad_cell(path, int(row), features[column], str(values[row, column]))
    cells = tuple(map(str, table[chosen.label].to_pylist())) if labeled else ()
    return Rows(path, values, features, chosen.label, cells)


@dataclass(frozen=True)
class _Chosen:
    """The columns of a table that are read: the features, their places, and the label, "" where there is none."""

    features: tuple[str, ...]
    places: tuple[int, ...]
    label: str


def _chosen(path: Path, names: Sequence[str], label: str | None, labeled: bool, drop: Sequence[str]) -> _Chosen:
    """The columns that are read; refuses those without names of their own, and names that no column has."""
    refuse_nameless(path, names)
    for option, name in (("label", label), *(("drop", name) for name in drop)):
        if name is not None and name not in names:
            raise TightlipError(
                f"{path} has no column {name!r}{hint(name, names)}: give {option}= (--{option}) one of "
                f"{', '.join(names)}"
            )
    if label in drop:
        raise TightlipError(f"the column {label} of {path} is to be predicted and to be dropped: drop= (--drop) others")
    kept = [name for name in names if name not in drop]
    if labeled and not kept:
        raise TightlipError(f"drop= (--drop) leaves no column of {path}: keep features and what is predicted from them")
    predicted = "" if not labeled else kept[-1] if label is None else label
    features = tuple(name for name in kept if not (labeled and name == predicted))
    return _Chosen(features, tuple(map(names.index, features)), predicted)


def _checked(rows: Rows) -> Rows:
    if not rows.names:
        raise TightlipError(f"{rows.path} has no column beside {rows.label}: give features to predict it from")
    for row, cell in enumerate(rows.cells):
        if cell.lower() in MISSING:
            raise bad_cell(rows.path, row, rows.label, cell)
    return rows
