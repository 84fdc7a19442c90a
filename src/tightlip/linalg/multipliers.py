"""Multipliers for `semidefinite.proves`: a search that need not be right, since nothing rests on it.

For given Λ the least K² follows layer by layer. With m = ½(α + β), r = ½(β − α), the matrix M of `semidefinite` is
positive definite where all C_k below are, and K² is the largest eigenvalue of G_L:

    G₁ = W₁W₁ᵀ,    C_k = I − r²·Λ_k^½ G_k Λ_k^½,    G_{k+1} = W_{k+1}(Λ_k⁻¹ + m²·(G_k⁻¹ − r²·Λ_k)⁻¹)W_{k+1}ᵀ,

where (G⁻¹ − r²Λ)⁻¹ = G + r²·GΛ^½C⁻¹Λ^½G. Multiples of I give back the product of the norms: for λ = 1/(‖G‖·r·(r + |m|))
the middle factor has the norm (r + |m|)²·‖G‖. From inside of there log K² − μ·Σ log det C_k is minimized over log λ by
L-BFGS, for a smaller μ each time (the path of an interior point method); the largest eigenvalue, which has kinks, is a
Schatten norm of rising order.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from .semidefinite import Alternation

ROUNDS = 5
"""How often the barrier is lowered to a tenth; with five the bound is within about 1e-3 of the least that there is."""

STEPS = 60
"""Of L-BFGS in each round, at most."""

ENOUGH = 1e-6
"""Gain of a step, in parts of K², below which a round ends."""

Objective = Callable[[Tensor], Tensor | None]


def search(network: Alternation, steps: int = STEPS) -> list[Float64[Tensor, " units"]]:
    """Multipliers for which the bound is small."""
    with torch.inference_mode(False), torch.enable_grad():
        matrices = [weight.center.clone() for weight in network.weights]
        start = _product(matrices, network.slopes)
        inside = [m.log() - math.log(2.0) * (k + 1) for k, m in enumerate(start)]
        place = torch.cat(inside)
        for number in range(ROUNDS):
            barrier, order = 0.1**number / len(place), 4.0 ** (number + 1)
            place = minimized(lambda x, b=barrier, p=order: _objective(network, matrices, x, b, p), place, steps)  # type: ignore[misc]
        return list(place.detach().exp().split(network.widths))


def least_constant(network: Alternation, multipliers: Sequence[Float64[Tensor, " units"]]) -> float | None:
    """About the least K that multipliers prove, in the units of `Alternation.unit`; None where they prove none."""
    with torch.inference_mode(False), torch.no_grad():
        found = _gram(network, [weight.center for weight in network.weights], multipliers)
        return None if found is None else math.sqrt(max(float(torch.linalg.eigvalsh(found[0])[-1]), 0.0))


def _product(matrices: Sequence[Tensor], slopes: Sequence[tuple[float, float]]) -> list[Tensor]:
    """Multiples of I that prove the product of the norms."""
    found, square = [], float(torch.linalg.matrix_norm(matrices[0], 2)) ** 2
    for matrix, (low, high) in zip(matrices[1:], slopes, strict=True):
        half, steepest = 0.5 * (high - low), max(abs(low), abs(high))
        found.append(torch.full_like(matrix[0], 1.0 / (square * half * steepest)))
        square *= (steepest * float(torch.linalg.matrix_norm(matrix, 2))) ** 2
    return found


def _gram(
    network: Alternation, matrices: Sequence[Tensor], multipliers: Sequence[Tensor]
) -> tuple[Float64[Tensor, "out out"], Tensor] | None:
    """G_L, and −Σ log det C_k; None where a C_k is not positive definite, or numbers are beyond float64."""
    gram, barrier = matrices[0] @ matrices[0].mT, matrices[0].new_zeros(())
    for matrix, (low, high), numbers in zip(matrices[1:], network.slopes, multipliers, strict=True):
        middle, root = 0.5 * (low + high), 0.5 * (high - low) * numbers.sqrt()
        weighed = root.unsqueeze(1) * gram
        kept = torch.diag(torch.ones_like(root)) - weighed * root
        factor, info = torch.linalg.cholesky_ex(kept)
        if int(info):
            return None
        barrier = barrier - 2.0 * factor.diagonal().log().sum()
        image = torch.linalg.solve_triangular(factor, weighed @ matrix.mT, upper=False)
        gram = (matrix / numbers) @ matrix.mT + middle**2 * (matrix @ gram @ matrix.mT + image.mT @ image)
    return (gram, barrier) if bool(torch.isfinite(gram).all()) else None


def _objective(
    network: Alternation, matrices: Sequence[Tensor], place: Tensor, barrier: float, order: float
) -> Tensor | None:
    found = _gram(network, matrices, place.exp().split(network.widths))
    if found is None:
        return None
    values = torch.linalg.eigvalsh(found[0]).clamp(min=0.0)
    largest = values[-1].detach()
    return largest.log() + (values / largest).pow(order).sum().log() / order + barrier * found[1]


def minimized(objective: Objective, place: Float64[Tensor, " n"], steps: int, memory: int = 20) -> Tensor:
    """Where L-BFGS gets to in so many steps; ``objective`` is None outside of where it is defined.

    Source: Nocedal & Wright, *Numerical Optimization*, Algorithms 7.4 and 3.1.
    """
    value, gradient = _evaluated(objective, place)
    pairs: list[tuple[Tensor, Tensor]] = []
    for _ in range(steps):
        direction = _direction(gradient, pairs)
        slope, length = float(direction @ gradient), min(1.0, 2.0 / float(direction.abs().max().clamp(min=1e-300)))
        while True:
            new, steeper = _evaluated(objective, place + length * direction)
            if new <= value + 1e-4 * length * slope:
                break
            length *= 0.5 if new < math.inf else 0.3
            if length < 1e-10:
                return place
        moved, turned, gain = length * direction, steeper - gradient, value - new
        if float(moved @ turned) > 1e-12 * float(turned @ turned):
            pairs = [*pairs, (moved, turned)][-memory:]
        place, value, gradient = place + moved, new, steeper
        if gain < ENOUGH:
            break
    return place


def _evaluated(objective: Objective, place: Tensor) -> tuple[float, Tensor]:
    place = place.detach().requires_grad_()
    value = objective(place)
    if value is None or not math.isfinite(float(value.detach())):
        return math.inf, place.detach()
    return float(value.detach()), torch.autograd.grad(value, place)[0]


def _direction(gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Minus the inverse Hessian that the steps and turns of the gradient suggest, times the gradient."""
    direction, shares = -gradient, []
    for moved, turned in reversed(pairs):
        shares.append(float(moved @ direction) / float(moved @ turned))
        direction = direction - shares[-1] * turned
    if pairs:
        moved, turned = pairs[-1]
        direction = direction * (float(moved @ turned) / float(turned @ turned))
    else:
        direction = direction / gradient.norm().clamp(min=1.0)
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - float(turned @ direction) / float(moved @ turned)) * moved
    return direction
