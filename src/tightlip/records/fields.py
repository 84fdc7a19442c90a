"""Typed reading of JSON: each accessor returns the type it names or raises one sentence with file and field.

A number that is not finite is written as `null`; `number` gives it back as NaN and the page prints a dash.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tightlip.errors import TightlipError

FORMAT = 2
"""Of what is written; format 1 is read as well."""


@dataclass(frozen=True)
class Fields:
    """One JSON object, the file that it came from and where in that file it stands."""

    file: Path
    where: str
    values: Mapping[str, object]

    def fail(self, key: str, wanted: str) -> NoReturn:
        """Raise the sentence for one field.

        Raises:
            TightlipError: always.
        """
        found = "is missing" if key not in self.values else f"is {_brief(self.values[key])}"
        raise TightlipError(
            f"{self.file}: the field {self.where + key!r} {found}, but a report needs {wanted} there; "
            "make the run again, or report a folder written by this version"
        )

    def raw(self, key: str) -> object:
        """The value as it stands; its absence is an error."""
        if key not in self.values:
            self.fail(key, "a value")
        return self.values[key]

    def text(self, key: str) -> str:
        """A string."""
        value = self.raw(key)
        return value if isinstance(value, str) else self.fail(key, "a string")

    def number(self, key: str) -> float:
        """A number; `null` is NaN."""
        value = self.raw(key)
        return _number(value) if _is_number(value) else self.fail(key, "a number")

    def integer(self, key: str) -> int:
        """A whole number."""
        value = self.raw(key)
        return value if _is_integer(value) else self.fail(key, "a whole number")

    def numbers(self, key: str) -> NDArray[np.float64]:
        """A list of numbers as a float64 vector; `null` is NaN."""
        value = self.raw(key)
        if not isinstance(value, list) or not all(_is_number(item) for item in value):
            self.fail(key, "a list of numbers")
        return np.array([_number(item) for item in value], dtype=np.float64)

    def integers(self, key: str) -> NDArray[np.int64]:
        """A list of whole numbers as a vector."""
        value = self.raw(key)
        if not isinstance(value, list) or not all(_is_integer(item) and abs(item) < 2**63 for item in value):
            self.fail(key, "a list of whole numbers")
        return np.array(value, dtype=np.int64)

    def flag(self, key: str) -> bool | None:
        """Whether, or `null` where that is not known."""
        value = self.raw(key)
        return value if value is None or isinstance(value, bool) else self.fail(key, "true, false or null")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.raw(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, "a list of strings")
        return tuple(value)

    def pixels(self, key: str) -> NDArray[np.float64]:
        """An image (height, width) or (channels, height, width) as float64 (channels, height, width); `null` is NaN."""
        try:
            value = np.array(self.raw(key), dtype=np.float64)
        except (TypeError, ValueError):
            self.fail(key, "an image of equally long rows of numbers")
        if value.ndim not in (2, 3) or value.size == 0:
            self.fail(key, "an image with two or three axes")
        return value if value.ndim == 3 else value[None]

    def norm(self, key: str) -> str:
        """The name of a norm: '1', '2' or 'inf'."""
        value = str(self.raw(key)).lower().removesuffix(".0")
        value = {"infinity": "inf"}.get(value, value)
        return value if value in ("1", "2", "inf") else self.fail(key, "one of the norms '1', '2' and 'inf'")

    def inside(self, key: str) -> "Fields":
        """The JSON object in this field."""
        value = self.raw(key)
        return self._enter(key, value) if isinstance(value, dict) else self.fail(key, "an object")

    def rows(self, key: str) -> list["Fields"]:
        """The list of JSON objects in this field."""
        value = self.raw(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(key, "a list of objects")
        return [self._enter(f"{key}[{place}]", item) for place, item in enumerate(value)]

    def mapping(self, key: str) -> dict[str, Any]:
        """The JSON object in this field, as it stands."""
        return dict(self.inside(key).values)

    def table(self, key: str) -> dict[str, float]:
        """The object in this field, its values being numbers."""
        inner = self.inside(key)
        return {name: inner.number(name) for name in inner.values}

    def words(self, key: str) -> dict[str, str]:
        """The object in this field, its values being strings."""
        inner = self.inside(key)
        return {name: inner.text(name) for name in inner.values}

    def columns(self, key: str) -> dict[str, list[float]]:
        """The object in this field, its values being lists of numbers, all of one length."""
        inner = self.inside(key)
        columns = {name: inner.numbers(name).tolist() for name in inner.values}
        return columns if len({*map(len, columns.values())}) <= 1 else self.fail(key, "columns of equal length")

    def _enter(self, key: str, values: Mapping[str, object]) -> "Fields":
        return Fields(self.file, f"{self.where}{key}.", values)


def read_fields(file: Path) -> Fields:
    """Read one JSON file.

    Raises:
        TightlipError: the file is absent, unreadable, not a JSON object, or of another format.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise TightlipError(
            f"{file} is missing, and a report needs it; name a folder that 'tightlip train' has finished writing"
        ) from None
    except OSError as error:
        raise TightlipError(
            f"{file} cannot be read ({error.strerror}); a report needs it, so check its path and permissions"
        ) from None
    except (ValueError, RecursionError):
        raise TightlipError(
            f"{file} is not valid JSON, perhaps because writing it was cut short; make the run again"
        ) from None
    if not isinstance(values, dict):
        raise TightlipError(f"{file} holds {_brief(values)}, but a report needs a JSON object; make the run again")
    if not _is_integer(values.get("format")) or values["format"] not in (1, FORMAT):
        raise TightlipError(
            f"{file} has format {_brief(values.get('format'))}, and this version reads formats 1 and {FORMAT}; "
            "use the version of tightlip that wrote the run, or make the run again"
        )
    return Fields(file, "", values)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
    return number


def _brief(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
