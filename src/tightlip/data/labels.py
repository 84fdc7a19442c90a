"""The column of a table that says which class each row is of: what classes are called, and in which order they come.

Names are taken as they are. Numbers are whole, and classes are ordered by size; 9 and 9.0 are one class if each is
written in one way, and refused where both stand in the column: 1 and 01 may be two codes.
"""

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np

from tightlip.data.arrays import Array
from tightlip.data.tables import number
from tightlip.errors import TightlipError

_AS_WRITTEN = re.compile(r"-?[0-9]+")
"""Whole numbers whose spelling is the name of their class; others are written out."""


def classes_of(path: Path, label: str, cells: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """The number of each row's class (rows,), and what classes are called: by size if they are numbers, else by name.

    Raises:
        TightlipError: for numbers that are not whole, and one number in two spellings.
    """
    spellings = sorted(set(cells))
    if any(number(cell) is None for cell in spellings):
        called = {name: name for name in spellings}
    else:
        called = _numbered(path, label, spellings)
    places = {cell: place for place, cell in enumerate(called)}
    return np.array([places[cell] for cell in cells], dtype=np.int64), tuple(called.values())


def _numbered(path: Path, label: str, spellings: Sequence[str]) -> dict[str, str]:
    """The name of each spelling, by size."""
    values = {cell: _whole(cell) for cell in spellings}
    if None in values.values():
        raise TightlipError(
            f"the column {label} of {path} holds numbers that are not whole, and classes have names or whole "
            "numbers: name another column by label= (--label), or predict numbers by --task regression"
        )
    ordered = sorted(spellings, key=lambda cell: values[cell] or 0)
    for cell, following in itertools.pairwise(ordered):
        if values[cell] == values[following]:
            raise TightlipError(
                f"the column {label} of {path} holds {cell!r:.40} and {following!r:.40}, which are one number: write "
                "a class in one way, or put a letter before each if they are two"
            )
    return {cell: cell if _AS_WRITTEN.fullmatch(cell) else str(values[cell]) for cell in ordered}


def _whole(cell: str) -> int | None:
    """The whole number that a cell holds, exactly; None for one that is not whole."""
    if not (number(cell) or 0.0).is_integer():  # as of infinity
        return None
    with localcontext() as context:
        context.prec = max(400, len(cell))
        value = Decimal(cell)
        return int(value) if value == value.to_integral_value() else None


def refuse_rare(path: Path, label: str, names: tuple[str, ...], counts: Array) -> None:
    """Refuse classes of one or two rows, which are often numbers to be predicted.

    Raises:
        TightlipError: with the rarest of them.
    """
    rarest = int(counts.argmin())
    if counts[rarest] < 3:
        numbers = all(number(name) is not None for name in names)
        raise TightlipError(
            f"the column {label} of {path} has {len(names)} classes, {names[rarest]!r:.40} with "
            f"{counts[rarest]} row{'s' * bool(counts[rarest] > 1)}: give three rows of each at least, name another "
            f"column by label= (--label){', or predict numbers by --task regression' if numbers else ''}"
        )
