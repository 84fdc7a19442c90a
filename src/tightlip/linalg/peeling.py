"""The factors of an orthonormal convolution kernel, found again from its entries.

Let K = K' S Q with S moving the last h channels by a tap along an axis. Let F and Z be the first and the last slab of K
along that axis, flattened to n columns. Then F Qᵀ has entries in the first n − h columns only, and Z Qᵀ in the last h:

    Q (FᵀF − ZᵀZ) Qᵀ = diag(F'ᵀF', −Z'ᵀZ').

So the rows of Q are eigenvectors of FᵀF − ZᵀZ, those of positive eigenvalues first, and h is the number of negative
ones. K Qᵀ S⁻¹ has one tap less. What is left after the last move is the patch factor, up to rounding: its polar factor
is taken. Of any kernel the same steps make a product near it: of all orthogonal Q these lose least of its two slabs.

**Small eigenvalues.** A vector whose slabs are of size δ has eigenvalues of size δ², too small to be told from rounding
at δ = 1e-8. So they are solved for again, in the subspace of those that are below 1/100 of the largest, where slabs are
small and their rounding too.

**No eigenvalues.** A vector without an entry in either slab may be moved or not, and Q may be any there. This decides
whether the rest is a product. Choices are tried one after the other (`CHOICES`): a basis in which the other axis'
slabs are apart, halves that are as equal as may be, nothing moved that need not be, or all of it; the same with
eigenvalues taken for zero that may be noise; and at last a choice for each move. The one that loses least is kept. So a
kernel with one tap only, such as the identity, is found to be a product of halves, all of which can turn.

**Long kernels along one axis.** Their outer slabs are nearly zero in many directions, and what rounding has done to
those grows from move to move. Random products of 64 channels came back within 1e-13 (float64) and 2e-6 (float32) at 7
taps, 3e-13 and 2e-5 at 9, but at 15 within 1e-6 and 3e-2 only. Keep the factors of such kernels.

In two dimensions not every orthonormal kernel is such a product. Source: Vaidyanathan 1993, chapter 14, for one axis.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from .blocks import Factors, compose
from .kernel_shape import KernelShape
from .moves import unmove
from .polar import polar
from .rounding import all_finite

CHOICES = (
    *((null, still) for null in (0.0, 1e-6, 1e-4) for still in ("half", "all", "none")),
    (1e-2, "half"),
)
"""Eigenvalues taken for zero, as parts of the mean energy of a channel, and what stays of the vectors without any."""

MIXED, MIXED_NULL = 81, 1e-6
"""How many ways are tried in which moves choose differently, and the eigenvalues that are taken for zero in them."""

ENOUGH = 64.0
"""What a product may be off before another choice is tried, in units of rounding and of the kernel's norm."""


def factor(kernel: Float[Tensor, "..."], shape: KernelShape) -> Factors:
    """The factors of kernels (*batch, out, in, *taps): exact for products, and those of a product near any other.

    It is computed in float64 and returned in the kernel's type. `compose` of it is the map into the set of products,
    and does not depend on the size of the kernel.

    Raises:
        TightlipError: for NaN and infinity, for kernels of another shape, and for shapes whose products cannot be found
            again (`KernelShape.refuse_unfactorable`).
    """
    shape.refuse_unfactorable()
    axes = 2 + len(shape.kernel)
    if kernel.dim() < axes or tuple(kernel.shape[-axes:]) != (shape.outputs, shape.inputs, *shape.kernel):
        raise TightlipError(f"a kernel of shape {tuple(kernel.shape)} is not one of {shape}")
    if not all_finite(kernel):
        raise TightlipError("a kernel is NaN or infinite and has no factors: lower the learning rate")
    with torch.no_grad():
        folded = shape.folded(kernel.detach().double())
        eps = torch.finfo(kernel.dtype).eps
        found = [_best(one, shape, eps) for one in folded]
        batch = kernel.shape[:-axes]
        patch = torch.cat([one.patch for one in found]).view(*batch, *found[0].patch.shape[1:])
        squares = torch.cat([one.squares for one in found]).view(*batch, *found[0].squares.shape[1:])
        counts = tuple(one.counts[0] for one in found)
        return Factors(shape, patch.to(kernel.dtype), squares.to(kernel.dtype), counts)


