"""Evaluation in float64, with a proven bound on how far it strays from exact arithmetic.

Through a layer with audited 2→2 constant c, a distance between the computed and the exact input becomes

    error ← c·error + (share of ‖input‖₂) + (share of ‖output‖₂),

the shares stated by the layer's rule (`Roundoff`). A `Residual` is followed into its branch.
"""

import copy
import math
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..audit import UNKNOWN, Gains, chain, gains, within
from ..errors import TightlipError
from ..layers import Residual, halfway
from ..linalg.rounding import SMALLEST_SQUARED, UNDERFLOW, UNIT_ROUNDOFF, round_up


class Step(NamedTuple):
    """A layer and what is known of it: its `Gains`, or, for a `Residual`, the steps of its branch."""

    layer: nn.Module
    known: "Gains | list[Step]"


def steps(network: nn.Module) -> list[Step]:
    """A float64 copy of ``network`` in eval mode, layer by layer, each audited once.

    Raises:
        TightlipError: if the audit refuses a layer, or a rule states no roundoff.
    """
    return _steps(copy.deepcopy(network).eval().double(), "")


def _steps(network: nn.Module, place: str) -> list[Step]:
    return [Step(layer, _known(layer, name)) for name, layer in chain(network, place)]


def _known(layer: nn.Module, name: str) -> Gains | list[Step]:
    if type(layer) is Residual:
        return _steps(layer.f, within(name, "f"))
    known = gains(layer, name)
    if known.roundoff == UNKNOWN:
        kind = type(layer).__name__
        raise TightlipError(f"the rule of {kind} states no roundoff: return Gains(…, Roundoff(…)) to certify")
    return known


def evaluate(network: list[Step], x: Float64[Tensor, "batch *shape"]) -> tuple[Tensor, Float64[Tensor, " batch"]]:
    """The outputs and, per input, a bound on their distance in the 2-norm from the exact ones; may write into ``x``.

    Raises:
        TightlipError: if the inputs do not fit the network, or a layer changes their number.
    """
    shape = tuple(x.shape)
    try:
        return _through(network, x, torch.zeros(len(x), dtype=torch.float64, device=x.device))
    except RuntimeError as problem:
        raise TightlipError(f"inputs of shape {shape} do not fit the network: {problem}") from problem


def _through(network: list[Step], x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    for layer, known in network:
        x, error = _layer(layer, known, x, error) if isinstance(known, Gains) else _residual(known, x, error)
    return x, error


def _layer(layer: nn.Module, known: Gains, x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    size = _size(x)
    y = layer(x)
    if len(y) != len(error):
        raise TightlipError(f"{type(layer).__name__} changes the number of examples: keep the batch axis apart")
    spread = round_up(Fraction(known.table[2.0, 2.0])) if (2.0, 2.0) in known.table else math.inf
    local = known.roundoff.input * size + known.roundoff.output * _size(y) + UNDERFLOW
    return y, _safely(torch.where(error == 0, 0.0, spread * error) + local)


def _residual(branch: list[Step], x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """(x + f(x)) / 2, and how far it strays.

    Let x be within e of the exact input a, and the computed y within e_f of f(a), as the branch itself reports when it
    starts from e. Then (x + y)/2 is within (e + e_f)/2 of (a + f(a))/2. Halving is exact but for underflow, and an
    addition errs by at most u·|its result| in each entry, so by u·‖result‖₂ in all; 2u covers the rounding of the size.
    """
    half = x / 2  # before f, which may work in place
    y, inner = _through(branch, x, error)
    result = halfway(half, y)
    return result, _safely((error + inner) / 2 + 2.0 * UNIT_ROUNDOFF * _size(result) + UNDERFLOW)


def _safely(error: Tensor) -> Tensor:
    """A sum of a few products of numbers ≥ 0, raised by more than its own rounding."""
    return error * (1.0 + 64.0 * UNIT_ROUNDOFF)


def _size(x: Tensor) -> Tensor:
    """‖x‖₂ of each input from above; squares that underflow are covered by the second term."""
    return x.flatten(1).norm(dim=1) + SMALLEST_SQUARED
