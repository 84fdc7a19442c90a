"""What a file may say of a module: its options, each with the kind of its values and the words for them in errors.

A rule is registered with the kind of each option (`tightlip.rule`), so that an axis of 1.5 or a slope that is a string
gets no further than the file. Whether values that are of their kind make sense, the rule itself says.

>>> SIZE.holds(3), SIZE.holds(True), SIZE.holds(-1), several(SIZE, 2).holds([2, 3])
(True, False, False, True)
"""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

LARGEST = 2**31
"""Integers in files are smaller than this: no axis is longer, and torch counts windows in 32 bits here and there."""

AXES = 64
"""No tensor of torch's has more."""


class Kind(NamedTuple):
    """A set of values as JSON has them, and how an error names it."""

    words: str
    holds: Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return type(value) is int and -LARGEST <= value < LARGEST


def _real(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


FLAG = Kind("true or false", lambda value: type(value) is bool)
INTEGER = Kind("an integer below 2³¹", _whole)
COUNT = Kind("an integer ≥ 0 below 2³¹", lambda value: _whole(value) and value >= 0)
SIZE = Kind("an integer ≥ 1 below 2³¹", lambda value: _whole(value) and value >= 1)
AXIS = Kind("-1, or an integer ≥ 1", lambda value: _whole(value) and (value == -1 or value >= 1))
NUMBER = Kind("a finite number", _real)
NONNEGATIVE = Kind("a finite number ≥ 0", lambda value: _real(value) and value >= 0)
POSITIVE = Kind("a finite number > 0", lambda value: _real(value) and value > 0)
SHARE = Kind("a number from 0 to 1", lambda value: _real(value) and 0 <= value <= 1)


def optional(kind: Kind) -> Kind:
    """None (null in a file), or a value of this kind."""
    return Kind(f"null, or {kind.words}", lambda value: value is None or kind.holds(value))


def several(kind: Kind, most: int) -> Kind:
    """A value of this kind, or a list of them, one for each axis or channel: of ``most`` at most.

    >>> several(SIZE, 2).holds([2, 3]), several(SIZE, 2).holds([2, 3, 4]), several(SIZE, 2).holds([])
    (True, False, False)
    """

    def holds(value: Any) -> bool:
        return 0 < len(value) <= most and all(map(kind.holds, value)) if isinstance(value, list) else kind.holds(value)

    return Kind(f"{kind.words}, or a list of {f'1 to {most}' if most > 1 else '1'}", holds)


def one_of(*values: str) -> Kind:
    """One of these strings."""
    return Kind(" or ".join(map(repr, values)), lambda value: type(value) is str and value in values)


def plain(value: Any) -> Any:
    """An option as JSON has it: NumPy's numbers become Python's, tuples and tensors lists."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of a tensor, or one of NumPy's numbers
        return value.tolist()
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value
