"""Orthonormal convolution kernels as products of Stiefel factors and moves of channels by one tap.

A kernel is a polynomial K(z) = Σ_t K_t z^t with matrices as coefficients, and kernels are composed as polynomials are
multiplied. Those used here are

    K = V S Q_{L-1} S Q_{L-2} … S Q_0,    S = diag(1, …, 1, z, …, z),

with orthogonal Q_j, moves S of the last h channels by one tap along one axis, in the order x, y, x, y, and a patch
factor V: a kernel as large as the stride, with orthonormal rows or columns as a matrix. Each part is an operator with
all singular values 1 on images without an edge (circular padding), and so is K. Zero padding is such an operator
between an embedding and a restriction, so its norm is at most 1. A dilation d makes each move one of d pixels. At
stride 1 a kernel with out > in is the transpose of one with in > out.

The gradient needs no graph: with G = dL/dK the sweep undoes the product from the right, one factor after the other.
Source: Li et al. 2019 (BCOP) for the products; how they are found again is told in `peeling`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .kernel_shape import KernelShape
from .moves import move, unmove
from .polar import polar
from .rotation import LONGEST, rotation
from .rounding import full_precision


@dataclass(frozen=True)
class Factors:
    """The factors of kernels of one shape.

    Args:
        shape: Of each of them.
        patch: V, (*batch, rows, *patch, n).
        squares: Q_0, …, Q_{L-1}, (*batch, L, n, n).
        counts: For each kernel of the batch, how many of the n channels each of the L moves takes along.
    """

    shape: KernelShape
    patch: Tensor
    squares: Tensor
    counts: tuple[tuple[int, ...], ...]

    @property
    def batch(self) -> torch.Size:
        """Leading axes: a convolution's groups, or none."""
        return self.squares.shape[:-3]

    def taken(self, number: int) -> list[int]:
        """How many channels one of the moves takes along, for each kernel of the batch."""
        return [counts[number] for counts in self.counts]

    def matrices(self) -> tuple[Tensor, Tensor]:
        """V as matrices (batch, rows, patch·n), and the squares (batch, L, n, n); views where that can be."""
        shape, number = self.shape, math.prod(self.batch)
        patch = self.patch.reshape(number, shape.rows, math.prod(shape.patch) * shape.columns)
        return patch, self.squares.reshape(number, *self.squares.shape[-3:])

    def like(self, patch: Tensor, squares: Tensor) -> "Factors":
        """The same moves between other factors."""
        return Factors(self.shape, patch.reshape(self.patch.shape), squares.reshape(self.squares.shape), self.counts)


def compose(factors: Factors) -> Float[Tensor, "..."]:
    """The kernels (*batch, out, in, *taps); differentiable.

    >>> factors = sample(KernelShape(8, 8, (3,), (1,)))
    >>> compose(factors).shape
    torch.Size([8, 8, 3])
    """
    with full_precision(factors.patch):
        product, (_, squares) = _patch(factors), factors.matrices()
        for number in reversed(range(len(factors.shape.axes))):
            product = _times(_left(factors, product, number), squares[:, number])
        return factors.shape.unfolded(product, factors.batch)


@torch.no_grad()
def sweep(factors: Factors, gradient: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """The gradients of skew matrices A = 0 that turn the factors, from that of the kernels (*batch, out, in, *taps).

    Each Q becomes R(A)·Q; V becomes V·R(A) where it is wide or square, else R(A)·V, with R as in `rotation`. With M_j
    what is left of Q_j and G_j the gradient of M_j, that of A_j is skew(M_jᵀ G_j).

    Returns:
        For the patch factors (batch, m, m), m their larger side, and for the squares (batch, L, n, n).
    """
    shape = factors.shape
    with full_precision(gradient):
        patch, squares = factors.matrices()
        product, lefts = _patch(factors), []
        for number in reversed(range(len(shape.axes))):
            lefts.append(_left(factors, product, number))
            product = _times(lefts[-1], squares[:, number]) if number else product
        upstream, turns = shape.folded(gradient), torch.empty_like(squares)
        for number, axis in enumerate(shape.axes):
            upstream = _times(upstream, squares[:, number].mT)
            turns[:, number] = lefts.pop().flatten(1, -2).mT @ upstream.flatten(1, -2)
            upstream = unmove(upstream, axis, factors.taken(number))
        upstream = upstream.reshape(patch.shape)
        wide = patch.shape[-2] <= patch.shape[-1]
        return _skew(patch.mT @ upstream if wide else upstream @ patch.mT), _skew(turns)


@torch.no_grad()
def turn(factors: Factors, patch: Tensor, squares: Tensor, longest: float = LONGEST) -> tuple[Factors, float]:
    """The factors turned by skew matrices as `sweep` has them (overwritten), and about how far σ² of one may be off.

    The error is that of `rotation`: infinite where an angle is not finite.
    """
    old, inner = factors.matrices()
    with full_precision(old):
        changes, errors = zip(*(rotation(a, longest) if a.numel() else (a, 0.0) for a in (patch, squares)), strict=True)
        outer = old + (old @ changes[0] if old.shape[-2] <= old.shape[-1] else changes[0] @ old)
        return factors.like(outer, inner + changes[1] @ inner), max(errors)


def polished(factors: Factors) -> Factors:
    """The nearest orthonormal factors: what rounding has added is taken away."""
    patch, squares = factors.matrices()
    return factors.like(polar(patch), polar(squares) if squares.numel() else squares)


def sample(
    shape: KernelShape,
    batch: Sequence[int] = (),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Factors:
    """Factors drawn uniformly from their sets (Haar), with moves of half the channels."""
    rows, n, number = shape.rows, shape.columns, len(shape.axes)
    dtype = dtype or torch.get_default_dtype()
    sides = rows, n * math.prod(shape.patch)
    patch = _haar((*batch, max(sides), min(sides)), generator)
    patch = patch if sides[0] > sides[1] else patch.mT
    squares = _haar((*batch, number, n, n), generator)
    counts = ((n // 2,) * number,) * math.prod(batch)
    patch = patch.reshape(*batch, rows, *shape.patch, n)
    return Factors(shape, patch.to(device, dtype), squares.to(device, dtype), counts)


def _haar(size: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = None if generator is None else generator.device
    q, r = torch.linalg.qr(torch.randn(size, dtype=torch.float64, device=device, generator=generator))
    return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-2)


def _patch(factors: Factors) -> Tensor:
    """(batch, rows, *patch, n)."""
    return factors.patch.reshape(-1, *factors.patch.shape[-2 - len(factors.shape.kernel) :])


def _left(factors: Factors, product: Tensor, number: int) -> Tensor:
    """V S Q_{L-1} … S, which stands left of a square factor, made of the product without the S."""
    return move(product, factors.shape.axes[number], factors.taken(number))


def _times(product: Tensor, matrices: Tensor) -> Tensor:
    return (product.flatten(1, -2) @ matrices).view(product.shape)


def _skew(matrix: Tensor) -> Tensor:
    return (matrix - matrix.mT).mul_(0.5)
