"""The `Product` coordinate: an orthonormal convolution kernel is moved by turning the factors that it is composed of.

A step reads the gradient of every factor's turn from that of the kernel, in one sweep; the optimizer is handed the skew
matrices of these turns in the place of the kernel; then the factors turn, and the kernel is composed anew. The forward
pass is torch's own. Between steps the factors lie in the optimizer's state of the kernel. Where there are none yet, or
where the kernel was written to, they are found again from its entries: so a network is loaded, averaged and frozen
without them, under torch's own keys.
Source: Li et al. 2019 (BCOP) for the products; Lezcano-Casado 2019 (parametrizations that are rebased at every step).
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import TightlipError
from ..linalg.blocks import Factors, compose, polished, sweep, turn
from ..linalg.kernel_shape import KernelShape
from ..linalg.peeling import factor
from ..linalg.rounding import full_precision
from .coordinate import Move
from .fingerprint import fingerprint
from .frame import DRIFT, ROUNDING, Frame, longest


class Product(Frame):
    """Turns the factors of orthonormal kernels, all of them in each step.

    Args:
        shape: Of the kernel of one group.
        groups: Of the convolution, each with factors of its own.

    Raises:
        TightlipError: for a shape whose factors cannot be found again from a kernel.
    """

    def __init__(self, shape: KernelShape, groups: int = 1) -> None:
        super().__init__(blocks=1)
        shape.refuse_unfactorable()
        self.shape, self.groups = shape, groups

    def group(self, move: Move) -> Hashable:
        """Each kernel is turned by itself."""
        return id(move.weight)

    def work(self, move: Move) -> float:
        """One product of the kernel's size for each factor."""
        return float(move.weight.numel() * self.shape.columns * (1 + len(self.shape.axes)))

    def outcome(self, move: Move) -> dict[str, Any]:
        """All of it: the factors, and what is known of them."""
        return dict(move.memory)

    @torch.no_grad()
    def fold_(self, moves: Sequence[Move]) -> None:
        """Turn the factors, and compose the kernel."""
        for move in moves:
            with full_precision(move.weight):
                patch, squares = self._parts(move.kept.pop("turns"))
                angles = (patch - patch.mT).mul_(0.5), (squares - squares.mT).mul_(0.5)  # any optimizer's, made skew
                turned, error = turn(self._factors(move), *angles, longest=longest(self.shape.columns))
                if not error < math.inf:  # the factors are still those of the kernel
                    raise TightlipError(
                        f"a step would leave NaN, infinity or no rotation in {move.name}: lower the learning rate"
                    )
                self._compose_(move, turned, error / torch.finfo(move.weight.dtype).eps + ROUNDING)

    def _compose_(self, move: Move, factors: Factors, error: float) -> None:
        """Count the step; where the errors of all factors have added up, take the polar factor of each."""
        memory = move.memory
        memory["steps"] += 1
        memory["drift"] += error * (1 + len(self.shape.axes))
        if not memory["drift"] <= DRIFT:
            factors, memory["drift"] = polished(factors), 0.0
        move.weight.copy_(compose(factors).view(move.weight.shape))
        self._keep(move, factors)
        memory["fingerprint"] = fingerprint(move.weight)

    def _recollect(self, move: Move) -> None:
        """Make ``memory`` that of this very kernel: find its factors if there are none, or if it was written to."""
        super()._recollect(move)
        if "patch" not in move.memory or move.memory["drift"] == math.inf:
            self._keep(move, factor(self._kernels(move.weight), self.shape))
            move.memory["drift"] = 0.0

    def _keep(self, move: Move, factors: Factors) -> None:
        counts = torch.tensor(factors.counts, device="cpu")  # tuples are not for every kind of checkpoint
        move.memory |= {"patch": factors.patch, "squares": factors.squares, "counts": counts}

    def _factors(self, move: Move) -> Factors:
        memory = move.memory
        counts = tuple(tuple(map(int, each)) for each in memory["counts"].tolist())  # floats, once they were loaded
        return Factors(self.shape, memory["patch"], memory["squares"], counts)

    def _kernels(self, weight: Tensor) -> Tensor:
        return weight.detach().unflatten(0, (self.groups, -1))

    def _read(self, move: Move) -> Tensor:
        """The gradients of all turns, in one matrix."""
        gradient = move.gradient if move.scale == 1.0 else move.gradient / move.scale
        turns = sweep(self._factors(move), self._kernels(gradient))
        return torch.cat([part.flatten() for part in turns]).view(self._shape(move.weight))

    def _sides(self) -> tuple[int, int]:
        return self.shape.angles, self.shape.columns

    def _shape(self, weight: Tensor) -> tuple[int, int]:
        """What the optimizer is handed: the rows of all turns, one above the other, as wide as they can be."""
        outer, inner = self._sides()
        width = math.gcd(outer, inner)
        return self.groups * (outer**2 + len(self.shape.axes) * inner**2) // width, width

    def _parts(self, turns: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint of `_read`: (groups, m, m) and (groups, L, n, n)."""
        outer, inner = self._sides()
        patch, squares = turns.flatten().split([self.groups * outer**2, turns.numel() - self.groups * outer**2])
        return patch.view(self.groups, outer, outer), squares.view(self.groups, -1, inner, inner)
