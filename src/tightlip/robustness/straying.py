"""What a machine makes of one layer, near an input: how far from exact arithmetic, as a line a + b·r in the radius r.

Let h be the exact value at an input x, and h', ĥ' the exact one and the machine's at a point x' within r of it. Then

    ‖h' − h‖_q ≤ g_q·r,        ‖ĥ' − h'‖_q ≤ D_q(r),        for q = 2 and ∞,

with g_q from the audit. A layer with constant c whose sums of n products round by γ, in any order, has

    D ← c·D + γ·(‖ |W||h| + |b| ‖_q + ‖ |W| ‖_q·(g_q·r + D)) + underflow,

since |W||ĥ'| ≤ |W||h| + |W||ĥ' − h|. So what is known at x enters by |W||h|, which is computed, and not by norms
alone. Other layers bring what their rule counts (`Roundoff`); sorting, maxima and permutations bring nothing.
Source: the recursion of Murray 2026, here for sorting networks, any order of summation, and all points near x.
"""

import copy
import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..audit import EXACT, FEW_ULPS, Gains
from ..errors import TightlipError
from ..layers import Normalize
from ..linalg.arithmetic import Arithmetic
from ..linalg.rounding import norm_above
from ..prototypes import Prototypes
from ..transport.potential import Funnels

ORDERS = (2.0, math.inf)
"""The norms in which what strays is bounded, in the order of axis 1 of `Lines`."""

Lines = Float64[Tensor, "batch 2 2"]
"""For each input, and q = 2 and ∞, the a and b of a + b·r."""

STORES = 16
"""Numbers that a layer stores on the way to an output, at most, where each of its operations may store one."""

FUSED = 4
"""The same of one elementwise function."""

MODEST = 2.0**60
"""Divisors that are stored lie between its inverse and itself; others overflow formats that float64 does not."""


class Value(NamedTuple):
    """A value at inputs (batch, …) in float64, how far that is from exact, how far a machine strays, and g_q."""

    computed: Tensor
    error: Float64[Tensor, " batch"]
    drift: Lines
    reach: tuple[float, float]

    @property
    def flat(self) -> Float64[Tensor, "batch entries"]:
        """One row for each input."""
        return self.computed.flatten(1)

    def near(self) -> Lines:
        """How far the machine is, anywhere near x, from what float64 makes of x itself."""
        lines = self.drift.clone()
        lines[..., 0] += self.error.unsqueeze(1)
        lines[..., 1] += torch.tensor(self.reach, dtype=torch.float64, device=lines.device)
        return lines

    def size(self) -> Lines:
        """Norms of all that a machine, or exact arithmetic, makes near x."""
        lines = self.near()
        lines[..., 0] += torch.stack([norm_above(self.flat, q, 1) for q in ORDERS], 1)
        return lines


class Local(NamedTuple):
    """What one layer adds to what strays, and the largest number on the way to its outputs, (batch, 2)."""

    rounding: Lines
    largest: Float64[Tensor, "batch 2"]


def refuse_uncounted(layer: nn.Module, known: Gains, name: str) -> None:
    """Raise where other formats compute by other steps than those that a rule counts.

    Raises:
        TightlipError: for such layers, and for those that divide by huge or tiny stored numbers.
    """
    if type(layer) in (Funnels, Prototypes):
        raise TightlipError(
            f"{type(layer).__name__} at {name!r} find the nearest by other steps in other formats: certify for "
            "arithmetic='real'"
        )
    divisors = layer.std if isinstance(layer, Normalize) else getattr(layer, "running_var", None)
    if isinstance(divisors, Tensor) and not bool(((divisors >= 1 / MODEST) & (divisors <= MODEST)).all()):
        raise TightlipError(
            f"{type(layer).__name__} at {name!r} divides by numbers beyond 2^±60, which other formats may not hold: "
            "scale the inputs, or certify for arithmetic='real'"
        )


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer has |W||x| + |b| in closed form: the layer itself with |W| and |b|."""
    return isinstance(layer, nn.Linear | _ConvNd)


def magnitudes(layer: nn.Module) -> nn.Module:
    """X ↦ |W|x + |b|."""
    made = copy.deepcopy(layer)
    for weight in made.parameters():
        weight.data.abs_()
    return made


def _tensors(layer: nn.Module) -> list[Tensor]:
    """A layer's own numbers, those that are tensors."""
    return [t for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point()]


def _numbers(layer: nn.Module) -> list[float]:
    """Those that are Python's, which torch rounds to the format of the inputs."""
    held = (value for value in vars(layer).values() if isinstance(value, int | float) and not isinstance(value, bool))
    return [float(value) for value in held]


