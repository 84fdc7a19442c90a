"""How fast the difference of each pair of logits can change, read off the last linear layer.

If all before the last layer is K_pre-Lipschitz from the p-norm to the q-norm, Hölder's inequality gives

    |Δ(y_t − y_i)| ≤ K_pre(p→q) · ‖w_t − w_i‖_{q*} · ‖δ‖_p,

for every q that can be proven; the least of these and of the network's own 2^(1−1/q)·K holds for the pair. Orthonormal
rows have ‖w_t − w_i‖₂ = √2, so little is gained there; in the ∞-norm rows overlap and radii grow.
Source: Tsuzuku et al. 2018, §4 (the 2-norm); the other norms by the same argument.
"""

import math
from fractions import Fraction

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import Audit, Gains, Nodes
from ..layers import Scale
from ..linalg.rounding import FLUSHED, UNDERFLOW, UNIT_ROUNDOFF, norm_above, normalize_exactly, round_up, widened
from ..norms import NORMS, as_norm, dual


def pair_sensitivity(audited: Audit, p: float, overall: float, classes: int) -> Float64[Tensor, "size size"]:
    """S with |Δ(y_t − y_i)| ≤ S[t, i]·‖δ‖_p, rounded up; ``overall`` everywhere unless the network ends in a Linear.

    Zero if nothing can change; else no entry is so small that a thread could take it for zero.

    Args:
        audited: A network, as `audit` has it; `Scale`s may follow its last linear layer.
        p: The norm of the perturbation.
        overall: The bound that holds for every pair, `Bound.sensitivity`.
        classes: How many logits there are; of one, z, the pair is (−z/2, z/2), and the table has two rows.
    """
    size = max(classes, 2)
    if overall == 0:
        return torch.zeros(size, size, dtype=torch.float64, device="cpu")
    if classes == 1:
        return _one_logit(audited.total, as_norm(p))
    table = torch.full((classes, classes), overall, dtype=torch.float64, device="cpu")
    last, factor, _ = last_linear(audited.network)
    if last is not None:
        node = audited.network.nodes[last]
        before, weight = audited.reached[node.inputs[0]].table, node.operation.weight  # type: ignore[union-attr]
        for q in NORMS:
            if (as_norm(p), q) in before:
                steepness = factor * Fraction(before[as_norm(p), q])
                table = torch.minimum(table, row_distances(weight, dual(q), steepness))  # type: ignore[arg-type]
    return table.clamp(min=UNDERFLOW)


def last_linear(network: Nodes) -> tuple[int | None, Fraction, int]:
    """Which node is a Linear that only `Scale`s follow, if any; the product of their sizes, and how many there are."""
    factor, value, scales = Fraction(1), network.output, 0
    while value and type(network.nodes[value - 1].operation) is Scale:
        factor *= abs(Fraction(float(network.nodes[value - 1].operation.scale)))  # type: ignore[union-attr, arg-type]
        (value,) = network.nodes[value - 1].inputs
        scales += 1
    linear = bool(value) and isinstance(network.nodes[value - 1].operation, nn.Linear)  # the audit refuses subclasses
    return (value - 1 if linear else None), factor, scales


def _one_logit(total: Gains, p: float) -> Float64[Tensor, "2 2"]:
    """|Δz| ≤ K·‖δ‖_p with the least K to any norm: one number has one size."""
    least = round_up(min(Fraction(constant) for (r, _), constant in total.table.items() if r == p))
    return torch.full((2, 2), max(least, UNDERFLOW), dtype=torch.float64, device="cpu")


def row_distances(weight: Tensor, order: float, factor: Fraction = Fraction(1)) -> Float64[Tensor, "rows rows"]:
    """``factor``·‖w_t − w_i‖ of every pair of rows, from above.

    Rows are scaled together until their largest entry is near 1. Then each entry of a difference is off by a factor
    (1 + u), and what was flushed to zero has a norm below `FLUSHED`.
    """
    matrix, exponent = normalize_exactly(weight)
    distances = torch.stack([norm_above(matrix - row, order, 1) for row in matrix]) + FLUSHED
    return _up(distances * round_up(factor * Fraction(2) ** exponent * (1 + Fraction(4 * UNIT_ROUNDOFF))))


def row_norms(weight: Tensor, order: float) -> Float64[Tensor, " rows"]:
    """‖w_i‖ of every row, from above."""
    return norm_above(widened(weight), order, 1)


def _up(value: Tensor) -> Tensor:
    """The next float64 above, which covers the rounding of one product."""
    return torch.nextafter(value, torch.full_like(value, math.inf))
