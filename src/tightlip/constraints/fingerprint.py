"""Whether a weight was written to: a mark at every forward pass, a fingerprint over all its bytes at every step.

torch counts the writes to a tensor, but neither those through ``.data`` nor those of fused optimizers. The mark looks
at a sample of the entries. The fingerprint adds up each column's bits, as 32-bit integers times fixed odd numbers,
modulo 2³²: a change of one number in a column always shows. Changed signs may cancel there in pairs, since 2·2³¹ = 0;
the sums of the rows show those, but for signs that cancel in both, such as four in a rectangle of equal numbers.
"""

import math
import zlib
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE = 4096
"""Entries that a mark looks at, where there are as many."""


class Mark(NamedTuple):
    """How a weight looked at a forward pass: which tensor, how often written to, and a sample of it on a CPU."""

    identity: int
    version: int
    sample: float


def fingerprint(weight: Tensor) -> int:
    """A checksum over all bytes of a float32 or float64 matrix (rows, columns) or kernel (rows, …), below 2⁶³."""
    matrix = weight.detach().contiguous().flatten(1)
    bits, odd = matrix.view(torch.int32), _odd_numbers(len(matrix), matrix.device)
    columns = odd @ bits if matrix.is_cpu else (odd[:, None] * bits).sum(0, dtype=torch.int32)  # GPUs lack the first
    return _checksum(columns) << 31 ^ _checksum(matrix.sum(1))


def _checksum(vector: Tensor) -> int:
    return zlib.crc32(vector.cpu().numpy().tobytes())


@cache
def _odd_numbers(count: int, device: torch.device) -> Tensor:
    source = torch.Generator("cpu").manual_seed(0)
    numbers = torch.randint(-(2**30), 2**30, (count,), generator=source, device="cpu") * 2 + 1
    return numbers.to(device, torch.int32)


def mark(weight: Tensor) -> Mark:
    """What is compared at a forward pass."""
    version = 0 if weight.is_inference() else weight._version
    return Mark(id(weight), version, float(sampled(weight).sum()) if weight.is_cpu else 0.0)


def sampled(weight: Tensor) -> Tensor:
    """Entries spread over the matrix: no optimizer's step leaves them alone."""
    entries = weight.detach().reshape(-1)
    return entries[:: _stride(entries.numel(), weight.shape[-1])]


@cache
def _stride(entries: int, width: int) -> int:
    stride = max(1, entries // SAMPLE)
    while math.gcd(stride, width) > 1:  # or the same columns would be looked at in every row
        stride += 1
    return stride
