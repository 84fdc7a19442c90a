"""Euclidean projection of every row onto the L1 ball, by Newton's method on the threshold.

The projection of y is sign(y)·max(|y| − τ, 0), where τ ≥ 0 solves Σ max(|y_i| − τ, 0) = radius. Starting at τ = 0,

    τ ← (Σ_{|y_i| > τ} |y_i| − radius) / #{|y_i| > τ}

rises to the solution in finitely many steps and has reached it when no active set changes. Rows that are already
inside are left alone, bit for bit (projecting onto the *sphere* would push them outwards).
Sources: paper §4.2.2; Condat 2016, Algorithm 1 and Michelot 1986 for the iteration.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def project_l1_ball(weight: Float[Tensor, "*batch out in"], radius: float = 1.0) -> Float[Tensor, "*batch out in"]:
    """Each row's nearest point with L1 norm ≤ ``radius``; differentiable almost everywhere, the derivative exact.

    >>> project_l1_ball(torch.tensor([[3.0, 1.0], [0.2, -0.3]]))
    tensor([[ 1.0000,  0.0000],
            [ 0.2000, -0.3000]])
    """
    magnitude = weight.abs()
    outside = magnitude.sum(-1, keepdim=True) > radius
    active = _active_set(magnitude.detach(), radius)
    threshold = ((magnitude * active).sum(-1, keepdim=True) - radius) / active.sum(-1, keepdim=True).clamp(min=1)
    projected = weight.sign() * (magnitude - threshold).clamp(min=0.0)
    return torch.where(outside, projected, weight)


def _active_set(magnitude: Float[Tensor, "*batch out in"], radius: float) -> Float[Tensor, "*batch out in"]:
    """1 where an entry survives the projection, else 0."""
    active = torch.ones_like(magnitude)
    count = active.sum(-1, keepdim=True)
    while True:
        threshold = ((magnitude * active).sum(-1, keepdim=True) - radius) / count.clamp(min=1)
        active = active * (magnitude > threshold.clamp(min=0.0))  # only ever shrinks, so rounding cannot make a cycle
        previous, count = count, active.sum(-1, keepdim=True)
        if torch.equal(previous, count):
            return active
