"""The audit from a p-norm that is none of 1, 2 and ∞.

Two things are known of such a norm. It lies between its neighbors, ‖x‖_∞ ≤ ‖x‖₂ ≤ ‖x‖_p for p < 2 and ‖x‖_∞ ≤ ‖x‖_p
for p > 2, so what is proven from the smaller one holds from it too. And p→∞ is closed for a layer that reads the input
(`linalg.powers`). From there on every norm is one of the three, and constants compose as always.
"""

from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from ..linalg.geometry import pixel_multiplicity
from ..linalg.powers import row_norm_above
from ..norms import NORMS
from .affine import Channels, Flat, Kernel, Matrix, Uniform
from .gains import Gains
from .graph import Node, Nodes, fold
from .merging import Run, stated

_FROM = NORMS[0]
"""Stands for the p-norm of the input in `Gains`: no rule is ever asked for what it proves from there."""


def from_norm(
    network: Nodes, known: Sequence[Gains], runs: dict[int, Run], p: float
) -> tuple[dict[float, Fraction], dict[int, Fraction]]:
    """What is proven of the whole from the p-norm, by norm of the output; and p→∞ of the nodes that read the input.

    Args:
        network: Its nodes.
        known: What is proven of each of them alone.
        runs: The affine runs by the value that each ends in.
        p: Above 1, finite and not 2.
    """
    reached = [Gains({(_FROM, r): Fraction(1) for r in NORMS if r >= p})]
    stretched: dict[int, Fraction] = {0: Fraction(1)}
    closed: dict[int, Fraction] = {}

    def layer(node: Node, before: Gains) -> Gains:
        value, factor = len(reached), stretched.get(node.inputs[0])
        found = before.then(known[value - 1])
        if value in runs:
            found = found.least(reached[runs[value].start].then(runs[value].gains))
        if factor is not None:
            _read(node, value, factor)
        if value - 1 in closed and factor is not None:
            found = found.least(Gains({(_FROM, NORMS[-1]): factor * closed[value - 1]}))
        reached.append(found)
        return found

    def _read(node: Node, value: int, factor: Fraction) -> None:
        part = stated(node)
        if isinstance(part, Flat | Uniform | Channels):  # diagonal, so the norm from p to p is the largest entry
            stretched[value] = factor * _stretch(part)
        elif (rows := _rows(part)) is not None:
            closed[value - 1] = Fraction(row_norm_above(rows, p))

    def join(node: Node, before: Sequence[Gains]) -> Gains:
        reached.append(node.operation.gains(before))  # type: ignore[union-attr, operator]
        return reached[-1]

    total = fold(network, reached[0], layer, join)
    return {q: Fraction(total.table[_FROM, q]) for q in NORMS if (_FROM, q) in total.table}, closed


def _stretch(part: Flat | Uniform | Channels) -> Fraction:
    if isinstance(part, Channels):
        return part.scales.largest()
    return abs(part.factor) if isinstance(part, Uniform) else Fraction(1)


def _rows(part: object) -> Tensor | None:
    """The weight whose rows, flattened, are what an output is made of: each entry of the input counts once at most."""
    if isinstance(part, Kernel) and (part.geometry.transposed or pixel_multiplicity(part.geometry, part.shape[2:]) > 1):
        return None
    weight = part.weight if isinstance(part, Matrix | Kernel) else None
    return weight if isinstance(weight, Tensor) else None
