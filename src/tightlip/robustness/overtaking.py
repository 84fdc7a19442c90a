"""How far the input must move before one logit has lost its lead over several others, or several theirs over one.

Let m_1, …, m_n be the leads of logit t over n others, and let them all be gone at x + δ. One by one, lead i needs
‖δ‖_p ≥ m_i / S[t, i] (`pairs`), so all of them need the largest of these. In the 2-norm of the logits they need more,
since the others do not rise by the same move:

**Theorem.** If ‖Δ‖₂ ≤ K·‖δ‖_p and all n leads are gone, then for all weights λ ≥ 0, not all zero,

    K·‖δ‖_p ≥ Σ λ_i·m_i / √(Σ λ_i² + (Σ λ_i)²).

*Proof.* Lead i is gone where Δ_i − Δ_t ≥ m_i. So Σ λ_i·m_i ≤ Σ λ_i·Δ_i − (Σ λ_i)·Δ_t, which is the product of Δ with
a vector of that 2-norm, and Cauchy and Schwarz bound it by ‖Δ‖₂ times the root. For n logits that one logit overtakes
the vector is the same but for its sign. ∎

The best weights are λ_i = max(m_i − s, 0) with s = Σ λ_i: the logit that leads falls by s, the others rise by the rest.
With them the bound is attained by Δ = (λ, −s), so nothing better holds for ‖Δ‖₂ alone. n equal leads m need
√(n/(n + 1))·m where one needs √½·m. Any weights prove something, so rounding of the weights costs tightness alone.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from ..linalg.rounding import FLUSHED, gamma, norm_above


def all_gone(leads: Float64[Tensor, "*batch n"], constant: float) -> Float64[Tensor, "*batch"]:
    """At what ‖δ‖_p all of the ``leads`` may be gone at the earliest, rounded down; 0 where none is above zero.

    Args:
        leads: Of one logit over n others, or of n logits over one other, each from below.
        constant: K, proven from the p-norm to the 2-norm of the logits; ∞ proves nothing.
    """
    if constant == 0:
        return torch.where(leads.amax(-1) > 0, math.inf, 0.0).double()
    weights, slack = _weights(leads), 2 * gamma(leads.shape[-1] + 2)
    sums = weights.sum(-1, keepdim=True) * (1 + slack)
    gain = (weights * leads).sum(-1) * (1 - slack) - FLUSHED  # no term is below zero
    distance = down(down(gain / norm_above(torch.cat((weights, sums), -1), 2, -1)) / constant)
    return torch.where(torch.isfinite(distance), distance, 0.0).clamp(min=0.0)


def _weights(leads: Tensor) -> Tensor:
    """λ ≥ 0, the largest about 1: max(m_i − s, 0) with s = (sum of the j largest) / (j + 1), j as many as are above."""
    ordered = leads.sort(-1, descending=True).values.clamp(min=0.0)
    ordered = ordered / ordered[..., :1].clamp(min=torch.finfo(torch.float64).tiny)
    counts = torch.arange(1, leads.shape[-1] + 1, dtype=torch.float64, device=leads.device)
    shares = ordered.cumsum(-1) / (counts + 1)
    above = (ordered > shares).sum(-1, keepdim=True).clamp(min=1)
    largest = leads.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return (leads / largest - shares.gather(-1, above - 1)).clamp(min=0.0)


def down(value: Tensor) -> Tensor:
    """The next float64 below, which covers the rounding of one operation."""
    return torch.nextafter(value, torch.full_like(value, -math.inf))
