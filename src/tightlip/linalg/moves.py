"""Moves of channels by one tap: the last h of n channels are multiplied by z, so a kernel has one tap more.

Products are (batch, rows, *taps, n), and each kernel of a batch has an h of its own.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def move(product: Tensor, axis: int, counts: Sequence[int]) -> Tensor:
    """One tap more along ``axis``: the last ``counts[b]`` channels of kernel b begin one tap later."""
    dim, taps, n = 2 + axis, product.shape[2 + axis], product.shape[-1]
    size = list(product.shape)
    size[dim] = taps + 1
    result = product.new_zeros(size)
    for kernels, count in _by_count(counts):
        still, late = (kernels, ..., slice(n - count)), (kernels, ..., slice(n - count, n))
        result.narrow(dim, 0, taps)[still] = product[still]
        result.narrow(dim, 1, taps)[late] = product[late]
    return result


def unmove(product: Tensor, axis: int, counts: Sequence[int]) -> Tensor:
    """The adjoint of `move` and its inverse on its range: one tap less, and what each channel has there is lost."""
    dim, taps, n = 2 + axis, product.shape[2 + axis] - 1, product.shape[-1]
    size = list(product.shape)
    size[dim] = taps
    result = product.new_empty(size)
    for kernels, count in _by_count(counts):
        still, late = (kernels, ..., slice(n - count)), (kernels, ..., slice(n - count, n))
        result[still] = product.narrow(dim, 0, taps)[still]
        result[late] = product.narrow(dim, 1, taps)[late]
    return result


def _by_count(counts: Sequence[int]) -> Iterator[tuple[slice | Tensor, int]]:
    """The kernels that move equally many channels, and how many; a slice if that is all of them."""
    if len(set(counts)) == 1:
        yield slice(None), counts[0]
        return
    for count in sorted(set(counts)):
        yield torch.tensor([number for number, other in enumerate(counts) if other == count]), count
