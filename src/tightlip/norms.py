"""The norms of the library: p in {1, 2, ∞}, their duals, and operator norms where a closed form exists.

    ‖W‖_{p→q} = sup_{‖x‖_p = 1} ‖Wx‖_q

is a maximum over columns for p = 1, a maximum over rows for q = ∞, and the largest singular value for p = q = 2;
these six are exactly the pairs with p ≤ q. The others have no closed form (∞→1 is NP-hard). Inputs may be measured in
any other p-norm, p ≥ 1, where the outputs are in the ∞-norm: that maximum over rows is closed for all p.
Source: paper §2.2. What is computed here is as exact as floating point; *proven* bounds are `audit`'s.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .arguments import matrix
from .errors import TightlipError

NORMS = (1.0, 2.0, math.inf)
"""The norms that the library speaks of."""

PAIRS = tuple((p, q) for p in NORMS for q in NORMS if p <= q)
"""The (input, output) norms with a closed form: all with p ≤ q."""


def as_norm(p: float | str) -> float:
    """The norm meant by ``p``: 1, 2, ``math.inf``, or the strings "1", "2", "inf".

    Raises:
        TightlipError: for any other value.

    >>> as_norm("inf")
    inf
    """
    try:
        value = math.nan if isinstance(p, bool) else float(p)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if value not in NORMS:
        known = isinstance(p, str | float) or (isinstance(p, int) and abs(p) < 1e9)
        raise TightlipError(f"no norm is called {repr(p) if known else f'a {type(p).__name__}'}: choose 1, 2 or inf")
    return value


def as_exponent(p: float | str) -> float:
    """The p of any p-norm, p ≥ 1: a number, ``math.inf``, or either as a string.

    Raises:
        TightlipError: for any other value.

    >>> as_exponent(3)
    3.0
    """
    try:
        value = float(p)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if not value >= 1.0:
        known = isinstance(p, str | float) or (isinstance(p, int) and abs(p) < 1e9)
        raise TightlipError(
            f"no norm is called {repr(p) if known else f'a {type(p).__name__}'}: choose a number from 1 to inf"
        )
    return value


def norm_name(p: float) -> str:
    """How a norm is written in files and tables: "1", "2", "inf"; "3", "1.5"."""
    value = as_exponent(p)
    return f"{value:g}" if value in NORMS or value == round(value, 4) else repr(value)


def dual(p: float) -> float:
    """The exponent p* with 1/p + 1/p* = 1, for any p ≥ 1: for 1, 2 and ∞ exact, else to the nearest float64.

    Raises:
        TightlipError: for p below 1.

    >>> dual(math.inf), dual(2), dual(1), dual(3)
    (1.0, 2.0, inf, 1.5)
    """
    p = as_exponent(p)
    return math.inf if p == 1.0 else 1.0 if p == math.inf else p / (p - 1.0)


def operator_norm(weight: Float[Tensor, "*batch out in"], p: float, q: float | None = None) -> Float[Tensor, "*batch"]:
    """‖W‖_{p→q} of each matrix, for p ≤ q in {1, 2, ∞}, and p→∞ for any p ≥ 1; ``q=None`` means q = p.

    Raises:
        TightlipError: for a pair without a closed form.

    >>> operator_norm(torch.tensor([[3.0, -4.0]]), math.inf)
    tensor(7.)
    """
    weight, q = matrix("weight", weight), as_norm(p if q is None else q)
    p = as_exponent(p) if q == math.inf else as_norm(p)
    if p == 1:
        return torch.linalg.vector_norm(weight, q, dim=-2).amax(-1)
    if q == math.inf:
        return torch.linalg.vector_norm(weight, dual(p), dim=-1).amax(-1)
    if p == q == 2:
        return torch.linalg.matrix_norm(weight, 2)
    raise TightlipError(f"the {norm_name(p)}→{norm_name(q)} operator norm has no closed form: ask for p ≤ q")
