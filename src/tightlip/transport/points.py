"""Numbers of a caller as float64, exactly, and weights."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from ..errors import TightlipError
from ..linalg.rounding import refuse_inexact, widened
from ..tensors import as_tensor, refuse_non_finite

LARGEST_INTEGER = 2**53
"""Integers up to here are float64 exactly."""


def as_weights(given: Any, of: str, count: int) -> Float64[Tensor, " n"] | None:
    """The weights of so many points of x or y, a copy on the CPU; None for equal ones stays None.

    Raises:
        TightlipError: for another number of them, numbers that float64 does not have exactly, NaN, infinity, negative
            weights, or none above zero.
    """
    if given is None:
        return None
    name = f"the weights of {of}"
    weights = as_tensor(given, name)
    if weights.shape != (count,):
        raise TightlipError(f"{name} have shape {tuple(weights.shape)}: give one for each of {count} points")
    weights = exactly(weights, name)
    refuse_non_finite(weights, f"weights of {of}")
    if bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise TightlipError(f"{name} must not be negative, nor all zero: the least is {float(weights.min()):g}")
    return weights


def exactly(values: Shaped[Tensor, "*shape"], name: str) -> Float64[Tensor, "*shape"]:
    """The same numbers in float64, on the CPU.

    Raises:
        TightlipError: for numbers that float64 does not have exactly, and for bits.
    """
    if values.is_floating_point():
        refuse_inexact(values, name)
        return widened(values)
    if not values.numel():
        return torch.empty(values.shape, dtype=torch.float64)
    if values.dtype != torch.bool and values.layout == torch.strided and not values.is_meta:
        whole = _array(values)
        if whole is not None and int(whole.min()) >= -LARGEST_INTEGER and int(whole.max()) <= LARGEST_INTEGER:
            return torch.from_numpy(whole.astype(np.float64))
    raise TightlipError(
        f"{name} must be numbers that float64 has exactly, such as integers up to 2⁵³, got {values.dtype}: convert them"
    )


def _array(values: Tensor) -> np.ndarray | None:
    """As an array, since torch has no minimum of some kinds of integers; None for kinds that numpy has not."""
    try:
        return values.cpu().numpy()
    except TypeError:
        return None
