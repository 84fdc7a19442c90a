"""Families of critics for two samples: linear ones, constrained networks, and funnels of both signs.

Points are rows (n, d) in float32, about 1 from zero. A linear critic is the direction of the means in the dual norm. A
network is orthonormal for p = 2, and of the kind of the paper's Theorem 3 for p = 1 and ∞. Funnels are
min_j(‖x − z_j‖_p + q_j); with the other sign they are those of the samples exchanged. They begin as McShane's extension
of a critic that is there already, and are trained with a soft minimum,

    −τ·log Σ_j exp(−(‖x − z_j‖ + q_j)/τ),     τ → 0,

which moves every funnel and not the lowest alone. From a start near planes, with 16 funnels in 16 dimensions, a
hard one ends at 0.34 of the distance and a soft one at 0.96; from McShane's extension at 0.92 and 0.97 (LOG.md).
"""

import torch
from jaxtyping import Float32, Float64
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

SOFT, HARD = 0.1, 1e-3
"""τ at the first and at the last step of a round, in the unit of the points."""


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
        return nn.functional.normalize(gap / gap.abs().max(), dim=0)
    return torch.zeros_like(gap).index_fill_(0, gap.abs().argmax(), 1.0) * gap.sign()


def network(d: int, p: float) -> nn.Module:
    """A network that is 1-Lipschitz in the p-norm; drawn by the global generator."""
    sets: list[Constraint] = [Orthonormal()] * 3 if p == 2 else [RowDualBall(p), RowL1Ball(), RowL1Ball()]
    return mlp([d, WIDTH, WIDTH, 1], sets).float()


class SoftFunnels(nn.Module):
    """Funnels with a soft minimum, and with a sign: what is trained in place of `hard`."""

    def __init__(self, funnels: Funnels, sign: int) -> None:
        super().__init__()
        self.funnels, self.sign, self.softness = funnels, sign, SOFT

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, d) → (n, 1)."""
        sums = torch.cdist(x, self.funnels.points, p=self.funnels.p) + self.funnels.offsets
        return -self.sign * self.softness * torch.logsumexp(-sums / self.softness, 1, keepdim=True)

    def anneal(self, share: float) -> None:
        """Set τ for the share of a round that is done, from 0 to 1."""
        self.softness = SOFT * (1 - share) ** 2 + HARD

    @property
    def hard(self) -> nn.Module:
        """The critic with a minimum."""
        return self.funnels if self.sign > 0 else nn.Sequential(self.funnels, minus().to(self.funnels.points.device))


@torch.no_grad()
def funnels(points: Float32[Tensor, "n d"], g: nn.Module, p: float, sign: int) -> SoftFunnels:
    """Those whose values at some of these points, drawn by the global generator, are those of g."""
    some = points[torch.randperm(len(points))[:COUNT]]
    return SoftFunnels(Funnels(some, sign * g(some)[:, 0], p, trainable=True), sign)


def minus() -> nn.Linear:
    """The map x ↦ −x of one number, as a layer that does not train."""
    return affine(Affine(torch.tensor([[-1.0]], dtype=torch.float32))).requires_grad_(False)
