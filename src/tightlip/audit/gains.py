"""What is proven of one map, and how maps after and beside one another compose.

`Gains` hold every provable bound ‖f(x) − f(x')‖_q ≤ c·‖x − x'‖_p for p ≤ q in {1, 2, ∞}. For every pair,

    after one another:     c(p→q) = min_r c_inner(p→r) · c_outer(r→q)
    a weighted sum:        c(p→q) = Σ_i |w_i| · c_i(p→q)
    beside one another:    c(p→q) = ‖(c_i(p→q))_i‖_q, for outputs that are put together to one long vector.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from ..errors import TightlipError
from ..linalg.rounding import round_up, sqrt_up
from ..norms import NORMS, PAIRS

Factor = Fraction | float


@dataclass(frozen=True)
class Roundoff:
    """How far the evaluation of a layer can stray, in any floating-point format with unit roundoff u.

        ‖error‖₂ ≤ γ·(input·‖x‖₂ + output·‖f(x)‖₂ + entry·√n) + truncation·‖f(x)‖₂,     γ = count·u / (1 − count·u).

    Args:
        count: Roundings that a number passes through on its way, at most, in any order; of a sum of n products n + 1.
            None: as many as there are inputs for one example, and two.
        input: Share of the inputs' size.
        output: Share of the outputs' size.
        entry: What each of n outputs for one input can be off, whatever its size, in units of γ.
        truncation: Share of the outputs' size that is off in exact arithmetic too, where a function is not computed to
            the end.
        own: What each output moves by for each unit by which the layer's own numbers are rounded, those that are added,
            subtracted, or put in the place of an entry: of x + b the largest |b|. A format that has these numbers
            rounds none; in float64 all are exact.

    >>> Roundoff(2, output=1)  # two roundings of each output: a difference and a quotient
    Roundoff(count=2, input=0.0, output=1, entry=0.0, truncation=0.0, own=0.0)
    """

    count: int | None = 0
    input: float = 0.0
    output: float = 0.0
    entry: float = 0.0
    truncation: float = 0.0
    own: float = 0.0

    def __post_init__(self) -> None:
        if not (self.count is None or (type(self.count) is int and self.count >= 0)):
            raise TightlipError(f"a roundoff counts roundings, an integer ≥ 0, got count={self.count!r}")
        if self.count == 0 and any((self.input, self.output, self.entry)):
            raise TightlipError(
                "a roundoff with sizes and no count says nothing: give Roundoff(count, …), the roundings of each number"
            )

    def error(self, inputs: Tensor, outputs: Tensor, counts: tuple[int, int], gamma: Callable[[int], float]) -> Tensor:
        """What is stated, in the 2-norm.

        Args:
            inputs: Sizes of the inputs, (batch,).
            outputs: Sizes of the outputs, (batch,).
            counts: How many numbers there are of both for one example.
            gamma: γ of so many roundings, in the format.
        """
        share = gamma(counts[0] + 2 if self.count is None else self.count)
        sizes = self.input * inputs + self.output * outputs + self.entry * (math.isqrt(counts[1]) + 1)
        return share * sizes + self.truncation * outputs


EXACT = Roundoff()
"""Comparisons, permutations and reshapes: no rounding at all."""

FEW_ULPS = Roundoff(16, output=1.0)
"""An elementwise function from a good mathematical library."""

UNKNOWN = Roundoff(truncation=math.inf)
"""Not stated; `certify` refuses such a layer, `lipschitz` does not need to know."""


@dataclass(frozen=True)
class Gains:
    """Proven Lipschitz constants of one map: ``table[p, q]`` bounds p→q for p ≤ q; a missing pair is not proven.

    ‖x‖_∞ ≤ ‖x‖₂ ≤ ‖x‖₁ carries each entry to every smaller p and larger q. ``slopes`` is known of a map that acts on
    each number alone (`elementwise`): the least and the largest slope between any two numbers, the sign included.
    """

    table: Mapping[tuple[float, float], Fraction | float]
    roundoff: Roundoff = UNKNOWN
    slopes: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not all(0 <= c < math.inf for c in self.table.values()):
            given = list(self.table.values())
            raise TightlipError(f"Lipschitz constants must be ≥ 0, got {given}: give finite numbers")
        exact = {pair: Fraction(c) for pair, c in self.table.items()}  # products of floats would round
        closed = {
            (p, q): min(known) for p, q in PAIRS if (known := [c for (r, s), c in exact.items() if p <= r and s <= q])
        }
        object.__setattr__(self, "table", closed)

    @classmethod
    def constant(cls, value: float, roundoff: Roundoff = UNKNOWN) -> "Gains":
        """The same constant in every norm, as an elementwise map or a permutation has it."""
        return cls(dict.fromkeys(PAIRS, value), roundoff)

    @classmethod
    def elementwise(cls, low: float, high: float, roundoff: Roundoff = UNKNOWN) -> "Gains":
        """A function of each number alone, all of whose slopes lie from ``low`` to ``high``.

        >>> Gains.elementwise(-0.5, 0.25).table[2.0, 2.0]
        Fraction(1, 2)
        """
        if not low <= high:
            raise TightlipError(f"slopes must be given from the least to the largest, got {low} and {high}")
        return cls(dict.fromkeys(PAIRS, max(abs(low), abs(high))), roundoff, (low, high))

    def then(self, outer: "Gains") -> "Gains":
        """The gains of ``outer`` after this map."""
        table = {}
        for p, q in PAIRS:
            paths = [
                self.table[p, r] * outer.table[r, q] for r in NORMS if (p, r) in self.table and (r, q) in outer.table
            ]
            if paths:
                table[p, q] = min(paths)
        return Gains(table)

    def least(self, other: "Gains") -> "Gains":
        """What is proven of one map in two ways: the smaller constant of each pair."""
        both = [gains.table for gains in (self, other)]
        return Gains({pair: min(t[pair] for t in both if pair in t) for pair in PAIRS if any(pair in t for t in both)})

    @classmethod
    def plus(cls, terms: Sequence["Gains"], weights: Sequence[Factor]) -> "Gains":
        """The gains of Σ w_i·f_i(x): ‖Σ w_i·Δf_i‖_q ≤ Σ |w_i|·‖Δf_i‖_q."""
        shares = [abs(Fraction(weight)) for weight in weights]
        common = [pair for pair in PAIRS if all(pair in f.table for f in terms)]
        return cls(
            {pair: Fraction(sum(w * f.table[pair] for w, f in zip(shares, terms, strict=True))) for pair in common}
        )

    @classmethod
    def beside(cls, parts: Sequence["Gains"]) -> "Gains":
        """The gains of (f_1(x), f_2(x), …) as one vector: its q-norm is the q-norm of the parts' q-norms."""
        table: dict[tuple[float, float], Factor] = {}
        for p, q in PAIRS:
            if all((p, q) in f.table for f in parts):
                found = [Fraction(f.table[p, q]) for f in parts]
                table[p, q] = max(found) if q == math.inf else sum(found) if q == 1 else _root_of_squares(found)
        return cls(table)


def _root_of_squares(found: Sequence[Fraction]) -> Fraction:
    """√(Σ c²) from above, in units in which squares neither over- nor underflow."""
    largest = max(found)
    if largest == 0 or len(found) == 1:
        return largest
    return largest * Fraction(sqrt_up(round_up(Fraction(sum((c / largest) ** 2 for c in found)))))
