"""What can be certified: inputs and labels, as tensors or arrays, whole or batch by batch."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, Part, Splits
from ..errors import TightlipError
from ..tensors import as_tensor

Labeled = tuple[Tensor, Tensor | None]
"""Inputs, and their true classes where these are known."""

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGER = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def batches(x: Any, y: Any, batch_size: int, several: bool = False) -> Iterable[Any]:
    """What to go through: slices of one tensor or array, or the batches as they come.

    Args:
        x: Inputs, or batches.
        y: Labels of inputs.
        batch_size: Rows of a slice.
        several: Whether an input has several labels.

    Raises:
        TightlipError: for inputs or labels that no batch can be made of.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise TightlipError(f"batch_size={batch_size!r} evaluates nothing: give an integer ≥ 1")
    x, y = _whole(x, y)
    if isinstance(x, Tensor | np.ndarray):
        _refuse_misfit(x, y, several)
        slices = [slice(first, first + batch_size) for first in range(0, max(len(x), 1), batch_size)]
        return [(x[part], None if y is None else y[part]) for part in slices]
    if not isinstance(x, Iterable) or isinstance(x, str | dict):
        raise TightlipError(
            f"a {type(x).__name__} cannot be certified: give a tensor or an array, or an iterable of batches such as a "
            "DataLoader"
        )
    if y is not None:
        raise TightlipError("labels of batches come with the batches: give pairs (x, y), and no y beside them")
    return x


def _whole(x: Any, y: Any) -> tuple[Any, Any]:
    """Inputs and labels, which a `Part` brings both; what offers an array as one."""
    if isinstance(x, Dataset | Splits):
        part = "tightlip.data.split(dataset, seed).test" if isinstance(x, Dataset) else "its test"
        raise TightlipError(f"a whole {type(x).__name__} cannot be certified: give one Part, {part}")
    if isinstance(x, Part):
        if y is not None:
            raise TightlipError("a Part brings its labels: give no y beside it, or its images and the labels")
        x, y = x.images, x.labels
    return _table(x), _table(y)


def labeled(batch: Any, several: bool = False) -> Labeled:
    """The inputs and labels of a batch, as tensors; labels as int64, ``several`` of them for each input or one.

    Raises:
        TightlipError: for what is neither inputs nor a pair of inputs and labels that fit.
    """
    x, y = (*batch, None)[:2] if isinstance(batch, tuple | list) and 1 <= len(batch) <= 2 else (batch, None)
    x, y = _table(x), _table(y)
    _refuse_misfit(x, y, several)
    return _tensor(x), None if y is None else _classes(_tensor(y))


def _table(values: Any) -> Any:
    """Whatever offers an array, as one; all else as it is. Masked entries are refused."""
    if np.ma.is_masked(values):
        raise TightlipError("masked entries of an array hold nothing: fill them, or drop their rows")
    return values if isinstance(values, Tensor) or not hasattr(values, "__array__") else np.asarray(values)


def _refuse_misfit(x: Any, y: Any, several: bool) -> None:
    for values in (x, y):
        if values is not None and not isinstance(values, Tensor | np.ndarray):
            raise TightlipError(
                f"certificates are made for tensors or arrays x, or pairs (x, y), not for a {type(values).__name__}: "
                "convert it with torch.as_tensor"
            )
    if x is None or not _is_real(x) or len(x.shape) < 2:
        kind = "nothing" if x is None else f"inputs of shape {tuple(x.shape)} and {x.dtype}"
        raise TightlipError(f"{kind} cannot be certified: give (batch, …) of float16, bfloat16, float32 or float64")
    if y is not None and (len(y.shape) != 1 + several or y.shape[0] != len(x) or not _is_integer(y)):
        wanted = "a row of 0 and 1 for each" if several else "one integer for each"
        raise TightlipError(f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit {len(x)} inputs: give {wanted}")


def _is_real(x: Tensor | np.ndarray) -> bool:
    if isinstance(x, Tensor):
        return x.dtype in _REAL and x.layout == torch.strided and not x.is_meta
    return x.dtype.kind == "f" and x.dtype.itemsize <= 8


def _is_integer(y: Tensor | np.ndarray) -> bool:
    if isinstance(y, Tensor):
        return y.dtype in (*_INTEGER, *_UNSIGNED) and y.layout == torch.strided and not y.is_meta
    return y.dtype.kind in "iub"


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor, which shares its memory, or a copy of an array, which may be of the other byte order."""
    if isinstance(values, np.ndarray):
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return as_tensor(values, "inputs and labels")


def _classes(y: Tensor) -> Tensor:
    if y.dtype in _UNSIGNED:  # of which torch knows no minimum, and int64 not all
        y = torch.from_numpy(np.minimum(y.cpu().numpy().astype(np.uint64), 2**62).astype(np.int64))
    return y.to(torch.int64)
