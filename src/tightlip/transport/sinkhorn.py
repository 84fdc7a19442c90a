"""Sinkhorn's iterations with logarithms, block by block: potentials of the entropic problem, at less and less entropy.

    f_i ← −ε·log Σ_j b_j·exp((g_j − c_ij)/ε),     g_j ← −ε·log Σ_i a_i·exp((f_i − c_ij)/ε),
    F_ij = a_i·b_j·exp((f_i + g_j − c_ij)/ε).

After a step of f, the rows of F have sums a; a step of g that is not let above its old value scales the columns down to
at most b. That is the rounding of Altschuler, Weed & Rigollet 2017 but for its last step, which couples what is left.
Sources: Cuturi 2013; Schmitzer 2019 for the logarithms and the falling ε.

Nothing here is believed: `bounds` computes what the potentials prove. Memory is that of one block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..linalg.rounding import gamma
from .bounds import Flow, normalized
from .clock import TimeUp
from .costs import Clouds, logarithm

CLOSE = 0.003
"""An ε is done when the columns are off by this, in sum."""


@dataclass(frozen=True)
class Potentials:
    """f (n,) and g (m,) at one ε, after a step of g."""

    epsilon: float
    f: Tensor
    g: Tensor


def sinkhorn(clouds: Clouds, most: int) -> Iterator[Potentials]:
    """Potentials at ε = 1/32, 1/64, … of the diameter, each from where the last one ended; without end.

    At each ε there are at most so many iterations.

    Raises:
        TimeUp: if the time is over.
    """
    turned, log_a, log_b = clouds.turned(), logarithm(clouds.weights_x), logarithm(clouds.weights_y)
    epsilon, g = clouds.diameter / 32, torch.zeros(len(clouds.y), dtype=torch.float64)
    while True:
        for _ in range(most):
            if clouds.over():
                raise TimeUp
            f, last = softmin(clouds, g / epsilon + log_b, epsilon), g
            g = softmin(turned, f / epsilon + log_a, epsilon)
            if float((log_b.exp() * torch.expm1((last - g) / epsilon).abs()).sum()) < CLOSE:
                break
        yield Potentials(epsilon, f, g)
        epsilon /= 2


def softmin(clouds: Clouds, logits: Tensor, epsilon: float) -> Tensor:
    """−ε·log Σ_j exp(logits_j − c_ij/ε) for every i (n,)."""
    parts = [costs.div_(-epsilon).add_(logits).logsumexp(1) for _, costs in clouds.blocks(rough=True)]
    return torch.cat(parts).mul_(-epsilon)


def plan(clouds: Clouds, at: Potentials) -> Flow:
    """The coupling of these potentials with its rows and columns scaled down, in one pass over the costs."""
    columns = torch.zeros(len(clouds.y), dtype=torch.float64)
    rows, costs_of_rows = [], []
    log_a, log_b = logarithm(clouds.weights_x), logarithm(clouds.weights_y)
    f = softmin(clouds, at.g / at.epsilon + log_b, at.epsilon)
    g = torch.minimum(at.g, softmin(clouds.turned(), f / at.epsilon + log_a, at.epsilon))
    left, right = f / at.epsilon + log_a, g / at.epsilon + log_b
    for here, costs in clouds.blocks():
        flow = costs.div(-at.epsilon).add_(left[here, None]).add_(right).exp_()
        rows.append(flow.sum(1))
        columns += flow.sum(0)
        costs_of_rows.append(flow.mul_(costs).sum(1))
    share = gamma(max(clouds.x.shape[0], clouds.y.shape[0]) + 8)
    return Flow(math.fsum(torch.cat(costs_of_rows)), torch.cat(rows).numpy(), columns.numpy(), share)


def lacking(clouds: Clouds, flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """What a flow lacks of the weights in its rows and columns."""
    rows, columns = normalized(clouds.weights_x) - flow.rows, normalized(clouds.weights_y) - flow.columns
    return rows.clip(min=0), columns.clip(min=0)
