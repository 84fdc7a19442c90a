"""Sorting small groups on a GPU: a Triton kernel that sorts, and one that takes a gradient back.

Both read and write each number once. The members of a group lie in registers, the comparators of their network are
unrolled, and where they swapped is saved as the bits of one integer per group: half a byte per number in groups of 2
and 16, a quarter in those of 4. A bias is added as the members are read. This module needs Triton, which torch's builds
for CUDA bring along, and is loaded when the first tensor on a GPU is sorted; with TRITON_INTERPRET=1 in the environment
tensors on a processor go through it as well, slowly, which is how it is tested.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .comparators import BITS, is_batched, is_plain, sorting_network, undone_by_choice

LANES = 1024
"""Numbers that one program of a kernel holds."""


@triton.jit
def _first(group, after, SIZE: tl.constexpr):
    """Where the first member of a group lies; in this order, or a product of two sizes could overflow."""
    return group // after * SIZE * after + group % after


@triton.jit
def _replaced(parts, i: tl.constexpr, low, j: tl.constexpr, high):
    """The members with those at i < j replaced."""
    return parts[:i] + (low,) + parts[i + 1 : j] + (high,) + parts[j + 1 :]


@triton.jit
def _sort(
    members,
    bias,
    ordered,
    codes,
    groups,
    after,
    features,
    inner,
    SIZE: tl.constexpr,
    NETWORK: tl.constexpr,
    CODE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Members (…, SIZE, …) with ``after`` numbers on the axes after; ``place // inner % features`` has the bias."""
    group = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = group < groups
    place = _first(group, after, SIZE)
    kind: tl.constexpr = members.dtype.element_ty
    wide: tl.constexpr = tl.float32 if kind.primitive_bitwidth == 16 else kind
    parts = ()
    for _ in tl.static_range(SIZE):
        value = tl.load(members + place, mask=inside).to(wide)
        if bias is not None:
            value += tl.load(bias + place // inner % features, mask=inside).to(wide)
        parts = parts + (value.to(kind).to(wide),)
        place = place + after
    code = tl.zeros((BLOCK,), CODE)
    for number in tl.static_range(len(NETWORK)):
        a = parts[NETWORK[number][0]]
        b = parts[NETWORK[number][1]]
        code |= (a > b).to(CODE) << number
        low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
        high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
        parts = _replaced(parts, NETWORK[number][0], low, NETWORK[number][1], high)
    place = _first(group, after, SIZE)
    for member in tl.static_range(SIZE):
        tl.store(ordered + place, parts[member].to(kind), mask=inside)
        place = place + after
    if codes is not None:
        tl.store(codes + group, code.to(codes.dtype.element_ty), mask=inside)


@triton.jit
def _undo(
    bits,
    codes,
    undone,
    groups,
    after,
    SIZE: tl.constexpr,
    NETWORK: tl.constexpr,
    CODE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The comparators backwards, on a gradient's bits; ``NETWORK`` is reversed already."""
    group = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = group < groups
    place = _first(group, after, SIZE)
    code = tl.load(codes + group, mask=inside).to(CODE)
    parts = ()
    for _ in tl.static_range(SIZE):
        parts = parts + (tl.load(bits + place, mask=inside),)
        place = place + after
    for step in tl.static_range(len(NETWORK)):
        a = parts[NETWORK[step][0]]
        b = parts[NETWORK[step][1]]
        swap = (code >> (len(NETWORK) - 1 - step)) & 1 != 0
        parts = _replaced(parts, NETWORK[step][0], tl.where(swap, b, a), NETWORK[step][1], tl.where(swap, a, b))
    place = _first(group, after, SIZE)
    for member in tl.static_range(SIZE):
        tl.store(undone + place, parts[member], mask=inside)
        place = place + after


def sort_on_gpu(members: Tensor, dim: int, bias: Tensor | None, differentiated: bool) -> Tensor:
    """``members + bias`` sorted along ``dim``; the bias as `sort_members` takes it."""
    if differentiated:
        return _Sorted.apply(members, bias, dim)[0]  # type: ignore[no-any-return]
    return _launch_sort(members, bias, dim, save=False)[0]


class _Sorted(torch.autograd.Function):
    """Members ↦ sorted members, and a code per group: bit n is set where comparator n swapped."""

    @staticmethod
    def forward(members: Tensor, bias: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
        ordered, codes = _launch_sort(members, bias, dim, save=True)
        assert codes is not None
        return ordered, codes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.bias_shape = None if inputs[1] is None else inputs[1].shape
        ctx.dim = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (codes,) = ctx.saved_tensors
        gradient, dim = gradients[0], ctx.dim
        if torch.is_grad_enabled() or not is_plain(gradient) or is_batched(gradient):
            number = torch.arange(len(sorting_network(gradient.shape[dim])), device=codes.device)
            swaps = (codes >> number.view(-1, *[1] * codes.dim())) & 1
            undone = torch.stack(undone_by_choice(gradient.unbind(dim), swaps.unbind()), dim)
        else:
            undone = _launch_undo(gradient, codes, dim)
        return undone, None if ctx.bias_shape is None else undone.sum_to_size(ctx.bias_shape), None


def _launch_sort(members: Tensor, bias: Tensor | None, dim: int, save: bool) -> tuple[Tensor, Tensor | None]:
    members = members.contiguous()
    ordered, size, after = torch.empty_like(members), members.shape[dim], members.shape[dim + 1 :].numel()
    codes = members.new_empty(members.select(dim, 0).shape, dtype=_code_type(size)) if save else None
    features = inner = 1
    if bias is not None:
        bias = bias.contiguous()
        features, inner = bias.numel(), members.shape[members.dim() + 2 - bias.dim() :].numel()
    _launch(_sort, (members, bias, ordered, codes), (after, features, inner), size, sorting_network(size))
    return ordered, codes


def _launch_undo(gradient: Tensor, codes: Tensor, dim: int) -> Tensor:
    bits = gradient.resolve_neg().contiguous().view(BITS[gradient.element_size()])
    undone, size, after = torch.empty_like(bits), bits.shape[dim], bits.shape[dim + 1 :].numel()
    _launch(_undo, (bits, codes, undone), (after,), size, sorting_network(size)[::-1])
    return undone.view(gradient.dtype)


def _launch(
    kernel: Any, tensors: tuple[Any, ...], sizes: tuple[int, ...], size: int, network: tuple[tuple[int, int], ...]
) -> None:
    """Run a kernel on groups of ``size`` of the first tensor, if there are any."""
    groups, block = tensors[0].numel() // size, LANES // triton.next_power_of_2(size)
    options = {
        "SIZE": size,
        "NETWORK": network,
        "CODE": tl.int64 if _code_type(size) == torch.int64 else tl.int32,
        "INDEX": tl.int64 if tensors[0].numel() >= 2**31 - LANES else tl.int32,
        "BLOCK": block,
    }
    if groups:
        with torch.cuda.device_of(tensors[0]):
            kernel[triton.cdiv(groups, block),](*tensors, groups, *sizes, **options)


def _code_type(size: int) -> torch.dtype:
    """The smallest integers with a bit for each comparator."""
    comparators = len(sorting_network(size))
    return next(kind for width, kind in BITS.items() if comparators <= 8 * width)
