"""Sorting small groups by comparator networks, with a Jacobian that is a permutation also at ties.

A network is a fixed list of comparators (i, j): (a_i, a_j) ← (min, max). The forward pass remembers one bit per
comparator and group, whether it swapped; the backward pass undoes the swaps on the gradient's bits,

    d = (g_i xor g_j) and mask,     g_i ← g_i xor d,     g_j ← g_j xor d,

which is exact, moves no index, and costs a fraction of a sort.
Source: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, §5.2.2, Algorithm M).
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

LARGEST_NETWORK = 16
"""Members of a group up to which a network is used; beyond, its n·log²(n) comparators cost more than a sort."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@cache
def sorting_network(size: int) -> tuple[tuple[int, int], ...]:
    """The comparators (i, j), i < j, that sort any ``size`` numbers: 1, 5, 19 and 63 of them for 2, 4, 8 and 16.

    >>> sorting_network(3)
    ((0, 2), (0, 1), (1, 2))
    """
    return tuple(_merge_exchange(size))


def _merge_exchange(size: int) -> Iterator[tuple[int, int]]:
    top = 1 << max(0, (size - 1).bit_length() - 1)
    p = top
    while p > 0 and size > 1:
        q, r, d = top, 0, p
        while True:
            yield from ((i, i + d) for i in range(size - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


def sort_members(members: Tensor, dim: int) -> Tensor:
    """``members`` sorted ascending along ``dim``, by a network where it is short, by torch's sort where it is long."""
    size, dim = members.shape[dim], dim % members.dim()
    if size > LARGEST_NETWORK:
        return members.sort(dim=dim).values
    if size == 1:
        return members
    differentiated = torch.is_grad_enabled() and members.requires_grad
    if differentiated or torch._C._are_functorch_transforms_active():
        return _Network.apply(members, dim)[0]  # type: ignore[no-any-return]
    return _stack(_compared(_unbind(members, dim)), dim)


def _compared(parts: list[Tensor]) -> list[Tensor]:
    """The values alone."""
    for i, j in sorting_network(len(parts)):
        parts[i], parts[j] = torch.minimum(parts[i], parts[j]), torch.maximum(parts[i], parts[j])
    return parts


class _Network(torch.autograd.Function):
    """Members ↦ sorted members, and for each comparator whether it swapped."""

    generate_vmap_rule = True

    @staticmethod
    def forward(members: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        parts, swaps = _unbind(members, dim), []
        for i, j in sorting_network(len(parts)):
            swaps.append(parts[i] > parts[j])
            parts[i], parts[j] = torch.minimum(parts[i], parts[j]), torch.maximum(parts[i], parts[j])
        return _stack(parts, dim), swaps[0][None] if len(swaps) == 1 else torch.stack(swaps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (swaps,) = ctx.saved_tensors
        gradient = gradients[0]
        # where a second derivative is asked for, in operations that have one
        undo = _undo_by_choice if torch.is_grad_enabled() else _undo_by_bits
        return undo(gradient, swaps, ctx.dim), None


def _undo_by_choice(gradient: Tensor, swaps: Tensor, dim: int) -> Tensor:
    parts = list(gradient.unbind(dim))
    for (i, j), swap in reversed(list(zip(sorting_network(len(parts)), swaps, strict=True))):
        parts[i], parts[j] = torch.where(swap, parts[j], parts[i]), torch.where(swap, parts[i], parts[j])
    return torch.stack(parts, dim)


def _undo_by_bits(gradient: Tensor, swaps: Tensor, dim: int) -> Tensor:
    bits = _BITS[gradient.element_size()]
    parts = _unbind(gradient.view(bits), dim)
    for (i, j), swap in reversed(list(zip(sorting_network(len(parts)), swaps, strict=True))):
        difference = torch.bitwise_xor(parts[i], parts[j]).bitwise_and_(swap.to(bits).neg_())
        parts[i], parts[j] = parts[i] ^ difference, parts[j] ^ difference
    return _stack(parts, dim).view(gradient.dtype)


def _unbind(members: Tensor, dim: int) -> list[Tensor]:
    """Slices along ``dim``; interleaved ones are copied once, rather than read with gaps by every comparator."""
    return [part.contiguous() if dim == members.dim() - 1 else part for part in members.unbind(dim)]


def _stack(parts: list[Tensor], dim: int) -> Tensor:
    """``torch.stack``, which is slow along a last axis; there the copy is left to whoever needs it contiguous."""
    return torch.stack(parts).movedim(0, dim) if dim == parts[0].dim() else torch.stack(parts, dim)
