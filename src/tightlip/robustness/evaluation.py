"""Evaluation in float64, with a proven bound on how far it strays from exact arithmetic.

Through a layer with audited 2→2 constant c, a distance between the computed and the exact input becomes

    error ← c·error + (share of ‖input‖₂) + (share of ‖output‖₂) + (share of each entry)·√(their number),

the shares stated by the layer's rule (`Roundoff`). A `Residual` is followed into its branch.

Parameters and inputs are widened in the calling thread, exactly. A layer may be computed by threads that flush
denormal numbers to zero (`rounding`). That is as if its input were off by less than F = `FLUSHED` in the 2-norm, each
number that it stores by less than 2⁻¹⁰²², and each of its operations by less than 2⁻¹⁰²² more. So what is computed is

    error ← c·(error + F) + (share + F)·‖input‖₂ + share·‖output‖₂ + share·√n + UNDERFLOW.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..arguments import unflattened
from ..audit import UNKNOWN, Audited, Gains, audit_layers, chain, within
from ..errors import TightlipError
from ..layers import Normalize, Residual, Scale, halfway
from ..linalg.rounding import FLUSHED, UNDERFLOW, UNIT_ROUNDOFF, norm_above, round_up, widened


class Step(NamedTuple):
    """A layer and what is known of it: its `Gains`, or, for a `Residual`, the steps of its branch."""

    layer: nn.Module
    known: "Gains | list[Step]"


def steps(network: nn.Module, audited: Sequence[Audited]) -> list[Step]:
    """A float64 copy of ``network`` in eval mode, layer by layer, with what `audit_layers` has found of the original.

    Raises:
        TightlipError: if a rule states no roundoff.
    """
    layers = chain(_widened(network))  # widening changes no weight, and so no gain
    return [_step(layer, name, known) for (name, layer), (_, _, known) in zip(layers, audited, strict=True)]


def _widened(network: nn.Module) -> nn.Module:
    """A copy in eval mode and float64; `Module.double` would leave it to threads whose mode is not known."""
    wide = copy.deepcopy(network).eval()
    for tensor in (*wide.parameters(), *wide.buffers()):
        if tensor.is_floating_point():
            tensor.data = widened(tensor).to(tensor.device)
    return wide


def _step(layer: nn.Module, name: str, known: Gains) -> Step:
    if type(layer) is Residual:  # its gains say nothing of the layers inside
        return Step(
            layer, [_step(inner, place, found) for place, inner, found in audit_layers(layer.f, within(name, "f"))]
        )
    if known.roundoff == UNKNOWN:
        kind = type(layer).__name__
        raise TightlipError(f"the rule of {kind} states no roundoff: return Gains(…, Roundoff(…)) to certify")
    return Step(layer, known)


def evaluate(network: list[Step], x: Float64[Tensor, "batch *shape"]) -> tuple[Tensor, Float64[Tensor, " batch"]]:
    """The outputs and, per input, a bound on their distance in the 2-norm from the exact ones; may write into ``x``.

    Raises:
        TightlipError: if the inputs do not fit the network, or a layer changes their number.
    """
    shape = tuple(x.shape)
    try:
        return _through(network, x, torch.full((len(x),), UNDERFLOW, dtype=torch.float64, device=x.device))
    except TightlipError:
        raise
    except (RuntimeError, TypeError, IndexError, ValueError) as problem:
        reason = wrong_size((step.layer for step in network), shape) or problem
        raise TightlipError(f"inputs of shape {shape} do not fit the network: {reason}") from problem


def wrong_size(layers: Iterable[nn.Module], shape: Sequence[int]) -> str | None:
    """Why inputs of this shape do not fit, where it is that the first linear layer takes another number of values."""
    values, flat = math.prod(shape[1:]), len(shape) == 2
    for layer in layers:
        flat = flat or isinstance(layer, nn.Flatten)
        if isinstance(layer, nn.Linear) and flat and values != layer.in_features:
            color = " (gray against color?)" if layer.in_features in (3 * values, values / 3) else ""
            return f"it was made for {layer.in_features} values per input, these have {values}{color}"
        if isinstance(layer, nn.Linear) and not flat and shape[-1] != layer.in_features:
            each = f"{'×'.join(map(str, shape[1:]))}, {values} values"
            takes = f"its first linear layer takes rows of {layer.in_features} values, and each input is {each}"
            return unflattened([layer], shape) or takes
        if not isinstance(layer, nn.Sequential | nn.Flatten | Normalize | Scale):
            return None
    return None


def _through(network: list[Step], x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    for layer, known in network:
        x, error = _layer(layer, known, x, error) if isinstance(known, Gains) else _residual(known, x, error)
    return x, error


def _layer(layer: nn.Module, known: Gains, x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    size, width = _size(x), math.prod(x.shape[1:])
    y = layer(x)
    kind = type(layer).__name__
    if not isinstance(y, Tensor) or y.dtype != torch.float64:
        got = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
        raise TightlipError(f"{kind} turns float64 into {got}: keep its forward in the dtype of its input")
    if y.dim() == 0 or len(y) != len(error):
        raise TightlipError(f"{kind} changes the number of examples: keep the batch axis apart")
    outputs = math.prod(y.shape[1:])
    spread, entries = _spread(known, width, outputs), known.roundoff.entry * (math.isqrt(outputs) + 1)
    local = (known.roundoff.input + FLUSHED) * size + known.roundoff.output * _size(y) + entries + UNDERFLOW
    return y, _safely(spread * (error + FLUSHED) + local)


def _spread(known: Gains, inputs: int, outputs: int) -> float:
    """A 2→2 constant: the one that is proven, or ‖x‖₁ ≤ √n·‖x‖₂ and ‖y‖₂ ≤ √m·‖y‖_∞ around another."""
    if (2.0, 2.0) in known.table:
        return round_up(Fraction(known.table[2.0, 2.0]))
    before, after = {1.0: math.isqrt(inputs) + 1}, {math.inf: math.isqrt(outputs) + 1}
    around = [Fraction(c) * before.get(p, 1) * after.get(q, 1) for (p, q), c in known.table.items()]
    return round_up(min(around))


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
    """‖x‖₂ of each input from above."""
    return norm_above(x.reshape(len(x), math.prod(x.shape[1:])), 2, 1)
