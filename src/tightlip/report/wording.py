"""How the page prints numbers: upper bounds are rounded up, lower bounds down, and what is not finite is a dash."""

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

DASH = "–"
NORMS = {"1": "1-norm", "2": "2-norm", "inf": "∞-norm"}
SYMBOLS = {"1": "1", "2": "2", "inf": "∞"}
DUALS = {"1": "inf", "2": "2", "inf": "1"}


def norm_name(norm: str) -> str:
    """'2-norm' for '2', '∞-norm' for 'inf'."""
    return NORMS[norm]


def symbol(norm: str) -> str:
    """The subscript of a norm: '∞' for 'inf'."""
    return SYMBOLS[norm]


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one or two decimals: '92.9 %'."""
    if not math.isfinite(share):
        return DASH
    text = f"{100 * share:.2f}"
    return f"{text.removesuffix('0')}\N{NO-BREAK SPACE}%"


def floored(share: float) -> str:
    """A share that was proven, as a percentage rounded down to two decimals: '66.87' for 0.66875."""
    return str((100 * Decimal(str(share))).quantize(Decimal("0.01"), rounding=ROUND_FLOOR))


def percent_down(share: float) -> str:
    """`floored`, as `percent` writes it: '66.87 %'."""
    return f"{floored(share).removesuffix('0')}\N{NO-BREAK SPACE}%" if math.isfinite(share) else DASH


def round_up(value: float, digits: int = 8) -> str:
    """An upper bound, rounded up to `digits` significant digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_CEILING))


def bound_up(value: float, digits: int = 8) -> str:
    """As `round_up`, but a rounding error above 1 is shown as what it is: '1 + 5e-15', not '1.001'."""
    excess = Decimal(str(value)) - 1 if math.isfinite(value) else Decimal(0)
    if 0 < excess < Decimal("1e-6"):
        return f"1 + {_rounded(float(excess), Context(prec=1, rounding=ROUND_CEILING))}"
    return round_up(value, digits)


def round_down(value: float, digits: int = 4) -> str:
    """A lower bound, rounded down to `digits` significant digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_FLOOR))


def round_nearest(value: float, digits: int = 4) -> str:
    """A number, rounded to nearest."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_HALF_EVEN))


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


def decimals(value: float) -> int:
    """How many decimals it takes to write a number, six at most: 2 for 0.87, 0 for 3."""
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    return min(6, max(0, -exponent)) if isinstance(exponent, int) else 0


def fixed(value: float, places: int, rounding: str = ROUND_HALF_EVEN) -> str:
    """A number with so many decimals, and a dash for what is not finite; one too large for them as `round_nearest`."""
    if not math.isfinite(value) or abs(value) >= 1e9:
        return round_nearest(value)
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-places), rounding=rounding))


def _rounded(value: float, context: Context) -> str:
    if math.isinf(value) and value > 0:
        return "∞"
    if not math.isfinite(value):
        return DASH
    rounded = context.create_decimal(Decimal(str(value)))  # str: the shortest decimal that reads back as it
    if rounded != 0 and not -5 < rounded.adjusted() < 9:
        return f"{rounded.normalize(context):e}"
    text = f"{rounded if rounded else abs(rounded):f}"  # 0, not -0
    return text.rstrip("0").rstrip(".") if "." in text else text
