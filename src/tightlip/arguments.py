"""Arguments of a caller, as what is needed, or one sentence: what must be given, and what came instead."""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .choices import hint
from .errors import TightlipError
from .tensors import as_tensor

FLATTEN = "put nn.Flatten() in front of the network, or give x.flatten(1)"
"""What to do with inputs of several axes, such as images, where a network takes rows."""


def integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number; numpy's count, floats and booleans do not.

    >>> integer("steps", 3)
    3
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= (math.inf if most is None else most):
        wanted = f"≥ {least}" if most is None else f"from {least} to {most}"
        raise TightlipError(f"{name} must be an integer {wanted}, got {value!r}")
    return int(value)


def number(name: str, value: Any, above: float = -math.inf, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number, ``above`` < number, ``least`` ≤ number ≤ ``most``; tensors of one number count.

    >>> number("radius", 0.5, above=0)
    0.5
    """
    real = _real(value.item() if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1 else value)
    if not (above < real and least <= real <= most and math.isfinite(real)):
        limits = {f"> {above:g}": above, f"≥ {least:g}": least, f"≤ {most:g}": most}
        wanted = " and ".join(words for words, limit in limits.items() if math.isfinite(limit))
        raise TightlipError(f"{name} must be a finite number{' ' * bool(wanted)}{wanted}, got {value!r}")
    return real


def _real(value: Any) -> float:
    """In float64; NaN for what is no real number, or an integer beyond its range."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def probability(name: str, value: Any, usual: float) -> float:
    """A number between 0 and 1, neither of them.

    >>> probability("level", 0.99, usual=0.95)
    0.99
    """
    if (found := number(name, value, above=0)) >= 1:
        raise TightlipError(f"{name} must be a number between 0 and 1, got {value!r}: {usual} is usual")
    return found


def confidence_level(name: str, value: Any) -> float:
    """A number between 0 and 1 that leaves less than 1, the risk.

    >>> confidence_level("level", 0.99)
    0.99
    """
    found = probability(name, value, usual=0.95)
    if 1 - found == 1:
        raise TightlipError(f"{name} must be a number between 0 and 1, got {value!r}: 0.95 is usual")
    return found


def flag(name: str, value: Any) -> bool:
    """True or False, and no word for one.

    >>> flag("resume", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise TightlipError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def device(value: Any) -> torch.device:
    """A device of torch's that computes here.

    >>> device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(value)
        if torch.empty(1, device=found).is_meta:
            raise RuntimeError("meta tensors hold no numbers")
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as problem:
        near = hint(str(value), ("cpu", "cuda")) if str(value) not in ("cpu", "cuda") else ""
        raise TightlipError(
            f"device {value!r} is not available here{near}: give 'cpu', or 'cuda' where there is a GPU and a torch "
            "built for it"
        ) from problem
    return found


def tensor(name: str, value: Any) -> Tensor:
    """A tensor as it is, with its graph; an array of numpy as `as_tensor` takes it."""
    return value if isinstance(value, Tensor) else as_tensor(value, name)


def matrix(name: str, value: Any) -> Tensor:
    """As `tensor`, of shape (…, rows, columns) and floating point."""
    matrices = tensor(name, value)
    if matrices.dim() < 2 or not (matrices.is_floating_point() or matrices.is_complex()):
        raise TightlipError(
            f"{name} must be a floating-point matrix (…, rows, columns), got shape {tuple(matrices.shape)} of "
            f"{matrices.dtype}"
        )
    return matrices


def vector(name: str, value: Any) -> Tensor:
    """Finite numbers in a row, as a tensor in float64.

    >>> vector("normal", [3, 4])
    tensor([3., 4.], dtype=torch.float64)
    """
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if numbers.dim() != 1 or not len(numbers) or not torch.isfinite(numbers).all():
        raise TightlipError(f"{name} must be a list of finite numbers, got {value!r}")
    return numbers


def taking(name: str, value: Any, *arguments: str) -> None:
    """Refuse what cannot be called with so many arguments, before it is.

    >>> taking("score", max, "network", "inputs", "targets")
    """
    wanted = f"{name} must be a function of ({', '.join(arguments)})"
    if not callable(value) or isinstance(value, Tensor):
        raise TightlipError(f"{wanted}, got {value!r}")
    try:
        inspect.signature(value).bind(*arguments)
    except TypeError as problem:
        raise TightlipError(f"{wanted}, and {getattr(value, '__name__', repr(value))} is not: {problem}") from problem
    except ValueError:  # a builtin that does not tell
        return


def called(network: Callable[[Tensor], Any], x: Tensor) -> Any:
    """``network(x)``.

    Raises:
        TightlipError: if the shape of x does not fit, or this is nothing that can be called.
    """
    if not callable(network):
        raise TightlipError(f"network must be a module or a function of tensors, got {network!r}")
    try:
        return network(x)
    except RuntimeError as error:
        if not re.search("mat1 and mat2|size of tensor|sizes of tensors|expected input|Expected \\dD", str(error)):
            raise
        reason = (unflattened(network.modules(), x.shape) if isinstance(network, nn.Module) else None) or error
        raise TightlipError(f"inputs of shape {tuple(x.shape)} do not fit the network: {reason}") from error


def unflattened(layers: Iterable[nn.Module], shape: Sequence[int]) -> str | None:
    """Why inputs of several axes do not fit, where they only have to be flattened for the first linear layer.

    >>> print(unflattened([nn.Linear(784, 10)], (5, 1, 28, 28)))
    its first linear layer takes rows of 784 values, and each input is 1×28×28: put nn.Flatten() in front of the
    network, or give x.flatten(1)
    """
    first = next((layer for layer in layers if isinstance(layer, nn.Linear)), None)
    if first is None or len(shape) < 3 or math.prod(shape[1:]) != first.in_features:
        return None
    each = "×".join(map(str, shape[1:]))
    return f"its first linear layer takes rows of {first.in_features} values, and each input is {each}: {FLATTEN}"


def output_of(network: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """What a network makes of inputs, if that is one tensor with a row for each of them.

    Raises:
        TightlipError: as of `called`; for several outputs in a container, or another number of rows.
    """
    y = called(network, x)
    if not isinstance(y, Tensor):
        raise TightlipError(
            f"the network must return one tensor, and it returned a {type(y).__name__}: pick the output that "
            "is meant, as in tightlip.trace(network).only(0)"
        )
    if y.dim() == 0 or len(y) != len(x):
        raise TightlipError(
            f"the network must return one row for each input, and returned shape {tuple(y.shape)} for {len(x)} inputs"
        )
    return y
