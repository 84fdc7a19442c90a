"""Tables of numbers: ``.csv`` by numpy, ``.parquet`` by pyarrow where that is installed. Text is refused by column.

Rows are counted from 0, as they are in Python; a first line with names does not count. `labeled` reads tables with a
column of classes.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tightlip.data.arrays import LARGEST_INTEGER, Array
from tightlip.errors import TightlipError, install

SEPARATORS = ",;\t"

QUOTED = re.compile(r'"[^"]*"')
"""What may hold separators that separate nothing."""

ROW_NUMBERS = re.compile(r"__index_level_\d+__")
"""What pandas calls row numbers in ``.parquet`` files."""

WHOLE = re.compile(r"[+-]?[0-9]{1,300}")
"""Whole numbers, written out."""

_MOST = 8
"""Columns that an error names."""


@dataclass(frozen=True, eq=False)
class Table:
    """``values`` (rows, columns) in float64, and what the columns are called; no names where a file has none."""

    values: Array
    columns: tuple[str, ...]


def read_csv(path: Path) -> Table:
    """A file of numbers, separated by commas, semicolons or tabs; a first line with text in it names the columns.

    Raises:
        TightlipError: if it cannot be read, or holds text, empty cells, lines of another length, or no rows; columns
            without a name of their own, if any has one; integers that float64 has not.
    """
    first, separator = first_line(path)
    named = any(number(cell) is None for cell in first)
    names = [cell.strip() for cell in first] if named else [f"number {place}" for place in range(1, len(first) + 1)]
    if named and next(itertools.islice(lines(path), 1, None), None) is None:
        raise TightlipError(f"{path} holds no rows but its first line: give one at least")
    below = itertools.islice(lines(path), int(named), None)
    try:
        values = np.loadtxt(below, delimiter=separator, ndmin=2, comments=None, quotechar='"')
    except (ValueError, OSError) as problem:
        raise _explained(path, names, named, separator, problem) from problem
    if values.shape[1] != len(first):
        raise _uneven(path, values.shape[1], 0, len(first))
    if named:
        refuse_nameless(path, names)
    if (np.abs(values) >= LARGEST_INTEGER).any():
        refuse_rounded(path, names, itertools.islice(rows_of(path, separator), int(named), None), 0)
    return Table(values, tuple(names) if named else ())


def read_parquet(path: Path) -> Table:
    """All columns of a file, which must be numbers.

    Raises:
        TightlipError: without pyarrow, if it cannot be read, or for columns of anything else, or with empty cells.
    """
    table = open_parquet(path)
    columns = tuple(table.column_names)
    refuse_nameless(path, columns)
    kinds = dict(zip(columns, table.schema.types, strict=True))
    _refuse_text(path, [name for name, kind in kinds.items() if not is_number(kind)])
    if empty := [name for name in columns if table[name].null_count]:
        raise TightlipError(f"{path} has empty cells in {in_columns(empty)}: fill them or drop their rows")
    if not columns or not table.num_rows:
        raise TightlipError(f"{path} holds no rows: give one at least")
    return Table(np.column_stack([exactly(path, name, table[name].to_numpy()) for name in columns]), columns)


def open_parquet(path: Path) -> Any:
    """The table in a file, as pyarrow has it.

    Raises:
        TightlipError: without pyarrow, or if the file cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as problem:
        raise TightlipError(
            f"{path} is read by pyarrow, which is not installed: {install('tables')}, or save it as .csv"
        ) from problem
    try:
        return read_table(path)
    except (ArrowException, OSError) as problem:
        raise TightlipError(f"{path} cannot be read ({_line(problem)}): save it again as .parquet or .csv") from problem


def is_number(kind: Any) -> bool:
    """Whether this is one of pyarrow's types of numbers."""
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def exactly(path: Path, name: str, values: Array) -> Array:
    """A column in float64; refuses integers that it has not."""
    if values.dtype.kind in "iu" and len(values) and max(-int(values.min()), int(values.max())) > LARGEST_INTEGER:
        raise TightlipError(f"{path} has integers beyond 2⁵³ in the column {name}, which float64 has not: leave it out")
    return values.astype(np.float64)


def first_line(path: Path) -> tuple[list[str], str]:
    """Its cells, and what separates them."""
    for line in lines(path):
        separator = max(SEPARATORS, key=QUOTED.sub("", line).count)
        return next(rows_of(path, separator)), separator
    raise TightlipError(f"{path} is empty: give rows of numbers, separated by commas")


