"""Data in, 1-Lipschitz function out, without training: `lattice_interpolant` (paper §6, Lemma 1 and Theorem 3).

Few samples become a plain network of Theorem 3's class: all affine functions f_ij through two samples in its first
layer, then a tournament of `MaxMin` layers for min_j, and another for max_i. Many samples become a
`LatticeInterpolant`, which is the same function without the N² rows.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from ..arguments import number
from ..norms import as_norm
from .affine import Affine, assemble, pick, scale
from .interpolant import Array, LatticeInterpolant, checked, separating

MOST_PIECES = 1024
"""Affine pieces, m·N², up to which a plain network is built unless the caller decides: N = 32 for one output."""


def lattice_interpolant(
    points: Float[Array, "n d"], values: Real[Array, "n *m"], p: float, K: float = 1.0, dense: bool | None = None
) -> nn.Module:
    """A K-Lipschitz function from the p-norm to the ∞-norm through all samples, proven by the audit.

    It is within 2·K·ρ of *every* K-Lipschitz function with these values, ρ being the covering radius: no input is
    farther than ρ from the nearest sample. In float64, and exact to its rounding; ``.float()`` costs that of float32.
    Sources: paper §6, Lemma 1, Theorem 3 and the observation after it for m > 1.

    Args:
        points: N samples of shape (N, d), a tensor or a numpy array. Equal ones need equal values.
        values: Shape (N,) or (N, m); the result maps (…, d) → (…, m), with m = 1 for the former.
        p: The norm of inputs: 1, 2 or ``math.inf``.
        K: The constant; where it is not 1, ``values / K`` are interpolated and a `Scale` is last.
        dense: Whether to build a plain ``nn.Sequential`` of ``nn.Linear`` and `MaxMin`, of m·N² rows; None: up to 1024.

    Raises:
        TightlipError: if two samples differ by more than K times their distance (the message names the steepest pair);
            for shapes that do not fit, or numbers that are not finite.

    >>> from tightlip import lipschitz
    >>> h = lattice_interpolant(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0.0, 1.0, -1.0]), p=2)
    >>> h(torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)).flatten().tolist()
    [0.0, 1.0, 0.0, -1.0]
    >>> lipschitz(h, 2).constant <= 1 + 1e-9
    True
    """
    K = number("the Lipschitz constant K", K, above=0)
    points, values = checked(points, values, as_norm(p), K)
    if K != 1.0:
        return nn.Sequential(lattice_interpolant(points, values / K, p, 1.0, dense), scale(K, values))
    if bool((points == points[0]).all()):
        return assemble([Affine(torch.zeros_like(points[:1]).expand(values.shape[1], -1), values[0])])
    if dense is None:
        dense = values.numel() * len(values) <= MOST_PIECES
    return _network(points, values, as_norm(p)) if dense else LatticeInterpolant(points, values, p)


def _network(points: Float[Tensor, "n d"], values: Float[Tensor, "n m"], p: float) -> nn.Sequential:
    samples, outputs = values.shape
    maps = _tournament([_pieces(points, values, p)], outputs * samples, samples, keep=0)
    return assemble(_tournament(maps, outputs, samples, keep=1))


def _pieces(points: Float[Tensor, "n d"], values: Float[Tensor, "n m"], p: float) -> Affine:
    """All f_ij of all outputs, in the order (output, i, j); where x_j is x_i, the steepest piece through i again."""
    distance = torch.cdist(points, points, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    y = values.mT
    rise = y[:, :, None] - y[:, None]
    steepest = torch.where(distance > 0, rise.abs() / distance, -1.0).argmax(-1, keepdim=True)
    i = torch.arange(len(points))[:, None]
    j = torch.where(distance > 0, i.mT, steepest)
    weight = rise.gather(-1, j)[..., None] * separating(points[i] - points[j], p)
    bias = y[:, :, None] - (weight * points[:, None]).sum(-1)
    return Affine(weight.flatten(0, 2), bias.flatten())


def _tournament(maps: list[Affine], groups: int, size: int, keep: int) -> list[Affine]:
    """The least (keep=0) or largest (keep=1) of each group of neighbors, by MaxMin between the maps."""
    while size > 1:
        if size % 2:  # the last one twice
            index = [group * size + min(k, size - 1) for group in range(groups) for k in range(size + 1)]
            maps, size = [*maps[:-1], maps[-1].rows(index)], size + 1
        maps, size = [*maps, pick(range(keep, groups * size, 2), groups * size)], size // 2
    return maps
