"""How much was compared, and what came out wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import mpmath

from tightlip import TightlipError

REFUSALS = (
    "exceeds the largest float64",
    "farther than",
    "no rule proves",
    "more than K",
    "give finite numbers",
    "beyond 2^",
)
"""What the library may say instead of a number."""


@dataclass
class Tally:
    """Comparisons by kind, and a sentence for each that failed."""

    checks: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def expect(self, kind: str, holds: bool, *told: Any) -> None:
        """Count a comparison; note it if it fails."""
        self.checks[kind] += 1
        if not holds:
            self.complaints.append(f"{kind}: {' '.join(map(shown, told))}")

    def asked(self, ask: Callable[[], Any]) -> Any:
        """The answer, or None where the library refuses, as it may."""
        try:
            return ask()
        except TightlipError as refusal:
            self.checks["refused"] += 1
            if not any(known in str(refusal) for known in REFUSALS):
                self.complaints.append(f"refused for no reason known here: {refusal}")
            return None


def shown(value: Any) -> str:
    """A number of any size in 17 digits, all else as it is."""
    if isinstance(value, Fraction):
        value = mpmath.mpf(value.numerator) / value.denominator
    return mpmath.nstr(value, 17) if isinstance(value, mpmath.mpf | float) else str(value)
