"""The page's words: names of norms, shares as percentages, times, options; what is not finite is a dash."""

import math
from collections.abc import Mapping

from tightlip.decimals import DASH, ceiled, floored, round_down, round_up

NORMS = {"1": "1-norm", "2": "2-norm", "inf": "∞-norm"}
SYMBOLS = {"1": "1", "2": "2", "inf": "∞"}
DUALS = {"1": "inf", "2": "2", "inf": "1"}


ANY = 1e100
"""A radius above this is told as one without bound."""


def reach(radius: float) -> str:
    """A certified radius, rounded down; beyond `ANY` no rounding of zero tells it from ∞.

    >>> reach(0.12345), reach(1e271)
    ('0.1234', 'any distance')
    """
    return "any distance" if radius > ANY else round_down(radius)


def norm_name(norm: str) -> str:
    """'2-norm' for '2', '∞-norm' for 'inf'."""
    return NORMS[norm]


def symbol(norm: str) -> str:
    """The subscript of a norm: '∞' for 'inf'."""
    return SYMBOLS[norm]


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage, rounded down as the terminal does (`floored`): '92.9 %'."""
    return f"{floored(share).removesuffix('0')}\N{NO-BREAK SPACE}%" if math.isfinite(share) else DASH


def between(interval: tuple[float, float]) -> str:
    """An interval of shares, rounded outward: '80.41 – 81.95 %'; nothing where it is not known."""
    low, high = interval
    space = "\N{NO-BREAK SPACE}"
    return f"{floored(low)}{space}–{space}{ceiled(high)}{space}%" if math.isfinite(low + high) else ""


def points(difference: float) -> str:
    """A difference of shares in percentage points: '+0.13', '−1.20'."""
    return _signed(f"{100 * difference:.2f}")


def points_between(interval: tuple[float, float]) -> str:
    """An interval of differences in percentage points, rounded outward: '−0.31 to +1.15'."""
    low, high = interval
    return f"{_signed(floored(low))} to {_signed(ceiled(high))}".replace(" ", "\N{NO-BREAK SPACE}")


def _signed(number: str) -> str:
    value = float(number)
    return "0.00" if value == 0 else f"{'+' if value > 0 else '−'}{number.removeprefix('-')}"


def p_value(value: float) -> str:
    """A p-value, rounded up to two digits: '0.21', '< 0.0001'."""
    return "<\N{NO-BREAK SPACE}0.0001" if value < 1e-4 else round_up(value, 2)


def count(value: int) -> str:
    """A count with thousands separated: '55,000'."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """A time in seconds as '0.34 s', '48.1 s', '3 min 07 s' or '2 h 05 min'."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 1:
        return f"{seconds:.2f}\N{NO-BREAK SPACE}s"
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\N{NO-BREAK SPACE}min {rest:02d}\N{NO-BREAK SPACE}s"
    return f"{minutes // 60}\N{NO-BREAK SPACE}h {minutes % 60:02d}\N{NO-BREAK SPACE}min"


def scalar(value: object) -> str:
    """A configuration value as a person would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(scalar, value)) or "(empty)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {scalar(inner)}" for key, inner in value.items()) or "(empty)"
    return str(value)


def spoken(name: str) -> str:
    """The name of an option, a metric or an experiment in words: 'bjorck convergence'."""
    return name.replace("_", " ")
