"""Rows of a sample that need not fit into memory: tensors, arrays, memory maps, read by index, never copied whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import TightlipError
from ..tensors import as_tensor, refuse_non_finite
from .points import exactly

BLOCK = 2**22
"""Numbers that are read at once."""


class Rows:
    """Points (n, …) of one sample; (n,) are points on a line.

    Args:
        given: A tensor, an array or a memory-mapped array of real numbers.
        name: What to call it in errors.
        least: How many points there must be.

    Raises:
        TightlipError: for anything else, or fewer points.
    """

    def __init__(self, given: Any, name: str, least: int = 1) -> None:
        some = as_tensor(given[:1] if isinstance(given, np.ndarray) and given.ndim else given, name)
        if some.layout != torch.strided or some.is_meta or some.is_quantized or some.is_nested:
            kind = f"{some.layout}, {some.dtype}, on {some.device}"
            raise TightlipError(f"{name} must be dense and hold its numbers, got another kind ({kind}): convert it")
        if some.dim() == 0 or len(given) < least or not some.numel():
            raise TightlipError(f"{name} has shape {tuple(given.shape)}: give points (n, …), at least {least}")
        if some.dtype == torch.bool:
            raise TightlipError(f"{name} must hold numbers, got {some.dtype}: convert it")
        self.given, self.name, self.shape = given, name, tuple(given.shape[1:]) or (1,)
        self.device = some.device

    def __len__(self) -> int:
        return len(self.given)

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return int(np.prod(self.shape))

    def take(self, index: slice | Int64[np.ndarray, " k"]) -> Float64[Tensor, "k *shape"]:
        """These points in float64, exactly, on the CPU."""
        if isinstance(self.given, Tensor):
            where = index if isinstance(index, slice) else torch.from_numpy(index).to(self.device)
            part = self.given.detach()[where].cpu()
        else:
            part = as_tensor(self.given[index], self.name)
        return exactly(part.reshape(-1, *self.shape), self.name)

    def blocks(self, index: Int64[np.ndarray, " k"] | None = None) -> Iterator[Float64[Tensor, "b *shape"]]:
        """All points, or those of a sorted index, a few at a time."""
        step = max(1, BLOCK // self.size)
        for first in range(0, len(self) if index is None else len(index), step):
            here = slice(first, first + step)
            yield self.take(here if index is None else index[here])

    def finite_blocks(self) -> Iterator[Float64[Tensor, "b *shape"]]:
        """All points, a few at a time.

        Raises:
            TightlipError: at the first that is NaN or infinite.
        """
        first = 0
        for block in self.blocks():
            finite = torch.isfinite(block.flatten(1)).all(1)
            if not bool(finite.all()):
                worst = first + int(finite.long().argmin())
                raise TightlipError(f"point {worst} of {self.name} is NaN or infinite: mend or drop such points")
            yield block
            first += len(block)

    def range(self) -> tuple[Float64[Tensor, " d"], Float64[Tensor, " d"]]:
        """The least and the largest value of each coordinate, in one pass.

        Raises:
            TightlipError: if any is NaN or infinite.
        """
        low, high = None, None
        for block in self.finite_blocks():
            rows = block.flatten(1)
            low = rows.amin(0) if low is None else torch.minimum(low, rows.amin(0))
            high = rows.amax(0) if high is None else torch.maximum(high, rows.amax(0))
        return low, high  # type: ignore[return-value]


def as_points(given: Any, name: str) -> Float64[Tensor, "n d"]:
    """A copy of the points (n, …), each flattened, or of n numbers, on the CPU; −0 is 0.

    Beyond the copy it takes the memory of a block, so an array may be a file's (``np.load(path, mmap_mode="r")``).

    Raises:
        TightlipError: as of `Rows`, for numbers that float64 does not have exactly, NaN or infinity.
    """
    return _read(Rows(given, name))


def both_points(x: Any, y: Any) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    """Both samples, as `as_points` has them.

    Raises:
        TightlipError: as it does, or if their points are of different shapes: flattened ones would be compared by
            place, whatever stands there.
    """
    first, second = Rows(x, "x"), Rows(y, "y")
    _refuse_unlike(first, second)
    return _read(first), _read(second)


def _read(rows: Rows) -> Float64[Tensor, "n d"]:
    points, first = np.empty((len(rows), rows.size)), 0
    for block in rows.blocks():
        part = points[first : first + len(block)]
        part[:] = block.flatten(1).numpy()
        part += 0.0
        first += len(block)
    found = torch.from_numpy(points)
    refuse_non_finite(found, f"points of {rows.name}")
    return found


def pair_of_rows(x: Any, y: Any, least: int) -> tuple[Rows, Rows]:
    """Both samples.

    Raises:
        TightlipError: as of `Rows`, or if their points are of different shapes.
    """
    first, second = Rows(x, "the first sample", least), Rows(y, "the second sample", least)
    _refuse_unlike(first, second)
    return first, second


def _refuse_unlike(first: Rows, second: Rows) -> None:
    if first.shape != second.shape:
        raise TightlipError(
            f"points of {first.name} have shape {first.shape}, those of {second.name} {second.shape}: give points of "
            "one space"
        )
