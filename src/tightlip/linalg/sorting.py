"""Sorting groups of features, with a Jacobian that is a permutation also at ties.

Small groups are sorted by comparator networks, large ones by numpy's vectorized sort.

A network is a fixed list of comparators (i, j): (a_i, a_j) ← (min, max). The forward pass remembers one bit per
comparator and group, whether it swapped; the backward pass undoes the swaps on the gradient's bits,

    d = (g_i xor g_j) and mask,     g_i ← g_i xor d,     g_j ← g_j xor d,

which is exact, moves no index, and costs a fraction of a sort.

A large group of float32 on a processor is sorted together with its indices: a float's bits, read as an integer and
with all but the sign flipped where it is negative, have its order; index and bits share an integer of 64 bits.
Source: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, §5.2.2, Algorithm M).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

LARGEST_NETWORK = 16
"""Members of a group up to which a network is used; beyond, its n·log²(n) comparators cost more than a sort."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def sorting_network(size: int) -> tuple[tuple[int, int], ...]:
    """The comparators (i, j), i < j, that sort any ``size`` numbers: 1, 5, 19 and 63 of them for 2, 4, 8 and 16.

    >>> sorting_network(3)
    ((0, 2), (0, 1), (1, 2))
    """
    return _NETWORKS[size] if size <= LARGEST_NETWORK else tuple(_merge_exchange(size))


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


_NETWORKS = tuple(tuple(_merge_exchange(size)) for size in range(LARGEST_NETWORK + 1))


def sort_members(members: Tensor, dim: int) -> Tensor:
    """``members`` sorted ascending along ``dim``, as fast as their number, type and place allow.

    NaN stays in its group, and within a group of up to 16 it spreads.
    """
    size, dim = members.shape[dim], dim % members.dim()
    if size == 1:
        return members
    if forward_ad._current_level >= 0:  # the functions below have no forward derivative
        return members.sort(dim=dim).values
    transformed = torch._C._are_functorch_transforms_active()
    differentiated = transformed or (torch.is_grad_enabled() and members.requires_grad)
    plain = not transformed and _is_plain(members)
    if size > LARGEST_NETWORK:
        if not plain or not members.is_cpu or members.dtype != torch.float32:
            return members.sort(dim=dim).values
        rows = members.movedim(dim, -1).contiguous()
        ordered = _SortedRows.apply(rows)[0] if differentiated else _by_threads(rows.detach().clone())
        return ordered.movedim(-1, dim)
    if differentiated:
        return _Network.apply(members, dim)[0]  # type: ignore[no-any-return]
    if plain and size == 2:
        return _ordered_pairs(members, dim)
    return _stack(_compared(_unbind(members, dim)), dim)


def _ordered_pairs(members: Tensor, dim: int) -> Tensor:
    """(min, max), written where they belong."""
    ordered = torch.empty_like(members)
    (a, b), (low, high) = members.unbind(dim), ordered.unbind(dim)
    torch.minimum(a, b, out=low)
    torch.maximum(a, b, out=high)
    return ordered


def _is_plain(members: Tensor) -> bool:
    """Whether this is a tensor as any other, and nobody records torch's operations."""
    recorded = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or _get_current_dispatch_mode() is not None
    )
    return type(members) in (Tensor, torch.nn.Parameter) and not recorded


def _compared(parts: list[Tensor], swaps: list[Tensor] | None = None) -> list[Tensor]:
    """The members in order; to ``swaps``, if given, is added whether each comparator swapped."""
    for i, j in sorting_network(len(parts)):
        if swaps is not None:
            swaps.append(parts[i] > parts[j])
        parts[i], parts[j] = torch.minimum(parts[i], parts[j]), torch.maximum(parts[i], parts[j])
    return parts


class _Network(torch.autograd.Function):
    """Members ↦ sorted members, and for each comparator whether it swapped."""

    generate_vmap_rule = True

    @staticmethod
    def forward(members: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        swaps: list[Tensor] = []
        ordered = _compared(_unbind(members, dim), swaps)
        return _stack(ordered, dim), swaps[0][None] if len(swaps) == 1 else torch.stack(swaps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (swaps,) = ctx.saved_tensors
        gradient = gradients[0]
        # in operations that have derivatives and batches where these are asked for
        if torch.is_grad_enabled() or (not torch.compiler.is_compiling() and _is_batched(gradient)):
            return _undo_by_choice(gradient, swaps, ctx.dim), None
        return _undo_by_bits(gradient.resolve_neg(), swaps, ctx.dim), None


def _is_batched(tensor: Tensor) -> bool:
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


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


class _SortedRows(torch.autograd.Function):
    """Rows of float32 ↦ sorted rows, and where each entry came from."""

    @staticmethod
    def forward(rows: Tensor) -> tuple[Tensor, Tensor]:
        bits = rows.view(torch.int32)
        key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64).bitwise_left_shift_(32)
        index = _by_threads(key.bitwise_or_(torch.arange(rows.shape[-1], device=rows.device))).bitwise_and_(0xFFFFFFFF)
        return rows.gather(-1, index), index

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        return torch.empty_like(gradients[0]).scatter(-1, index, gradients[0])


def _by_threads(rows: Tensor) -> Tensor:
    """Sort the last axis of a contiguous tensor in place, by numpy and in as many threads as torch has."""
    array = rows.view(-1, rows.shape[-1]).numpy()
    threads = torch.get_num_threads() if array.size > 1 << 16 else 1
    if threads == 1:
        array.sort(axis=-1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: part.sort(axis=-1), np.array_split(array, threads)))
    return rows