def lines(path: Path) -> Iterator[str]:
    """All lines that are not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (line for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise TightlipError(f"{path} cannot be read ({_line(problem)}): save it as text in UTF-8") from problem


def rows_of(path: Path, separator: str) -> Iterator[list[str]]:
    """The cells of all lines that are not blank.

    Raises:
        TightlipError: if it cannot be read, as where a quote is never closed.
    """
    try:
        yield from csv.reader(lines(path), delimiter=separator)
    except csv.Error as problem:
        raise TightlipError(f"{path} cannot be read ({problem}): look for a quote that is never closed") from problem


def refuse_nameless(path: Path, names: Sequence[str]) -> None:
    """Refuse columns without a name of their own, and those that pandas writes row numbers to.

    Raises:
        TightlipError: with the first of them.
    """
    for place, name in enumerate(names, 1):
        if not name or ROW_NUMBERS.fullmatch(name):
            called = f"is called {name}" if name else "has no name"
            raise TightlipError(
                f"column number {place} of {path} {called}: name it, or leave it out (pandas writes row numbers so, "
                "unless told index=False)"
            )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TightlipError(f"{path} has several columns called {twice[0]}: give each a name of its own")


def refuse_rounded(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]], start: int) -> None:
    """Refuse whole numbers that float64 has not, such as identifiers; ``start`` is the number of the first row.

    Raises:
        TightlipError: with the first of them.
    """
    for row, cells in enumerate(rows, start):
        for name, cell in zip(names, cells, strict=False):
            if WHOLE.fullmatch(cell.strip()) and int(cell) != int(float(cell)):
                raise TightlipError(
                    f"{path} holds {cell.strip()!r:.40} in row {row} of the column {name}, which float64 has not: "
                    "leave the column out"
                )


def _uneven(path: Path, cells: int, row: int, columns: int) -> TightlipError:
    return TightlipError(f"{path} has {cells} cells in row {row} and {columns} columns: mend the row")


def _explained(path: Path, names: Sequence[str], named: bool, separator: str, problem: Exception) -> TightlipError:
    """Why a file is no table of numbers, with columns by their names; read again, line by line."""
    text: dict[str, None] = {}
    empty: dict[str, int] = {}
    for row, cells in enumerate(itertools.islice(rows_of(path, separator), int(named), None)):
        if len(cells) != len(names):
            return _uneven(path, len(cells), row, len(names))
        for name, cell in zip(names, cells, strict=True):
            if not cell.strip():
                empty.setdefault(name, row)
            elif number(cell) is None:
                text.setdefault(name)
    if text:
        return _text(path, list(text))
    if empty:
        name, row = next(iter(empty.items()))
        return TightlipError(f"{path} has no number in row {row} of the column {name}: fill it or drop the row")
    return TightlipError(f"{path} cannot be read ({_line(problem)}): save it as numbers separated by commas")


def _refuse_text(path: Path, names: Sequence[str]) -> None:
    if names:
        raise _text(path, names)


def _text(path: Path, names: Sequence[str]) -> TightlipError:
    them = "them" if len(names) > 1 else "it"
    return TightlipError(f"{path} holds something else than numbers in {in_columns(names)}: leave {them} out")


def in_columns(names: Sequence[str]) -> str:
    """'the column a', 'the columns a, b': the first of them.

    >>> in_columns(["a", "b"])
    'the columns a, b'
    """
    told = ", ".join(names[:_MOST]) + (", …" if len(names) > _MOST else "")
    return f"the column{'s' if len(names) > 1 else ''} {told}"


def number(cell: str) -> float | None:
    """What a cell holds, if it is a number, in the digits 0 to 9 and nothing between them.

    >>> number(" 1e3 "), number("1_000"), number("١٠")
    (1000.0, None, None)
    """
    try:
        return float(cell) if is_plain(cell) else None
    except ValueError:
        return None


def is_plain(cell: str) -> bool:
    """Whether a cell holds nothing that only Python reads as a number: codes such as 2020_01, digits of other scripts.

    >>> is_plain("2020_01")
    False
    """
    return cell.isascii() and "_" not in cell


def _line(problem: Exception) -> str:
    """The first line of what went wrong."""
    said = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return str(said).splitlines()[0].rstrip(".")
