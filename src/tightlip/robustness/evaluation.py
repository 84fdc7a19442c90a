"""Evaluation in float64, with a proven bound on how far it strays from exact arithmetic.

Through a layer with audited 2→2 constant c, a distance between the computed and the exact input becomes

    error ← c·error + γ·((share of ‖input‖₂) + (share of ‖output‖₂) + (share of each entry)·√(their number)),

the shares, and how many roundings γ counts, stated by the layer's rule (`Roundoff`). Joins add up what their values
bring (`Join.error`).

Parameters and inputs are widened in the calling thread, exactly. A layer may be computed by threads that flush
denormal numbers to zero (`rounding`). That is as if its input were off by less than F = `FLUSHED` in the 2-norm, each
number that it stores by less than 2⁻¹⁰²², and each of its operations by less than 2⁻¹⁰²² more. So what is computed is

    error ← c·(error + F) + γ·(share·‖input‖₂ + share·‖output‖₂ + share·√n) + F·‖input‖₂ + UNDERFLOW.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..arguments import unflattened
from ..audit import UNKNOWN, Audit, Gains, Join, Node, Nodes, expand, fold
from ..errors import TightlipError
from ..layers import Normalize, Scale
from ..linalg.arithmetic import FLOAT64
from ..linalg.rounding import FLUSHED, UNDERFLOW, UNIT_ROUNDOFF, norm_above, round_up, widened


class Wide(NamedTuple):
    """A float64 copy of a network, and what its rules say of the original's nodes."""

    network: Nodes
    known: tuple[Gains, ...]


def wide(network: nn.Module, audited: Audit) -> Wide:
    """A float64 copy of ``network`` in eval mode, node by node, with what `audit` has found of the original.

    Raises:
        TightlipError: if a rule states no roundoff.
    """
    for node, known in zip(audited.network.nodes, audited.known, strict=True):
        if known.roundoff == UNKNOWN and not isinstance(node.operation, Join):
            kind = type(node.operation).__name__
            raise TightlipError(f"the rule of {kind} states no roundoff: return Gains(…, Roundoff(…)) to certify")
    return Wide(expand(_widened(network)), audited.known)  # widening changes no weight, and so no gain


def _widened(network: nn.Module) -> nn.Module:
    """A copy in eval mode and float64; `Module.double` would leave it to threads whose mode is not known."""
    wide = copy.deepcopy(network).eval()
    for tensor in (*wide.parameters(), *wide.buffers()):
        if tensor.is_floating_point():
            tensor.data = widened(tensor).to(tensor.device)
    return wide


Strayed = tuple[Tensor, Tensor]
"""Values (batch, …), and how far each input's may be from the exact ones in the 2-norm, (batch,)."""


def evaluate(network: Wide, x: Float64[Tensor, "batch *shape"]) -> tuple[Tensor, Float64[Tensor, " batch"]]:
    """The outputs and, per input, a bound on their distance in the 2-norm from the exact ones; may write into ``x``.

    Raises:
        TightlipError: if the inputs do not fit the network, or a layer changes their number.
    """
    shape = tuple(x.shape)
    try:
        return _through(network, x)
    except TightlipError:
        raise
    except (RuntimeError, TypeError, IndexError, ValueError) as problem:
        reason = wrong_size((layer for _, layer in network.network.layers()), shape) or problem
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


def _through(network: Wide, x: Tensor) -> Strayed:
    nodes = network.network.nodes
    known = dict(zip(nodes, network.known, strict=True))
    uses = Counter(i for node in nodes for i in node.inputs)

    def layer(node: Node, value: Strayed) -> Strayed:
        inputs = value[0].clone() if uses[node.inputs[0]] > 1 else value[0]  # it may work in place
        return evaluate_layer(node.operation, known[node], inputs, value[1])  # type: ignore[arg-type]

    def join(node: Node, values: list[Strayed]) -> Strayed:
        result = node.operation(*(value for value, _ in values))
        sizes = [_size(value) for value, _ in values]
        error = node.operation.error([error for _, error in values], sizes, FLOAT64.gamma)  # type: ignore[union-attr, operator]
        return result, _safely(error + (UNDERFLOW + FLUSHED) * len(values))

    start = torch.full((len(x),), UNDERFLOW, dtype=torch.float64, device=x.device)
    return fold(network.network, (x, start), layer, join)


def evaluate_layer(layer: nn.Module, known: Gains, x: Tensor, error: Tensor) -> Strayed:
    """One layer in float64, for inputs that may be off by ``error``; may write into ``x``.

    Raises:
        TightlipError: if it changes the number of examples, or does not keep float64.
    """
    size, width = _size(x), math.prod(x.shape[1:])
    if isinstance(layer, _ConvNd) and x.dim() != layer.weight.dim():  # torch would take the examples for channels
        axes = "(batch, channels, " + ", ".join(("depth", "height", "width")[5 - layer.weight.dim() :]) + ")"
        raise TightlipError(f"a {type(layer).__name__} takes {axes}, not values of shape {tuple(x.shape)}")
    y = layer(x)
    kind = type(layer).__name__
    if not isinstance(y, Tensor) or y.dtype != torch.float64:
        got = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
        raise TightlipError(f"{kind} turns float64 into {got}: keep its forward in the dtype of its input")
    if y.dim() == 0 or len(y) != len(error):
        raise TightlipError(f"{kind} changes the number of examples: keep the batch axis apart")
    outputs = math.prod(y.shape[1:])
    spread = _spread(known, width, outputs)
    local = known.roundoff.error(size, _size(y), (width, outputs), FLOAT64.gamma) + FLUSHED * size + UNDERFLOW
    return y, _safely(spread * (error + FLUSHED) + local)


def _spread(known: Gains, inputs: int, outputs: int) -> float:
    """A 2→2 constant: the one that is proven, or ‖x‖₁ ≤ √n·‖x‖₂ and ‖y‖₂ ≤ √m·‖y‖_∞ around another."""
    if (2.0, 2.0) in known.table:
        return round_up(Fraction(known.table[2.0, 2.0]))
    before, after = {1.0: math.isqrt(inputs) + 1}, {math.inf: math.isqrt(outputs) + 1}
    around = [Fraction(c) * before.get(p, 1) * after.get(q, 1) for (p, q), c in known.table.items()]
    return round_up(min(around))


def _safely(error: Tensor) -> Tensor:
    """A sum of a few products of numbers ≥ 0, raised by more than its own rounding."""
    return error * (1.0 + 64.0 * UNIT_ROUNDOFF)


def _size(x: Tensor) -> Tensor:
    """‖x‖₂ of each input from above."""
    return norm_above(x.reshape(len(x), math.prod(x.shape[1:])), 2, 1)
