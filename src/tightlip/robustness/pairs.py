"""How fast each logit, and the difference of each pair of logits, can change, read off the last linear layer.

If all before the last layer is K_pre-Lipschitz from the p-norm to the q-norm, Hölder's inequality gives

    |Δ(y_t − y_i)| ≤ K_pre(p→q) · ‖w_t − w_i‖_{q*} · ‖δ‖_p,        |Δy_i| ≤ K_pre(p→q) · ‖w_i‖_{q*} · ‖δ‖_p,

for every q that can be proven; the least of these and of the network's own 2^(1−1/q)·K holds for the pair, and of
these and the network's own K(p→∞) for the logit. Orthonormal rows have ‖w_t − w_i‖₂ = √2, so little is gained there; in
the ∞-norm rows overlap and radii grow.
Source: Tsuzuku et al. 2018, §4 (the 2-norm); the other norms by the same argument.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import Audit, Nodes
from ..layers import Scale
from ..linalg.rounding import FLUSHED, UNDERFLOW, UNIT_ROUNDOFF, norm_above, normalize_exactly, round_up
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
        return torch.full((2, 2), max(_largest_logit(audited, p), UNDERFLOW), dtype=torch.float64, device="cpu")
    table = torch.full((classes, classes), overall, dtype=torch.float64, device="cpu")
    for rows, order, steepness in _last_rows(audited, p):
        table = torch.minimum(table, row_distances(rows, order, steepness))
    return table.clamp(min=UNDERFLOW)


def logit_sensitivity(audited: Audit, p: float, classes: int) -> Float64[Tensor, " classes"]:
    """S with |Δy_i| ≤ S[i]·‖δ‖_p, rounded up: one number has one size, so the least K from p to any norm holds.

    Zero if nothing can change; else no entry is so small that a thread could take it for zero.
    """
    overall = _largest_logit(audited, p)
    table = torch.full((classes,), overall, dtype=torch.float64, device="cpu")
    if overall == 0:
        return table
    for rows, order, steepness in _last_rows(audited, p):
        table = torch.minimum(table, row_norms(rows, order, steepness))
    return table.clamp(min=UNDERFLOW)


def _largest_logit(audited: Audit, p: float) -> float:
    """|Δy_i| ≤ K·‖δ‖_p for every i."""
    return round_up(min(Fraction(constant) for (r, _), constant in audited.total.table.items() if r == as_norm(p)))


def _last_rows(audited: Audit, p: float) -> Iterator[tuple[Tensor, float, Fraction]]:
    """If the network ends in a linear layer: its rows, q*, and K_pre(p→q) times the scales after it, for each q."""
    last, factor, _ = last_linear(audited.network)
    if last is not None:
        node = audited.network.nodes[last]
        before = audited.reached[node.inputs[0]].table
        for q in NORMS:
            if (as_norm(p), q) in before:
                yield node.operation.weight, dual(q), factor * Fraction(before[as_norm(p), q])  # type: ignore[union-attr, misc]


def last_linear(network: Nodes) -> tuple[int | None, Fraction, int]:
    """Which node is a Linear that only `Scale`s follow, if any; the product of their sizes, and how many there are."""
    factor, value, scales = Fraction(1), network.output, 0
    while value and type(network.nodes[value - 1].operation) is Scale:
        factor *= abs(Fraction(float(network.nodes[value - 1].operation.scale)))  # type: ignore[union-attr, arg-type]
        (value,) = network.nodes[value - 1].inputs
        scales += 1
    linear = bool(value) and isinstance(network.nodes[value - 1].operation, nn.Linear)  # the audit refuses subclasses
    return (value - 1 if linear else None), factor, scales


def row_distances(weight: Tensor, order: float, factor: Fraction = Fraction(1)) -> Float64[Tensor, "rows rows"]:
    """``factor``·‖w_t − w_i‖ of every pair of rows, from above."""
    matrix, exponent = normalize_exactly(weight)
    return _scaled(torch.stack([norm_above(matrix - row, order, 1) for row in matrix]), exponent, factor)


def row_norms(weight: Tensor, order: float, factor: Fraction = Fraction(1)) -> Float64[Tensor, " rows"]:
    """``factor``·‖w_i‖ of every row, from above."""
    matrix, exponent = normalize_exactly(weight)
    return _scaled(norm_above(matrix, order, 1), exponent, factor)


def _scaled(sizes: Tensor, exponent: int, steepness: Fraction) -> Tensor:
    """``steepness``·2^``exponent``·``sizes``, from above, for norms of rows or of their differences.

    Rows were scaled together until their largest entry is near 1. Then each entry of a difference is off by a factor
    (1 + u), and what was flushed to zero has a norm below `FLUSHED`.
    """
    factor = round_up(steepness * Fraction(2) ** exponent * (1 + Fraction(4 * UNIT_ROUNDOFF)))
    product = (sizes + FLUSHED) * factor
    return torch.nextafter(product, torch.full_like(product, math.inf))
