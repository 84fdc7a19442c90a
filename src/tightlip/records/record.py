"""A record is a dataclass that is written as JSON and read back by the annotations of its fields.

    str, int, float, bool               themselves; a float that is not finite is `null`
    Vector, Integers                    an array of numbers, which stands on one line
    another record, tuple[record, …]    an object, an array of objects
    Annotated[kind, reader]             whatever ``reader(fields, name)`` makes of it
    kind | None                         the same, or `null`

A field that holds its default is not written. So a new number is one field, and files of earlier versions are read.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Sized
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..provenance import write_json
from .fields import FORMAT, Fields, read_fields

Vector = Annotated[NDArray[np.float64], Fields.numbers]
"""Numbers in float64; `null` is read as NaN."""

Integers = Annotated[NDArray[np.int64], Fields.integers]
"""Whole numbers."""

T = TypeVar("T")

Reader = Callable[[Fields, str], Any]

READERS: dict[Any, Reader] = {
    str: Fields.text,
    int: Fields.integer,
    float: Fields.number,
    bool: Fields.flag,
    Any: Fields.raw,
    tuple[str, ...]: Fields.texts,
    dict[str, Any]: Fields.mapping,
    dict[str, float]: Fields.table,
    dict[str, str]: Fields.words,
    dict[str, list[float]]: Fields.columns,
}


class Record:
    """Any of them; a subclass is a frozen dataclass."""

    @classmethod
    def from_json(cls: type[T], fields: Fields) -> T:
        """The record that a JSON object holds.

        Raises:
            TightlipError: with the file and the field, if one is absent, or not what it should be or what others ask.
        """
        known = dataclasses.fields(cls)  # type: ignore[arg-type]
        present = [field for field in known if field.name in fields.values or not _has_default(field)]
        record = cls(**{field.name: _read(field.type, fields, field.name) for field in present})
        for name, wanted in record.contradictions():  # type: ignore[attr-defined]
            fields.fail(name, wanted)
        return record

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Fields that do not fit to others, and what is wanted there."""
        yield from ()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        pairs = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        pairs.sort(key=lambda pair: pair[0].name in _BORN)  # where a row comes from stands last
        return {field.name: _plain(value) for field, value in pairs if not _is_default(field, value)}


class FileRecord(Record):
    """A record that is a file of its own, and so has a format."""

    @classmethod
    def read(cls: type[T], path: Path) -> T:
        """The record in a file of this format or an earlier one; see `Record.from_json`."""
        return cls.from_json(read_fields(path))  # type: ignore[attr-defined]

    def to_json(self) -> dict[str, Any]:
        """As of any record, with the format."""
        return {"format": FORMAT} | super().to_json()

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json(path, self.to_json())


@dataclass(frozen=True, kw_only=True)
class Row(FileRecord):
    """A file of numbers, with what `provenance` says of where they come from."""

    commit: str | None
    dirty: bool | None
    device: str
    machine: str
    versions: dict[str, Any] = dataclasses.field(default_factory=dict)
    threads: int | None = None


_BORN = {field.name for field in dataclasses.fields(Row)}


def unequal(record: Record, first: str, *others: str, more: int = 0) -> Iterator[tuple[str, str]]:
    """Which of the others has not as many entries as the first, or ``more`` than it."""
    size = len(getattr(record, first)) + more
    for name in others:
        values: Sized = getattr(record, name)
        if len(values) != size:
            yield (
                name,
                f"{size} numbers, for the {size - more} of {first!r}"
                if more
                else f"as many numbers as in {first!r} ({size})",
            )


def _read(kind: Any, fields: Fields, name: str) -> Any:
    if typing.get_origin(kind) is Annotated:
        return kind.__metadata__[0](fields, name)
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if fields.raw(name) is None else _read(inner, fields, name)
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(fields.inside(name))
    if kind in READERS:
        return READERS[kind](fields, name)
    return _read_several(kind, fields, name)


def _read_several(kind: Any, fields: Fields, name: str) -> Any:
    """Records in a tuple, or by their names in a dict."""
    if typing.get_origin(kind) is tuple:
        return tuple(typing.get_args(kind)[0].from_json(row) for row in fields.rows(name))
    inside, record = fields.inside(name), typing.get_args(kind)[1]
    return {key: record.from_json(inside.inside(key)) for key in inside.values}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _is_default(field: Any, value: Any) -> bool:
    if not _has_default(field):
        return False
    default = field.default_factory() if field.default is MISSING else field.default
    return type(value) is type(default) and bool(value == default)
