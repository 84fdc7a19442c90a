"""The `Frame` coordinate: an orthonormal weight is turned on its set, for less than one product of its size a step.

A tall or square W (out ≥ in) is turned from the left, W ← R(A)·W, a wide one from the right. What the optimizer trains
is a skew matrix A, zero between steps. Its gradient comes from activations, at the cost of the ordinary weight
gradient,

    dL/dA = skew(gyᵀ(y − b)),   skew(M) = (M − Mᵀ)/2      (wide: skew(gxᵀx)),

so the backward pass multiplies no two matrices of the weight's size. After the step the weight is turned by the
rotation that A stands for (`linalg.rotation`), in which planes that would turn by more than `longest` radians turn by
half to all of that. What its series and rounding leave is summed up; where the sum exceeds `DRIFT`, the weight is
replaced by its polar factor. So |σ² − 1| stays below 1e-5 at every forward pass.

With q > 1 blocks the rows are cut into q blocks, and each step turns the q/2 disjoint pairs of one round of a
tournament: 2/q products. The gradient of the other pairs waits and adds up until their round; then the optimizer
takes one step for all of it, √(q − 1) times as long, so that its learning rate means what it means without blocks.
Source: Lezcano-Casado 2019 (parametrizations that are rebased at every step).
"""

import inspect
import math
from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ..audit import TRUSTED_HOOKS
from ..errors import TightlipError
from ..linalg.polar import polar
from ..linalg.rotation import LONGEST, rotation, skew_part_, tournament
from ..linalg.rounding import full_precision
from .constraint import Constraint
from .coordinate import Coordinate, Sighting, glance, held

DRIFT = 42.0
"""The sum of errors in σ² at which the polar factor is taken, in units of rounding: 5e-6 in float32."""

ROUNDING = 0.4
"""What one turn is taken to add to |σ² − 1| by rounding, in the same units: an estimate, which steers the engine."""


def longest(size: int) -> float:
    """Radians by which a step turns a plane of a weight with ``size`` rows (or columns, if it has more) at most.

    Adam moves every entry of A by its learning rate, so a direction that all gradients share would be turned by up to
    ``size`` times that, and would carry on. Measured, not derived: LOG.md, 2026-11-25.
    """
    return LONGEST * min(1.0, 256 / size)


