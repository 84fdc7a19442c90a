"""Sorting groups of features, with a Jacobian that is a permutation also at ties.

Groups of up to 16 are sorted by comparator networks (`comparators`, on a GPU `kernels`), larger float32 groups on a
processor, and those of 9 to 16 neighbors, by numpy's vectorized sort, all others by torch's.

A large group of float32 on a processor is sorted together with its indices: a float's bits, read as an integer and
with all but the sign flipped where it is negative, have its order; index and bits share an integer of 64 bits.
"""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .comparators import LARGEST_NETWORK, is_plain, sort_by_network

ROWS_FROM = {True: 9, False: 15}
"""Members from which interleaved float32 groups are sorted as rows on a processor: with a derivative, and without."""


def sort_members(members: Tensor, dim: int, bias: Tensor | None = None) -> Tensor:
    """``members``, or ``members + bias``, sorted ascending along ``dim``, as fast as number, type and place allow.

    The bias has the axes of groups and members, and ones for those after. NaN stays in its group; where a network sorts
    that group, it spreads.
    """
    size, dim = members.shape[dim], dim % members.dim()
    forward_mode = forward_ad._current_level >= 0
    transformed = torch._C._are_functorch_transforms_active()
    plain = not transformed and is_plain(members) and (bias is None or is_plain(bias))
    if plain and members.is_neg():
        members = members.resolve_neg()
    if bias is not None and members.is_floating_point():
        bias = bias.to(members.dtype).resolve_neg()
    if plain and not forward_mode and 1 < size <= LARGEST_NETWORK and members.is_floating_point():
        kernels = _kernels(members.device.type)
        if kernels is not None:
            trained = any(tensor is not None and tensor.requires_grad for tensor in (members, bias))
            return kernels.sort_on_gpu(members, dim, bias, torch.is_grad_enabled() and trained)
    if bias is not None:
        members = members + bias
    if size <= 1:
        return members.clone()  # no alias, as with every other size
    if forward_mode:  # the functions below have no forward derivative
        return members.sort(dim=dim).values
    differentiated = transformed or (torch.is_grad_enabled() and members.requires_grad)
    if torch._C._get_tracing_state() is not None:  # a trace cannot hold functions of our own
        differentiated = False
    rows_from = ROWS_FROM[differentiated] if dim == members.dim() - 1 else LARGEST_NETWORK + 1
    if size >= rows_from and plain and members.is_cpu and members.dtype == torch.float32:
        rows = members.movedim(dim, -1).contiguous()
        ordered = _SortedRows.apply(rows)[0] if differentiated else _by_threads(rows.detach().clone())
        return ordered.movedim(-1, dim)
    if size > LARGEST_NETWORK:
        return members.sort(dim=dim).values
    return sort_by_network(members, dim, plain, differentiated)


@cache
def _kernels(device: str) -> Any:
    """The module of Triton's kernels, where tensors of this device go through them."""
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if (device == "cuda" or interpreted) and importlib.util.find_spec("triton") is not None:
        return importlib.import_module(".kernels", __package__)
    return None


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
