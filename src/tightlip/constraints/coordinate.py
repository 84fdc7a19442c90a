"""How a weight on a set is moved by an optimizer that knows nothing of the set: the boundary between the two.

    before_step    after backward: the optimizer is handed a gradient along the set
    give_back      the weight is a weight again
    after_step     what the optimizer has made of its state is kept
    fold_          the weight is moved along its set, or pulled back onto it

A step may fail or be interrupted at any line: then `Move.undo` puts back what was there before it, and `after_failure_`
sees to what was written to in place.

Known algorithms are pairs: projected gradient descent is `RowL1Ball` with `Ambient`; a Riemannian method that turns an
orthonormal weight block by block is `Orthonormal` with `frame.Frame`. Coordinates keep nothing themselves: what lasts
from one step to the next lies in ``optimizer.state[weight]``, and is saved and loaded with it.
"""

import abc
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TightlipError
from ..linalg.rounding import all_finite
from .constraint import Constraint

OURS = "tightlip_"
"""What the names of a coordinate's entries in ``optimizer.state[weight]`` begin with."""


@dataclass
class Move:
    """One weight (out, in) in one step of one optimizer.

    Args:
        name: Where the weight is, for sentences.
        weight: The parameter.
        gradient: Its ordinary gradient, which it has again after the step.
        constraint: Its set.
        optimizer: Who steps.
        memory: What the coordinate keeps in ``optimizer.state[weight]``, out of the optimizer's sight during the step.
        scale: What gradients were multiplied by, where a fused optimizer is going to divide them by it.
        handed: Whether the optimizer was handed a gradient.
        closed: Whether ``optimizer.state[weight]`` is as it shall be after the step.
        kept: What the coordinate needs between `before_step` and `fold_`.
        buffers: What all moves of one optimizer share, see `buffer`.
        data: What the parameter holds between steps.
        fresh: Whether there was no ``memory`` before the step.
        state: What the optimizer knew of the weight before the step, or None; without ``memory``.
    """

    name: str
    weight: nn.Parameter
    gradient: Tensor
    constraint: Constraint
    optimizer: Optimizer
    memory: dict[str, Any]
    scale: float = 1.0
    handed: bool = False
    closed: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    buffers: dict[Hashable, Tensor] = field(default_factory=dict)
    data: Tensor = field(init=False)
    fresh: bool = field(init=False)
    state: dict[str, Any] | None = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.fresh = self.weight.data, not self.memory
        state = self.optimizer.state.get(self.weight)
        self.state = None if state is None else {key: state[key] for key in state if not key.startswith(OURS)}

    def remember(self) -> None:
        """Keep ``memory`` until the next step."""
        if self.memory:
            self.optimizer.state[self.weight] |= {OURS + key: value for key, value in self.memory.items()}

    def undo(self) -> None:
        """The parameter, its gradient and the optimizer's state are the tensors that they were before the step."""
        self.weight.data, self.weight.grad = self.data, self.gradient
        if not self.closed:
            self.optimizer.state.pop(self.weight, None)
            if self.state is not None:
                self.optimizer.state[self.weight] = dict(self.state)
            if self.fresh:  # what was made of the state is undone as well
                self.memory.clear()
        self.remember()

    def buffer(self, use: Hashable, *shape: int) -> Tensor:
        """Memory of the weight's type for what does not outlive a call: to fetch it anew costs more than to fill it."""
        key = use, shape, self.weight.dtype, self.weight.device
        if key not in self.buffers:
            self.buffers[key] = self.weight.new_empty(shape)
        return self.buffers[key]

    def refuse_non_finite(self, gradient: Tensor) -> None:
        """Raise for NaN and infinity: nothing has been moved by then."""
        if not all_finite(gradient):
            raise TightlipError(
                f"the gradient of {self.name} is NaN or infinite, and no weight was moved: lower the learning rate"
            )

    def hand(self, gradient: Tensor) -> None:
        """Give the optimizer a gradient, for this step."""
        if gradient.stride() != self.weight.stride():  # fused optimizers read both as one layout
            gradient = torch.empty_like(self.weight).copy_(gradient)
        self.weight.grad = gradient
        self.handed = True


class Coordinate(abc.ABC):
    """How weights are moved; an object without state."""

    @abc.abstractmethod
    def before_step(self, move: Move) -> None:
        """Hand the optimizer a gradient along the set."""

    def give_back(self, move: Move) -> None:  # noqa: B027  most hand over no more than a gradient
        """Put the weight back where something else was handed over."""

    def after_step(self, move: Move) -> None:  # noqa: B027  most leave an optimizer's state alone
        """Keep what the optimizer has made of the state that it was handed."""

    @abc.abstractmethod
    def fold_(self, moves: Sequence[Move]) -> None:
        """Put the weights of moves of one `group` back on their sets, in place."""

    def after_failure_(self, move: Move) -> None:  # noqa: B027  most keep nothing that the step has touched
        """Forget what the failed step may have written to; weights are put back on their sets by whoever calls this."""

    def group(self, move: Move) -> Hashable:
        """What is equal for moves that are folded together."""
        return id(move.weight)

    def work(self, move: Move) -> float:
        """About how many multiplications `fold_` takes, up to a factor that is the same for all weights."""
        return float(move.weight.numel() * min(move.weight.flatten(1).shape))

    def outcome(self, move: Move) -> dict[str, Any]:
        """Of ``memory``, what `fold_` has written to: tensors and plain values."""
        return dict(move.memory)


class Ambient(Coordinate):
    """The optimizer moves the weight itself: tangent gradient before the step, projection after it."""

    @torch.no_grad()
    def before_step(self, move: Move) -> None:
        """G ← tangent(W, G)."""
        refuse_other_blocks(move, 0)
        move.refuse_non_finite(move.gradient)
        move.hand(move.constraint.tangent(move.weight.detach(), move.gradient))

    @torch.no_grad()
    def fold_(self, moves: Sequence[Move]) -> None:
        """W ← map(W)."""
        for move in moves:
            last = move.constraint.map_(move.weight, move.memory.get("last"))
            if last is not None:
                move.memory["last"] = last


def refuse_other_blocks(move: Move, blocks: int) -> None:
    """Raise where the optimizer's state of a weight is of another way to move it."""
    saved = move.memory.get("blocks", 0)
    if saved != blocks:
        raise TightlipError(
            f"the optimizer's state of {move.name} was saved with Orthonormal(blocks={saved}), and the weight is held "
            f"with blocks={blocks} now: load the network alone, or constrain it as it was then"
        )


def refuse_half(weight: Tensor) -> None:
    """Raise where a weight's type has too few digits to be on a set."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise TightlipError(f"weights in {weight.dtype} cannot be held exactly: keep them float32, use autocast")
