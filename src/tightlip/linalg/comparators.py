"""Sorting small groups by networks of comparators, whose backward pass undoes swaps.

A network is a fixed list of comparators (i, j): (a_i, a_j) ← (min, max). The forward pass remembers one byte per
comparator and group, −1 where it swapped; the backward pass undoes the swaps on the gradient's bits,

    d = (g_i xor g_j) and swap,     g_i ← g_i xor d,     g_j ← g_j xor d,

which is exact, moves no index, and costs a fraction of a sort. On a processor both passes go through their input piece
by piece, so that what the comparators hand to each other stays in the cache.
Source: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, §5.2.2, Algorithm M).
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

LARGEST_NETWORK = 16
"""Members of a group up to which a network is used; beyond, its n·log²(n) comparators cost more than a sort."""

PIECE = 1 << 18
"""Numbers per thread that a processor's cache holds a few times over."""

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of so many bytes."""

_REALS = {4: torch.float32, 8: torch.float64}


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


def is_plain(members: Tensor) -> bool:
    """Whether this is a tensor as any other, and nobody records torch's operations."""
    recorded = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or _get_current_dispatch_mode() is not None
    )
    return type(members) in (Tensor, torch.nn.Parameter) and not recorded


def sort_by_network(members: Tensor, dim: int, plain: bool, differentiated: bool) -> Tensor:
    """``members`` sorted along ``dim``; ``plain`` as `is_plain` says."""
    if differentiated:
        return _Network.apply(members, dim, plain)[0]  # type: ignore[no-any-return]
    if not (plain and members.is_cpu):
        return torch.stack(_compared(members.unbind(dim)), dim)
    ordered = torch.empty_like(members)
    for piece, target in _pieces(dim, members, ordered):
        _compare_in_cache(piece, target, dim)
    return ordered


