"""Balls of the 1-, 2- and inf-norm: where a linear function rises fastest, and the way back into the ball.

The rise g·δ of a step with ‖δ‖_p ≤ 1 is largest along sign(g) for p = ∞, along g/‖g‖₂ for p = 2, and for p = 1 along
the one coordinate with the largest |g_i|. One coordinate at a time is slow where there are many, so steps in
the 1-norm are split over a share of the coordinates: those that gain most, with the room that the box leaves them.
Sources: Madry et al. 2018; Tramèr & Boneh 2019 for the share; Duchi et al. 2008 and Croce & Hein 2021 for the
projection onto the 1-norm ball and the box.
"""

import math

import torch
from torch import Tensor

SHARE = 0.002
"""Of the coordinates, how many a step in the 1-norm moves, one at least; with 1 % and more it found fewer points."""


def column(values: Tensor, like: Tensor) -> Tensor:
    """One number for each input, in a shape that multiplies inputs."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def direction(gradient: Tensor, p: float) -> Tensor:
    """The unit vector of the 2- or inf-norm along which a linear function rises fastest; of the 1-norm g/‖g‖₁."""
    if p == math.inf:
        return gradient.sign()
    size = gradient.flatten(1).norm(p, dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
    return gradient / column(size, gradient)


def spread(gradient: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """A step of 1-norm ``budget`` along the slopes of the share of the coordinates that gain most. All are (batch, …).

    Not evenly, as a projection that takes the same from each would undo an even step.
    """
    slopes, room = gradient.flatten(1).abs(), room.flatten(1)
    count = min(max(1, math.ceil(SHARE * slopes.shape[1])), slopes.shape[1])
    gain = slopes * torch.minimum(room, budget.unsqueeze(1) / max(1, count))
    most, place = gain.topk(count, dim=1)
    chosen = torch.zeros_like(gain).scatter(1, place, slopes.gather(1, place).where(most > 0, 0.0))
    each = budget.unsqueeze(1) / chosen.sum(1, keepdim=True).clamp(min=torch.finfo(gain.dtype).tiny)
    return gradient.sign() * (chosen * each).reshape(gradient.shape)


def filled(gradient: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """The best step of 1-norm ``budget`` for a linear function: the steepest coordinate as far as it can, and so on."""
    room = torch.minimum(room.flatten(1), budget.unsqueeze(1))
    order = gradient.flatten(1).abs().argsort(stable=True, dim=1, descending=True)
    wanted = room.gather(1, order)
    left = (budget.unsqueeze(1) - (wanted.cumsum(1) - wanted)).clamp(min=0.0)
    step = torch.zeros_like(room).scatter(1, order, torch.minimum(wanted, left))
    return gradient.sign() * step.reshape(gradient.shape)


def project(delta: Tensor, radius: Tensor, p: float) -> Tensor:
    """The nearest points of the 2- or inf-norm ball."""
    bound = column(radius, delta)
    if p == math.inf:
        return delta.clamp(-bound, bound)
    size = delta.flatten(1).norm(dim=1)
    return delta * column((radius / size.clamp(min=torch.finfo(delta.dtype).tiny)).clamp(max=1.0), delta)


def project_l1(delta: Tensor, radius: Tensor, room: Tensor) -> Tensor:
    """The nearest points with ‖δ‖₁ ≤ radius and |δ_i| ≤ room_i, both at once.

    They are sign(δ)·clip(|δ| − t, 0, room) with the least t ≥ 0 that the ball allows. What remains of the 1-norm, less
    the radius, is Σ_j ±max(b_j − t, 0) − radius with a corner at each |δ_i| and, of the other sign, at each
    |δ_i| − room_i, so t lies between two neighbors among the sorted corners. In float64.
    """
    size, room, bound = delta.flatten(1).abs().double(), room.flatten(1).double(), radius.double().unsqueeze(1)
    corners, order = torch.cat([size, size - room], 1).clamp(min=0.0).sort(dim=1, descending=True)
    signs = torch.where(order < size.shape[1], 1.0, -1.0).double()
    sums, counts = (signs * corners).cumsum(1), signs.cumsum(1)
    beyond = torch.cat([sums - counts * corners >= bound, torch.ones_like(bound, dtype=torch.bool)], 1)
    last = (beyond.long().argmax(1, keepdim=True) - 1).clamp(min=0)
    threshold = ((sums - bound) / counts.clamp(min=1.0)).gather(1, last)
    inside = torch.minimum(size, room).sum(1, keepdim=True) <= bound
    kept = (size - torch.where(inside, 0.0, threshold).clamp(min=0.0)).clamp(min=0.0).minimum(room)
    return delta.sign() * kept.to(delta.dtype).reshape(delta.shape)