def _best(kernel: Tensor, shape: KernelShape, eps: float) -> Factors:
    """Of one kernel (rows, *taps, n), by the choice that loses least; the first that loses no more than rounding."""
    kernel = _scaled(kernel, min(shape.rows, shape.columns * math.prod(shape.patch)) ** 0.5)
    best, least = None, float("inf")
    for factors in _attempts(kernel[None], shape):
        lost = float(torch.linalg.vector_norm(shape.folded(compose(factors)) - kernel))
        if best is None or lost < least:
            best, least = factors, lost
        if lost <= ENOUGH * eps * float(torch.linalg.vector_norm(kernel)):
            break
    assert best is not None
    return best


def _scaled(kernel: Tensor, size: float) -> Tensor:
    """A kernel as it is or, if its norm is far from that of an orthonormal one, of that norm."""
    if 0.5 * size < float(torch.linalg.vector_norm(kernel)) < 2.0 * size:
        return kernel
    kernel = kernel / kernel.abs().amax().clamp(min=torch.finfo(kernel.dtype).tiny)  # or squares might overflow
    return kernel * (size / torch.linalg.vector_norm(kernel).clamp(min=torch.finfo(kernel.dtype).tiny))


def _attempts(product: Tensor, shape: KernelShape) -> Iterator[Factors]:
    """What the choices make of a kernel; then what a choice for each move does, where vectors are undecided."""
    zeros = float(product.square().sum()) / product.shape[-1]
    for null, undecided in CHOICES if shape.axes else CHOICES[:1]:
        yield from _peeled(product, shape, max(null, 1e-30) * zeros, (undecided,))
    yield from itertools.islice(_peeled(product, shape, MIXED_NULL * zeros, ("half", "all", "none")), MIXED)


def _peeled(
    product: Tensor, shape: KernelShape, zero: float, allowed: Sequence[str], found: Sequence[tuple[Tensor, int]] = ()
) -> Iterator[Factors]:
    """The factors for each way to decide, move by move, by one of the choices that are allowed."""
    if len(found) == len(shape.axes):
        n, counts = product.shape[-1], tuple(count for _, count in found)
        patch = polar(product.reshape(1, shape.rows, -1)).view(product.shape)
        stacked = torch.stack([q for q, _ in found]) if found else product.new_empty(0, n, n)
        yield Factors(shape, patch[0][None], stacked[None], (counts,))
        return
    axis, later = shape.axes[len(found)], shape.axes[len(found) + 1 :]
    other = next((_slabs(product, one) for one in later if one != axis), None)
    for square, count in _squares(_slabs(product, axis), other, zero, allowed):
        rest = unmove(product @ square.mT, axis, [count])
        yield from _peeled(rest, shape, zero, allowed, (*found, (square, count)))


def _slabs(product: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first and the last slab along an axis, (…, n) each."""
    first, last = product.select(2 + axis, 0), product.select(2 + axis, -1)
    return first.flatten(0, -2), last.flatten(0, -2)


def _squares(
    slabs: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor] | None, zero: float, allowed: Sequence[str]
) -> Iterator[tuple[Tensor, int]]:
    """Q and h, see above, for each choice that makes a difference."""
    n = slabs[0].shape[-1]
    rest = torch.eye(n, dtype=slabs[0].dtype, device=slabs[0].device)
    still, late = [], []
    while rest.shape[1]:
        values, vectors = _apart(slabs, rest)
        size = values.abs()
        largest = float(size.max())
        if largest <= zero:
            break
        clear = size >= max(zero, largest / 100)
        still.append(vectors[:, clear & (values > 0)])
        late.append(vectors[:, clear & (values < 0)])
        rest = vectors[:, ~clear]
    if other is not None and rest.shape[1]:
        _, rest = _apart(other, rest)
    left = rest.shape[1]
    half = min(max(n - n // 2 - _width(still), 0), left)
    places = {"half": half, "all": left, "none": 0}
    for stays in dict.fromkeys(places[choice] for choice in allowed):
        q = torch.cat([*still, rest[:, :stays], *late, rest[:, stays:]], 1).mT
        yield polar(q), n - _width(still) - stays


def _apart(slabs: tuple[Tensor, Tensor], basis: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of FᵀF − ZᵀZ on the span of a basis, and its vectors."""
    first, last = slabs[0] @ basis, slabs[1] @ basis
    values, vectors = torch.linalg.eigh(first.mT @ first - last.mT @ last)
    return values, basis @ vectors


def _width(parts: Sequence[Tensor]) -> int:
    return sum(part.shape[1] for part in parts)
