"""lower ≤ truth ≤ upper: the best that was proven so far, and when."""

from fractions import Fraction

from ..linalg.rounding import round_down, round_up
from .clock import Clock

History = list[tuple[float, float, float]]
"""(seconds, lower, upper), each row later and closer than the one before."""


class Bracket:
    """Bounds in units of a problem, as fractions: from 0 to ``upper`` to begin with."""

    def __init__(self, upper: Fraction, clock: Clock | None = None) -> None:
        self.lower, self.upper, self.clock = Fraction(0), upper, clock or Clock()
        self._steps: list[tuple[float, Fraction, Fraction]] = []
        self._noted()

    @property
    def gap(self) -> Fraction:
        """(upper − lower)/upper; 0 where both are 0."""
        return (self.upper - self.lower) / self.upper if self.upper else Fraction(0)

    def rises(self, lower: Fraction) -> bool:
        """Whether this lower bound is the best so far; if so, it is taken."""
        better = lower > self.lower
        if better:
            self.lower = lower
            self._noted()
        return better

    def falls(self, upper: Fraction) -> bool:
        """Whether this upper bound is the best so far; if so, it is taken."""
        better = upper < self.upper
        if better:
            self.upper = upper
            self._noted()
        return better

    def in_units(self, unit: Fraction) -> tuple[float, float]:
        """Both bounds in the unit of the points, rounded outward."""
        return _rounded(self.lower * unit, self.upper * unit)

    def history(self, unit: Fraction) -> History:
        """How they came to be, in the unit of the points; the last row is what they are."""
        now = (self.clock.elapsed(), self.lower, self.upper)
        return [(seconds, *_rounded(low * unit, high * unit)) for seconds, low, high in (*self._steps, now)]

    def _noted(self) -> None:
        self._steps.append((self.clock.elapsed(), self.lower, self.upper))


def _rounded(lower: Fraction, upper: Fraction) -> tuple[float, float]:
    return max(0.0, round_down(lower)), round_up(upper)