class Frame(Coordinate):
    """A is trained, W is turned; for `Orthonormal` weights that are not far from square (`Orthonormal.block_count`).

    Args:
        blocks: q, 1 or an even divisor of max(out, in).
    """

    def __init__(self, blocks: int = 1) -> None:
        self.blocks, self.keeps = blocks, blocks > 1
        self.round = 0
        self.drift = 0.0
        self.waiting: Tensor | None = None

    def __copy__(self) -> "Frame":
        twin = Frame(self.blocks)
        twin.round, twin.drift = self.round, self.drift
        twin.waiting = None if self.waiting is None else self.waiting.clone()
        return twin

    def attach(self, layer: nn.Linear, constraint: Constraint) -> None:
        """The weight stops being trained; ``weight_turn`` (D, D) gets the gradient, D = max(out, in).

        With blocks, ``weight_turn_r`` (D, 2D/q) holds the pairs of round r, one above the other, for the optimizer.
        """
        size, q, trained = max(layer.weight.shape), self.blocks, layer.weight.requires_grad
        layer.weight.requires_grad_(False)
        layer.weight_turn = nn.Parameter(layer.weight.new_zeros(size, size), trained)
        for number in range(q - 1):
            layer.register_parameter(_pairs(number), nn.Parameter(layer.weight.new_zeros(size, 2 * size // q), trained))
        super().attach(layer, constraint)
        if _is_tall(layer):
            layer.register_forward_hook(turn_output)
        else:
            layer.register_forward_pre_hook(turn_input)
        layer.register_state_dict_post_hook(_without_turns)
        layer.register_load_state_dict_pre_hook(_with_zero_turns)

    def trained(self, layer: nn.Linear) -> list[Tensor]:
        """A, and the pairs of each round."""
        names = ("weight_turn", *map(_pairs, range(self.blocks - 1)))
        return [layer._parameters[name] for name in names]  # type: ignore[misc]

    def is_folded(self, layer: nn.Linear, constraint: Constraint, seen: Sighting | None) -> bool:
        """Whether every turn is zero and W is a member, as it is if it has not been written to."""
        if any(map(glance, self.trained(layer))):
            return False
        unmoved = seen is not None and seen.weight == self.sighting(layer).weight
        return unmoved or super().is_folded(layer, constraint, seen)

    @torch.no_grad()
    def before_step(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Hand the optimizer the gradient of this round's pairs; that of the others waits."""
        turn: Tensor = layer.weight_turn  # type: ignore[assignment]
        if layer.weight.grad is not None:  # after network.requires_grad_(True); a step along it would leave the set
            if not turn.requires_grad:
                raise TightlipError(
                    "a weight that is turned was unfrozen alone: set requires_grad on the layer, weight_turn included"
                )
            layer.weight.grad = None
        if self.blocks == 1 or turn.grad is None:
            return
        gradient = turn.grad.detach()
        self.waiting = gradient.clone() if self.waiting is None else self.waiting.to(gradient).add_(gradient)
        turn.grad = None
        blocks, place = self._opened(self.waiting)
        present = self._present(layer)
        present.grad = blocks[place].permute(0, 1, 3, 2, 4).reshape(present.shape)
        blocks[place] = 0.0

    @torch.no_grad()
    def fold_(self, layer: nn.Linear, constraint: Constraint) -> None:
        """Turn W by A, or by the pairs of this round, and set them to zero."""
        present = self._present(layer)
        if self.blocks == 1 or present.grad is not None:
            self._turn_by_(layer, present)
        if self.drift > DRIFT:
            layer.weight.copy_(polar(layer.weight))
            self.drift = 0.0

    def moved(self) -> None:
        """A turn keeps W as far from its set as it was: take the polar factor."""
        self.drift = math.inf

    def settle(self) -> None:
        """Begin a new tournament: what waited is given up, and the next step takes the polar factor."""
        self.round, self.waiting, self.drift = 0, None, math.inf

    def _turn_by_(self, layer: nn.Linear, present: Tensor) -> None:
        """Turn W by what the optimizer made of ``present``, and set that to zero."""
        if self.blocks > 1:
            present.grad = None
        angles = present.detach().unflatten(0, (max(1, self.blocks // 2), -1))
        sign = math.sqrt(max(1, self.blocks - 1)) / 2 * (1 if _is_tall(layer) else -1)
        with full_precision(angles):
            # any optimizer's A, made exactly skew
            change, error = rotation((angles - angles.mT).mul_(sign), longest(max(layer.weight.shape)))
            if not error < math.inf:
                raise TightlipError(
                    "a step would leave NaN, infinity or no rotation in a weight: lower the learning rate"
                )
            self._turn_(layer, change)
        present.zero_()
        self.round = (self.round + 1) % max(1, self.blocks - 1)
        self.drift += error / torch.finfo(change.dtype).eps + ROUNDING

    def _turn_(self, layer: nn.Linear, change: Tensor) -> None:
        """W ← W + (R − I)·W on the blocks of this round."""
        frame = layer.weight if _is_tall(layer) else layer.weight.mT
        if self.blocks == 1:
            frame.add_(change[0] @ frame)
            return
        blocks = frame.unflatten(0, (self.blocks, -1))
        for (one, two), turn in zip(tournament(self.blocks)[self.round], change, strict=True):  # pair by pair: in cache
            pair = blocks[one : two + 1 : two - one]
            pair.add_((turn @ pair.flatten(0, 1)).view_as(pair))

    def _present(self, layer: nn.Linear) -> Tensor:
        """The parameter that this round trains."""
        name = "weight_turn" if self.blocks == 1 else _pairs(self.round)
        return layer._parameters[name]  # type: ignore[return-value]

    def _opened(self, matrix: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A (D, D) matrix as (q, q, D/q, D/q) blocks, and where among them this round's pairs are."""
        index = _meeting(self.blocks, self.round, matrix.device)
        blocks = matrix.unflatten(1, (self.blocks, -1)).unflatten(0, (self.blocks, -1)).transpose(1, 2)
        return blocks, (index[:, :, None], index[:, None, :])


@cache
def _meeting(blocks: int, number: int, device: torch.device) -> Tensor:
    """(pairs, 2): which blocks meet in this round."""
    return torch.tensor(tournament(blocks)[number], device="cpu").to(device)


@cache
def _pairs(number: int) -> str:
    return f"weight_turn_{number}"


def _is_tall(layer: nn.Linear) -> bool:
    return layer.weight.shape[0] >= layer.weight.shape[1]


class _Side(torch.autograd.Function):
    """y ↦ y, with the gradient of y + skew(A)z at A = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, z: Tensor, turn: Tensor) -> Tensor:
        return y.clone()  # no alias of y: what comes next may work in place

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        z, turn = ctx.saved_tensors
        (gradient,) = gradients
        with full_precision(z):
            product = (gradient.reshape(-1, gradient.shape[-1]).mT @ z.reshape(-1, z.shape[-1])).to(turn.dtype)
            if not torch.is_grad_enabled():
                return gradient, None, skew_part_(product)
            # a second derivative is asked for, and it goes through A, although A is zero
            return gradient, gradient @ _skew(turn).to(gradient.dtype), _skew(product)


_Side.forward.__signature__ = inspect.signature(_Side.forward)  # type: ignore[attr-defined]  # asked for at every call


def _skew(matrix: Tensor) -> Tensor:
    return (matrix - matrix.mT) / 2


def turn_output(layer: nn.Linear, args: Any, y: Tensor) -> Tensor:
    """The forward hook of tall and square layers: the output as it is, with the gradient of the turn."""
    turn: Tensor = layer.weight_turn  # type: ignore[assignment]
    if not (torch.is_grad_enabled() and turn.requires_grad):
        return y
    if not torch.compiler.is_compiling() and next(iter(layer._forward_hooks.values())) is not turn_output:
        _refuse_order(layer)
    return _Side.apply(y, y * 1 if layer.bias is None else y - layer.bias.to(y.dtype), turn)  # type: ignore[no-any-return]


def turn_input(layer: nn.Linear, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """The forward pre-hook of wide layers: the input as it is, with the gradient of the turn."""
    turn: Tensor = layer.weight_turn  # type: ignore[assignment]
    if not (torch.is_grad_enabled() and turn.requires_grad):
        return None
    if not torch.compiler.is_compiling() and (
        not args or next(reversed(layer._forward_pre_hooks.values())) is not turn_input
    ):
        _refuse_order(layer)
    return (_Side.apply(args[0], args[0] * 1, turn), *args[1:])  # torch cannot trace one tensor given twice


def _refuse_order(layer: nn.Linear) -> NoReturn:
    raise TightlipError(
        f"the gradient of {layer} is taken at its own input or output, and a hook or a keyword stands between: "
        "call it as layer(x), register forward hooks after constrain and forward pre-hooks before it"
    )


TRUSTED_HOOKS.update({turn_output, turn_input})


def _without_turns(layer: nn.Linear, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in layer._parameters:
        if name.startswith("weight_turn"):
            state.pop(f"{prefix}{name}", None)


def _with_zero_turns(layer: nn.Linear, state: dict[str, Any], prefix: str, *_: Any) -> None:
    record = held(layer)
    if record is None:
        return
    for name, turn in layer._parameters.items():
        if name.startswith("weight_turn") and turn is not None:
            state[f"{prefix}{name}"] = torch.zeros_like(turn)
    record.coordinate.settle()
