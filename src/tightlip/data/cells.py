"""What is wrong with the cells of a table that should be numbers, in a sentence with their columns and rows."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tightlip.data.arrays import Array
from tightlip.data.tables import in_columns
from tightlip.errors import TightlipError

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "?")
"""How tables say that a cell holds nothing, in capitals or not."""

DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
"""Numbers as half of the world writes them, which read as text."""

DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})\b")
"""Days as tables write them, with a time after them or not."""


def no_numbers(path: Path, names: Sequence[str], rows: list[list[str]], fine: Array, start: int) -> TightlipError:
    """Why cells are no numbers: columns of dates and of text and what is missing beside them, or one bad cell."""
    texts = _text_columns(rows, fine)
    if not texts.any() or _all_decimal_commas(rows, fine):
        row, place = np.argwhere(~fine)[0]
        return bad_cell(path, int(row) + start, names[place], rows[row][place].strip())
    of_dates = texts & _date_columns(rows)
    kinds = {"dates": of_dates, "text": texts & ~of_dates}
    named = {kind: [name for name, is_one in zip(names, them, strict=True) if is_one] for kind, them in kinds.items()}
    found = [f"{kind} in {in_columns(columns)}" for kind, columns in named.items() if columns]
    advice = ["write dates as numbers, such as days since the first"] * bool(named["dates"])
    if named["text"]:
        it, each = ("it", "it") if len(named["text"]) == 1 else ("them", "each")
        advice.append(
            f"leave {it} out by drop= (--drop), replace {each} by a column of 0 and 1 for each of its values, or "
            "predict it by label= (--label)"
        )
    if len(absent := np.argwhere(~fine & ~texts)):
        row, place = absent[0]
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        found.append(f"no number in row {int(row) + start} of the column {names[place]}{more}")
        advice.append("fill such cells or drop their rows")
    return TightlipError(f"{path} holds {' and '.join(found)}, and features are numbers: {'; '.join(advice)}")


def _date_columns(rows: list[list[str]]) -> Array:
    """Columns in which most of what is there is a date."""
    dates = np.array([[bool(DATE.match(cell.strip())) for cell in row] for row in rows])
    there = np.array([[cell.strip().lower() not in MISSING for cell in row] for row in rows])
    return np.asarray(2 * dates.sum(0) > there.sum(0))


def _text_columns(rows: list[list[str]], fine: Array) -> Array:
    """Columns in which most of what is there is text."""
    there = np.array([[cell.strip().lower() not in MISSING for cell in row] for row in rows])
    return np.asarray((there & ~fine).sum(0) > (there & fine).sum(0))


def _all_decimal_commas(rows: list[list[str]], fine: Array) -> bool:
    """Whether all that is text are numbers with a comma."""
    return all(DECIMAL_COMMA.fullmatch(rows[row][place].strip()) for row, place in np.argwhere(~fine))


def bad_cell(path: Path, row: int, column: str, cell: str) -> TightlipError:
    """What is wrong with one cell: it is missing, mistyped, or not finite."""
    where = f"row {row} of the column {column}"
    if cell.lower() in MISSING:
        said = f" ({cell!r})" if cell else ""
        return TightlipError(f"{path} misses {where}{said}: fill the cell or drop the row")
    if DECIMAL_COMMA.fullmatch(cell):
        return TightlipError(
            f"{path} holds {cell!r:.40} in {where}: write numbers with a point, as {cell.replace(',', '.')}"
        )
    return TightlipError(f"{path} holds {cell!r:.40} in {where}, and numbers must be finite: mend it or drop the row")
