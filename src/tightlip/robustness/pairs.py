"""How fast the difference of each pair of logits can change, read off the last linear layer.

If all before the last layer is K_pre-Lipschitz from the p-norm to the q-norm, Hölder's inequality gives

    |Δ(y_t − y_i)| ≤ K_pre(p→q) · ‖w_t − w_i‖_{q*} · ‖δ‖_p,

for every q that can be proven; the least of these and of the network's own 2^(1−1/q)·K holds for the pair. Orthonormal
rows have ‖w_t − w_i‖₂ = √2, so little is gained there; in the ∞-norm rows overlap and radii grow.
Source: Tsuzuku et al. 2018, §4 (the 2-norm); the other norms by the same argument.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import Audited, Gains
from ..layers import Scale
from ..linalg.rounding import UNDERFLOW, gamma, normalize_exactly, round_up
from ..norms import NORMS, as_norm, dual


def pair_sensitivity(
    audited: Sequence[Audited], p: float, overall: float, classes: int
) -> Float64[Tensor, "classes classes"]:
    """S with |Δ(y_t − y_i)| ≤ S[t, i]·‖δ‖_p, rounded up; ``overall`` everywhere unless the network ends in a Linear.

    Args:
        audited: The layers of a network, as `audit_layers` has them; `Scale`s may follow its last linear layer.
        p: The norm of the perturbation.
        overall: The bound that holds for every pair, `Bound.sensitivity`.
        classes: How many logits there are.
    """
    table = torch.full((classes, classes), overall, dtype=torch.float64)
    layers = list(audited)
    factor = Fraction(1)
    while layers and type(layers[-1][1]) is Scale:
        factor *= abs(Fraction(float(layers.pop()[1].scale)))  # type: ignore[arg-type]
    if not layers or not isinstance(last := layers.pop()[1], nn.Linear):  # the audit has refused its subclasses
        return table
    before = Gains.constant(1.0)
    for _, _, known in layers:
        before = before.then(known)
    for q in NORMS:
        if (as_norm(p), q) in before.table:
            steepness = round_up(factor * Fraction(before.table[as_norm(p), q]))
            table = torch.minimum(table, _up(steepness * _row_distances(last.weight, dual(q))))
    return table


def _row_distances(weight: Tensor, order: float) -> Float64[Tensor, "rows rows"]:
    """‖w_t − w_i‖ of every pair of rows, from above."""
    matrix, exponent = normalize_exactly(weight)
    distances = torch.stack([torch.linalg.vector_norm(matrix - row, order, dim=1) for row in matrix])
    inflated = distances * (1.0 + 4.0 * gamma(matrix.shape[1] + 8)) + UNDERFLOW
    half = exponent // 2  # two steps, so that neither factor over- or underflows
    return _up(_up(inflated * 2.0**half) * 2.0 ** (exponent - half))


def _up(value: Tensor) -> Tensor:
    """The next float64 above, which covers the rounding of one product."""
    return torch.nextafter(value, torch.full_like(value, math.inf))
