"""Tensors out of what callers have: tensors as they are, arrays of numpy as copies, anything else in one sentence."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import TightlipError


def as_tensor(given: Any, name: str) -> Tensor:
    """A tensor is detached and shares its memory; an array is copied.

    Args:
        given: What a caller has passed.
        name: What to call it in errors, such as "the training inputs".

    Raises:
        TightlipError: for lists, data frames and everything else, and for arrays that are not of numbers or hide some.

    >>> as_tensor(np.array([1.0, 2.0]), "x")
    tensor([1., 2.], dtype=torch.float64)
    """
    if (isinstance(given, Tensor) and given.is_complex()) or (isinstance(given, np.ndarray) and np.iscomplexobj(given)):
        raise TightlipError(f"{name} must be real numbers, got {given.dtype}: give two columns")
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, np.ndarray):
        kind = type(given).__name__
        how = next((f"its {way}()" for way in ("to_numpy", "toarray") if hasattr(given, way)), "torch.tensor(…)")
        raise TightlipError(f"{name} must be a tensor or a numpy array, got a {kind}: convert with {how}")
    if np.ma.is_masked(given):
        raise TightlipError(f"masked entries of {name} hold nothing: fill them, or drop their rows")
    try:
        return torch.from_numpy(np.array(given, given.dtype.newbyteorder("="), order="C"))  # a row may run backwards
    except TypeError as problem:
        raise TightlipError(f"{name} must be numbers, got an array of {given.dtype}: convert them first") from problem


def refuse_non_finite(values: Tensor, name: str) -> None:
    """Count the rows of ``values`` (N, …) with NaN or infinity.

    Raises:
        TightlipError: if there are any, with their number and the first.
    """
    finite = torch.isfinite(values).flatten(1).all(1) if values.dim() > 1 else torch.isfinite(values)
    if not bool(finite.all()):
        raise TightlipError(
            f"{int((~finite).sum())} of {len(values)} {name} are NaN or infinite in {values.dtype}, the first at index "
            f"{int(finite.long().argmin())}: mend or drop them"
        )


@contextlib.contextmanager
def as_usual() -> Iterator[None]:
    """Tensors are made on the processor and may be trained, whatever device is torch's default, in inference mode too.

    >>> with torch.inference_mode(), as_usual():
    ...     torch.empty(0).is_inference()
    False
    """
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
