"""Numbers in decimals: upper bounds rounded up, lower bounds down, and what is not finite as a sign.

All work on the shortest decimal that reads back as the float64, so 0.1 stays 0.1.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

DASH = "–"
"""What stands for NaN."""


def exact(value: float) -> str:
    """The shortest decimal that reads back as ``value``, whole numbers without a point: '0.3', '1', '3e-07'.

    >>> exact(1.0), exact(0.1 + 0.2)
    ('1', '0.30000000000000004')
    """
    return repr(float(value)).removesuffix(".0")


def radius_words(eps: float) -> str:
    """A radius as people write it: as `exact`, but a long decimal that is a whole number of steps of 8 bits as those.

    >>> radius_words(0.3), radius_words(36 / 255), radius_words(1 / 7)
    ('0.3', '36/255', '0.14285714285714285')
    """
    written, steps = exact(eps), 255 * eps
    long = eps % 1 > 0 and len(written) > 8 and abs(steps - round(steps)) < 1e-9 * abs(steps)
    return f"{round(steps)}/255" if long else written


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


def floored(share: float) -> str:
    """A share that was proven, as a percentage rounded down to two decimals: '66.87' for 0.66875."""
    return str((100 * Decimal(str(share))).quantize(Decimal("0.01"), rounding=ROUND_FLOOR))


def ceiled(share: float) -> str:
    """A share as a percentage rounded up to two decimals: '66.88' for 0.66875."""
    return str((100 * Decimal(str(share))).quantize(Decimal("0.01"), rounding=ROUND_CEILING))


def bracketed(interval: tuple[float, float]) -> str:
    """An interval of shares in percent, rounded outward.

    >>> bracketed((0.80412, 0.81942))
    '[80.41%, 81.95%]'
    """
    low, high = interval
    return f"[{floored(low)}%, {ceiled(high)}%]"


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
