"""Families of critics for two samples: linear ones, constrained networks, and funnels of both signs.

Points are rows (n, d) in float32, about 1 from zero. A linear critic is the direction of the means in the dual norm. A
network is orthonormal for p = 2, and of the kind of the paper's Theorem 3 for p = 1 and ∞. Funnels are
min_j(‖x − z_j‖_p + q_j); with the other sign they are those of the samples exchanged.

Funnels begin as a critic g that is there already. Where g has slope 1 from a point y to z = y − T·v, the piece
‖x − z‖ + g(y) − T touches g at y, and is the flatter the larger T is: T = 0 is McShane's extension of g, T = ∞ a plane.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from ..constraints import Constraint, Orthonormal, RowDualBall, RowL1Ball
from ..constructions.affine import Affine
from ..constructions.affine import linear as affine
from ..networks import mlp
from .parts import Pair
from .potential import Funnels

WIDTH = 128
"""Of both hidden layers."""

COUNT = 256
"""Funnels."""

REACHES = (0.0, 1.0, 4.0, 16.0)
"""T of the funnels, one after the other."""

Function = Callable[[Tensor], Tensor]


def linear(points: Pair, p: float) -> nn.Module:
    """The map x ↦ ⟨w, x⟩ with the largest difference of means, ‖w‖_{p*} = 1."""
    means = [part.double().mean(0) for part in points]
    return affine(Affine(steepest(means[0] - means[1], p)[None].float())).requires_grad_(False)


def steepest(gap: Float64[Tensor, " d"], p: float) -> Float64[Tensor, " d"]:
    """The w of dual norm 1 with the largest ⟨w, gap⟩."""
    if not bool(gap.any()):
        gap = torch.ones_like(gap)
    if p == 1:
        return gap.sign()
    if p == 2:
        return gap / gap.abs().max() / torch.linalg.vector_norm(gap / gap.abs().max())
    return torch.zeros_like(gap).index_fill_(0, gap.abs().argmax(), 1.0) * gap.sign()


def network(d: int, p: float) -> nn.Module:
    """A network that is 1-Lipschitz in the p-norm; drawn by the global generator."""
    sets: list[Constraint] = [Orthonormal()] * 3 if p == 2 else [RowDualBall(p), RowL1Ball(), RowL1Ball()]
    return mlp([d, WIDTH, WIDTH, 1], sets)


def funnels(points: Float32[Tensor, "n d"], g: nn.Module, p: float, sign: int = 1) -> nn.Module:
    """``sign``·min_j(‖x − z_j‖_p + q_j), near g, with its points drawn from these by the global generator."""
    some = points[torch.randperm(len(points))[:COUNT]]
    values, slopes = _slopes(g, some, sign)
    directions = nn.functional.normalize(slopes, dim=1) if p == 2 else slopes.sign()
    reach = torch.tensor(REACHES).repeat(math.ceil(len(some) / len(REACHES)))[: len(some), None]
    shifts = reach.to(some) * directions
    pieces = Funnels(some - shifts, values - torch.linalg.vector_norm(shifts, p, dim=1), p, trainable=True)
    return pieces if sign > 0 else nn.Sequential(pieces, minus().to(some.device))


def _slopes(
    g: nn.Module, points: Float32[Tensor, "k d"], sign: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]:
    """Values and gradients of ``sign``·g."""
    at = points.clone().requires_grad_()
    values = sign * g(at)[:, 0]
    return values.detach(), torch.autograd.grad(values.sum(), at)[0]


def minus() -> nn.Linear:
    """The map x ↦ −x of one number, as a layer that does not train."""
    return affine(Affine(torch.tensor([[-1.0]]))).requires_grad_(False)
