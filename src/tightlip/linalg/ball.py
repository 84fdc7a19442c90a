"""Euclidean projection of every row onto the L1 ball, by Newton's method on the height of what survives.

With m = max|y_i| and depths d_i = m − |y_i|, the projection of y is sign(y)·max(t − d, 0), where t > 0 solves
Σ max(t − d_i, 0) = radius. Starting with every entry,

    t ← (radius + Σ_{d_i < t} d_i) / #{d_i < t}

falls to the solution in finitely many steps. (The usual threshold is m − t; depths do not cancel when m is large.)
The active set only ever shrinks and never loses the largest entry, so the iteration ends also in floating point, at
ties too. Rows that are already inside are left alone, bit for bit (the *sphere* would push them outwards).
Sources: paper §4.2.2; Condat 2016, Algorithm 1 and Michelot 1986 for the iteration.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import TightlipError


def project_l1_ball(weight: Float[Tensor, "*batch out in"], radius: float = 1.0) -> Float[Tensor, "*batch out in"]:
    """Each row's nearest point with L1 norm ≤ ``radius``; differentiable almost everywhere, the derivative exact.

    Raises:
        TightlipError: unless ``radius`` is positive and the weights are finite.

    >>> project_l1_ball(torch.tensor([[3.0, 1.0], [0.2, -0.3]]))
    tensor([[ 1.0000,  0.0000],
            [ 0.2000, -0.3000]])
    """
    if not radius > 0:
        raise TightlipError(f"radius = {radius} makes no ball: give a number > 0")
    if not torch.isfinite(weight).all():
        raise TightlipError("a weight is NaN or infinite and has no projection: lower the learning rate")
    magnitude = weight.abs()
    outside = magnitude.sum(-1, keepdim=True) > radius
    depth = magnitude.detach().amax(-1, keepdim=True) - magnitude
    active = _active_set(depth.detach(), radius)  # entries as deep as the radius never survive, nor can they overflow
    height = (radius + torch.where(active, depth, 0.0).sum(-1, keepdim=True)) / active.sum(-1, keepdim=True)
    projected = weight.sign() * (height - depth).clamp(min=0.0)
    return torch.where(outside, projected, weight)


def _active_set(depth: Float[Tensor, "*batch out in"], radius: float) -> Bool[Tensor, "*batch out in"]:
    """Where an entry survives the projection: the same set before and after a step, reached from above."""
    active = depth < radius
    while True:
        height = (radius + torch.where(active, depth, 0.0).sum(-1, keepdim=True)) / active.sum(-1, keepdim=True)
        smaller = active & ((depth < height) | (depth == 0))
        if torch.equal(smaller, active):
            return active
        active = smaller
