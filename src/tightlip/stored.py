"""What a module holds, read exactly: options as one float64, parameters and buffers as float64 tensors, or a sentence.

A rule is a theorem about the numbers that are really there. An option may have become a string, a NaN, a tensor or an
integer that no float64 equals; a buffer may hold integers, complex numbers or another shape than the constructor gave
it. Then the forward fails, rounds, or computes another function than the rule speaks of.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational, Real
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from .errors import TightlipError
from .linalg.rounding import refuse_inexact, widened


def exact_float(value: Any) -> float | None:
    """The float64 that equals ``value``; None unless it is one real number (or infinity) that a float64 can hold.

    >>> exact_float(3), exact_float(2**53 + 1), exact_float("3"), exact_float(float("nan"))
    (3.0, None, None, None)
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        held = float(value)
    except (OverflowError, ValueError):
        return None
    if math.isinf(held):
        return held if isinstance(value, float) else None
    if isinstance(value, Rational):
        return held if Fraction(held) == Fraction(value) else None
    return held if held == value else None


def stored_number(module: nn.Module, option: str, infinite: bool = False) -> float:
    """An option of a module as a float64, exactly.

    Raises:
        TightlipError: unless it is one finite real number (or ±∞ where ``infinite`` allows it) that a float64 can hold.

    >>> stored_number(nn.LeakyReLU(0.5), "negative_slope")
    0.5
    """
    value = getattr(module, option)
    held = exact_float(value)
    if held is None or (math.isinf(held) and not infinite):
        kind, wanted = type(module).__name__, "a number" if infinite else "a finite number"
        raise TightlipError(f"{kind} has {option} = {brief(value)}: give {wanted} that a float64 holds exactly")
    return held


def stored_integer(module: nn.Module, option: str) -> int:
    """An option of a module as an integer.

    Raises:
        TightlipError: unless it is an ``int`` of at most 32 bits.
    """
    value = getattr(module, option)
    if type(value) is not int or not -(2**31) <= value < 2**31:
        kind = type(module).__name__
        raise TightlipError(f"{kind} has {option} = {brief(value)}: give an integer of at most 32 bits")
    return value


def stored_numbers(module: nn.Module, name: str, shape: Sequence[int] | None = None) -> Float64[Tensor, "..."]:
    """A parameter or buffer of a module as a float64 copy on the CPU, exactly.

    Raises:
        TightlipError: unless it is a dense tensor of finite real floating-point numbers, and has this shape, if one is
            given.

    >>> stored_numbers(nn.BatchNorm1d(2), "running_var")
    tensor([1., 1.], dtype=torch.float64)
    """
    tensor, kind = getattr(module, name), type(module).__name__
    if not isinstance(tensor, Tensor):
        raise TightlipError(f"{kind} has {name} = {brief(tensor)}: restore a tensor")
    if shape is not None and tuple(tensor.shape) != tuple(shape):
        raise TightlipError(f"{kind} has {name} of shape {tuple(tensor.shape)}: restore one of shape {tuple(shape)}")
    refuse_inexact(tensor, f"{name} of {kind}")
    held = widened(tensor)
    if not bool(torch.isfinite(held).all()):
        raise TightlipError(
            f"{name} of {kind} contains NaN or infinity, so nothing can be proven: restore a finite checkpoint"
        )
    return held


def brief(value: Any) -> str:
    """A value as a message can show it: one line of at most 60 characters."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "of more than 40 digits"
    return " ".join(text.split()) if len(text) < 60 else f"{' '.join(text.split())[:57]}…"