class _Network(torch.autograd.Function):
    """Members ↦ sorted members, and for each comparator −1 where it swapped, else 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(members: Tensor, dim: int, plain: bool) -> tuple[Tensor, Tensor]:
        if not (plain and members.is_cpu):
            swaps: list[Tensor] = []
            return torch.stack(_compared(members.unbind(dim), swaps), dim), torch.stack(swaps)
        groups, comparators = members.select(dim, 0).shape, len(sorting_network(members.shape[dim]))
        ordered, swapped = torch.empty_like(members), members.new_empty((comparators, *groups), dtype=torch.int8)
        for piece, target, swap in _pieces(dim, members, ordered, swaps=swapped):
            _compare_in_cache(piece, target, dim, swap)
        return ordered, swapped

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (swaps,) = ctx.saved_tensors
        gradient, dim = gradients[0], ctx.dim
        # in operations that have derivatives and batches where these are asked for
        if torch.is_grad_enabled() or (not torch.compiler.is_compiling() and is_batched(gradient)):
            return torch.stack(undone_by_choice(gradient.unbind(dim), swaps.unbind()), dim), None, None
        bits = gradient.resolve_neg().view(BITS[gradient.element_size()])
        if not (bits.is_cpu and is_plain(gradient)):
            undone = torch.stack(_undone(bits.unbind(dim), swaps.unbind()), dim)
            return undone.view(gradient.dtype), None, None
        result = torch.empty_like(bits)
        for piece, target, swap in _pieces(dim, bits, result, swaps=swaps):
            _undo_in_cache(piece, target, dim, swap)
        return result.view(gradient.dtype), None, None


_Network.forward.__signature__ = inspect.signature(_Network.forward)  # type: ignore[attr-defined]  # asked for at every call


def is_batched(tensor: Tensor) -> bool:
    """Whether this stands for many tensors, of torch.func.vmap or of a batch of gradients."""
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


def _compared(members: Sequence[Tensor], swaps: list[Tensor] | None = None) -> list[Tensor]:
    """The members in order; to ``swaps``, if given, is added where each comparator swapped."""
    parts = list(members)
    for i, j in sorting_network(len(parts)):
        if swaps is not None:
            swaps.append((parts[i] > parts[j]).to(torch.int8).neg())
        parts[i], parts[j] = torch.minimum(parts[i], parts[j]), torch.maximum(parts[i], parts[j])
    return parts


def _undone(members: Sequence[Tensor], swaps: Sequence[Tensor]) -> list[Tensor]:
    parts = list(members)
    for (i, j), swap in reversed(list(zip(sorting_network(len(parts)), swaps, strict=True))):
        difference = torch.bitwise_xor(parts[i], parts[j]).bitwise_and_(swap.to(parts[i].dtype))
        parts[i], parts[j] = parts[i] ^ difference, parts[j] ^ difference
    return parts


def undone_by_choice(members: Sequence[Tensor], swaps: Sequence[Tensor]) -> list[Tensor]:
    """What the comparators brought the members from, in operations that have derivatives and batches."""
    parts = list(members)
    for (i, j), swap in reversed(list(zip(sorting_network(len(parts)), swaps, strict=True))):
        parts[i], parts[j] = torch.where(swap.bool(), parts[j], parts[i]), torch.where(swap.bool(), parts[i], parts[j])
    return parts


def _pieces(dim: int, *tensors: Tensor, swaps: Tensor | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Views of all tensors along the first axis that fit a cache; the whole where that is the axis to sort."""
    first = tensors[0]
    if not dim or first.numel() <= PIECE * torch.get_num_threads():
        return iter([tensors if swaps is None else (*tensors, swaps)])
    rows = max(1, len(first) * PIECE * torch.get_num_threads() // first.numel())
    parts = [tensor.split(rows) for tensor in tensors]
    return zip(*(parts if swaps is None else [*parts, swaps.split(rows, 1)]), strict=True)


def _compare_in_cache(members: Tensor, target: Tensor, dim: int, swaps: Tensor | None = None) -> None:
    """Write the sorted members to ``target``, and where each comparator swapped to ``swaps``."""
    parts, pairs = _opened(members, dim), _pairs(target, dim)
    to = target.unbind(dim) if pairs is None else (None, None)
    for number, i, j, i_is_done, j_is_done in _network(len(parts), back=False):
        a, b = parts[i], parts[j]
        if swaps is not None:  # the sign of b − a; a comparison would not be vectorized
            sign = (b - a).view(BITS[b.element_size()]).bitwise_right_shift_(8 * b.element_size() - 1)
            swaps[number].copy_(sign)
        parts[i] = torch.minimum(a, b, out=to[i] if i_is_done else None)
        parts[j] = torch.maximum(a, b, out=to[j] if j_is_done else None)
    _interleave_(parts, pairs)


def _undo_in_cache(bits: Tensor, target: Tensor, dim: int, swaps: Tensor) -> None:
    """Write to ``target`` what the comparators brought the members from."""
    parts, pairs = _opened(bits, dim), _pairs(target, dim)
    to = target.unbind(dim) if pairs is None else (None, None)
    for number, i, j, i_is_done, j_is_done in _network(len(parts), back=True):
        difference = torch.bitwise_xor(parts[i], parts[j]).bitwise_and_(swaps[number].to(bits.dtype))
        parts[i] = torch.bitwise_xor(parts[i], difference, out=to[i] if i_is_done else None)
        parts[j] = torch.bitwise_xor(parts[j], difference, out=to[j] if j_is_done else None)
    _interleave_(parts, pairs)


def _opened(members: Tensor, dim: int) -> list[Tensor]:
    """Slices along ``dim``; interleaved ones are copied once, rather than read with gaps by every comparator."""
    if _pairs(members, dim) is not None and members.element_size() == 4 and sys.byteorder == "little":
        first = members.view(torch.int64).squeeze(-1).to(torch.int32)  # the lower half of each pair's bits
        return [first.view(members.dtype), members.select(dim, 1).contiguous()]
    if dim == members.dim() - 1:
        members, dim = members.movedim(dim, 0).contiguous(), 0
    return list(members.unbind(dim))


def _pairs(members: Tensor, dim: int) -> Tensor | None:
    """Interleaved pairs as complex numbers, which torch writes at once instead of with gaps, twice; None for others."""
    real = _REALS.get(members.element_size())
    if real is None or dim != members.dim() - 1 or members.shape[dim] != 2:
        return None
    if not members.is_contiguous() or members.storage_offset() % 2:
        return None
    return torch.view_as_complex(members.view(real))


def _interleave_(parts: list[Tensor], pairs: Tensor | None) -> None:
    if pairs is not None:
        first, second = (part.view(_REALS[part.element_size()]) for part in parts)
        torch.complex(first, second, out=pairs)


@cache
def _network(size: int, back: bool) -> tuple[tuple[int, int, int, bool, bool], ...]:
    """Number and members of each comparator, in the order of the pass, and whether it is the last that they meet."""
    steps = list(enumerate(sorting_network(size)))[:: -1 if back else 1]
    later = [{member for _, pair in steps[place + 1 :] for member in pair} for place in range(len(steps))]
    return tuple((n, i, j, i not in rest, j not in rest) for (n, (i, j)), rest in zip(steps, later, strict=True))