class Machine:
    """An arithmetic at work on layers whose parameters are in float64.

    Args:
        arithmetic: Which.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.kept = float(torch.finfo(arithmetic.dtype).eps) / 2  # unit roundoff of stored numbers
        self._magnitudes: dict[int, tuple[nn.Module, nn.Module]] = {}

    def gamma(self, count: int) -> float:
        """γ of so many operations on a number, each of which may store what it makes."""
        return self.arithmetic.gamma(count) + count * self.arithmetic.stored

    def share(self, layer: nn.Module, known: Gains, inputs: int) -> float:
        """γ of a layer: of its operations, of what it stores, and of its own numbers where they are rounded."""
        roundoff, tensors = known.roundoff, _tensors(layer)
        if any(bool((t.abs() > self.arithmetic.largest).any()) for t in tensors):
            return math.inf
        count = inputs + 2 if roundoff.count is None else roundoff.count
        if is_linear(layer) or roundoff.count is None:
            stores = 2  # a sum of products, and with a bias
        else:
            stores = min(count, FUSED if roundoff == FEW_ULPS else STORES)
        stored = self.arithmetic.gamma(count) + stores * self.arithmetic.stored
        return 1.01 * (stored + 2.0 * self.kept * self.rounds(layer))

    def rounds(self, layer: nn.Module) -> bool:
        """Whether the format has not all of a layer's own numbers."""
        numbers = [] if is_linear(layer) else _numbers(layer)
        held = [*_tensors(layer), torch.tensor(numbers, dtype=torch.float64)]
        return any(not torch.equal(t.to(self.arithmetic.dtype).to(t.dtype), t) for t in held)

    def own(self, layer: nn.Module, known: Gains, outputs: int) -> Float64[Tensor, "2"]:
        """What rounding the numbers that a layer adds or puts in moves its outputs by, for q = 2 and ∞."""
        each = 1.02 * self.kept * known.roundoff.own * self.rounds(layer)
        return torch.tensor([each * (math.isqrt(outputs) + 1), each], dtype=torch.float64)

    def magnitude(self, layer: nn.Module, x: Tensor) -> Float64[Tensor, "batch entries"]:
        """|W||x| + |b|."""
        if id(layer) not in self._magnitudes:
            self._magnitudes[id(layer)] = layer, magnitudes(layer)
        return self._magnitudes[id(layer)][1](x.abs()).flatten(1)

    def input(self, x: Tensor, reach: tuple[float, float]) -> Value:
        """X' is rounded to the format before anything is computed."""
        exact = Value(x, torch.zeros(len(x), dtype=torch.float64, device=x.device), x.new_zeros(len(x), 2, 2), reach)
        drift = self.kept * exact.size()
        drift[..., 0] += self.arithmetic.underflow * (math.isqrt(exact.flat.shape[1]) + 1)
        return exact._replace(drift=drift)

    def local(self, layer: nn.Module, known: Gains, before: Value, after: Value) -> Local:
        """What a layer adds; ``after.drift`` is what strays already when it begins."""
        outputs = after.flat.shape[1]
        moved = self.own(layer, known, outputs).to(before.drift.device) if known.roundoff.own else 0.0
        if replace(known.roundoff, own=0.0) == EXACT:
            lost = torch.zeros_like(before.drift)
            lost[..., 0] = 2.0 * self.arithmetic.underflow * (math.isqrt(outputs) + 1) + moved
            return Local(lost, after.size()[:, 1] + lost[:, 1])
        found = self._linear(layer, known, before) if is_linear(layer) else self._counted(layer, known, before, after)
        found.rounding[..., 0] += moved
        return found

    def _linear(self, layer: nn.Module, known: Gains, before: Value) -> Local:
        sizes, near = self.magnitude(layer, before.computed), before.near()
        gains = (known.roundoff.input, float(known.table[math.inf, math.inf]))  # of |W| too
        lines = torch.stack([gain * near[:, place] for place, gain in enumerate(gains)], 1)
        lines[..., 0] += torch.stack([norm_above(sizes, q, 1) for q in ORDERS], 1)
        rounding = self.share(layer, known, before.flat.shape[1]) * lines
        rounding[..., 0] += self.lost(known, before, max(gains)).unsqueeze(1) * (math.isqrt(sizes.shape[1]) + 1)
        return Local(rounding, 2.0 * lines[:, 1])

    def _counted(self, layer: nn.Module, known: Gains, before: Value, after: Value) -> Local:
        """In the 2-norm, as it is stated, which bounds the ∞-norm too."""
        roundoff = known.roundoff
        inputs, outputs = before.size()[:, 0], after.size()[:, 0]
        stored = 1.0 if self.arithmetic.stored else 0.0  # then outputs are rounded once more
        lines = roundoff.input * inputs + (roundoff.output + stored) * outputs
        lines[:, 0] += roundoff.entry * (math.isqrt(after.flat.shape[1]) + 1)
        rounding = self.share(layer, known, before.flat.shape[1]) * lines + roundoff.truncation * outputs
        gain = max(1.0, float(max(known.table.values())))
        rounding[:, 0] += self.lost(known, before, gain) * (math.isqrt(after.flat.shape[1]) + 1)
        return Local(rounding.unsqueeze(1).repeat(1, 2, 1), 2.0 * (lines + inputs + outputs))

    def lost(self, known: Gains, before: Value, gain: float) -> Float64[Tensor, " batch"]:
        """What underflow takes of an output: by operations, by inputs that are read as zero, and by weights."""
        entries = before.flat.shape[1]
        count = entries + 2 if known.roundoff.count is None else known.roundoff.count
        sizes = norm_above(before.flat, 1, 1)
        return self.arithmetic.underflow * (2.0 * count + 8.0 + 2.0 * gain * entries + 2.0 * sizes)
