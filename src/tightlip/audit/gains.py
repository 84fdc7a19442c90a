"""What is proven of one map, and how maps after and beside one another compose.

`Gains` hold every provable bound ‖f(x) − f(x')‖_q ≤ c·‖x − x'‖_p for p ≤ q in {1, 2, ∞}. For every pair,

    after one another:     c(p→q) = min_r c_inner(p→r) · c_outer(r→q)
    a weighted sum:        c(p→q) = Σ_i |w_i| · c_i(p→q)
    beside one another:    c(p→q) = ‖(c_i(p→q))_i‖_q, for outputs that are put together to one long vector.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from ..errors import TightlipError
from ..linalg.rounding import UNIT_ROUNDOFF, round_up, sqrt_up
from ..norms import NORMS, PAIRS

Factor = Fraction | float


class Roundoff(NamedTuple):
    """How far float64 evaluation of a layer can stray: ‖error‖₂ ≤ input·‖x‖₂ + output·‖f(x)‖₂ + entry·√n.

    n is the number of outputs for one input: ``entry`` is what each of them can be off, whatever its size.
    """

    input: float = 0.0
    output: float = 0.0
    entry: float = 0.0


EXACT = Roundoff()
"""Comparisons, permutations and reshapes: no rounding at all."""

FEW_ULPS = Roundoff(output=16.0 * UNIT_ROUNDOFF)
"""An elementwise function from a good mathematical library."""

UNKNOWN = Roundoff(math.inf, math.inf, math.inf)
"""Not stated; `certify` refuses such a layer, `lipschitz` does not need to know."""


@dataclass(frozen=True)
class Gains:
    """Proven Lipschitz constants of one map: ``table[p, q]`` bounds p→q for p ≤ q; a missing pair is not proven.

    ‖x‖_∞ ≤ ‖x‖₂ ≤ ‖x‖₁ carries each entry to every smaller p and larger q.
    """

    table: Mapping[tuple[float, float], Fraction | float]
    roundoff: Roundoff = UNKNOWN

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
