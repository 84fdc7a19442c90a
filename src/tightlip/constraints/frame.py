"""The `Frame` coordinate: an orthonormal weight is turned on its set, for less than one product of its size a step.

F is W where it is tall or square and Wᵀ where it is wide, (n, m) with n ≥ m. A step replaces F by R(A)·F with a skew
matrix A, zero before the step, whose gradient is

    dL/dA = skew(G Fᵀ),   skew(M) = (M − Mᵀ)/2,   G = dL/dF.

F is cut into q blocks of n/q rows, and each step turns the q/2 disjoint pairs of one round of a tournament, in which
all blocks meet in K = q − 1 rounds. What the optimizer is handed in the place of W is the A of these pairs, one above
the other, with an ordinary gradient and a state of its own for each round. The gradient of the pairs that wait is read
from a sum S of the ordinary gradients that decays by a quarter in K steps and is turned along with F; what a pair has
used is known from its last reading and taken off:

    S ← γS + G,   γ = ¾^(1/K),   C = skew(S_p F_pᵀ)  for the pairs p of the round
    off-diagonal blocks:                       C − γᴷ·(C when they last met)
    diagonal blocks, read in every round:      C − γ·(C of the step before)

A turns √K times as far, as a sum of K noisy steps would. So a step costs 6/q of a product, 4/q where S is not turned:
layers that are not square mostly read the data, where turning it lost accuracy (docs/theory/frame.md).
Source: Lezcano-Casado 2019 (parametrizations that are rebased at every step).
"""

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import TightlipError
from ..linalg.polar import polar
from ..linalg.rotation import LONGEST, rotation, skew_part_, tournament
from ..linalg.rounding import full_precision
from .constraint import Constraint
from .coordinate import Coordinate, Move, refuse_other_blocks
from .fingerprint import fingerprint
from .orthonormal import Orthonormal
from .rounds import close_round, first_momentum, open_round, refuse_hidden_state, stack_fresh

DRIFT = 42.0
"""The sum of errors in σ² at which the polar factor is taken, in units of rounding: 5e-6 in float32."""

ROUNDING = 0.4
"""What one turn is taken to add to |σ² − 1| by rounding, in the same units: an estimate, which steers the engine."""

KEPT = 0.75
"""How much of a gradient is left in S after one tournament. Measured: docs/theory/frame.md."""


def block_count(constraint: Constraint, shape: tuple[int, int]) -> int | None:
    """By how many blocks `Frame` turns weights (out, in) of this shape; None where the optimizer moves them itself.

    n × n weights by 16 from n = 256 on, others (n × m, n > m) by 6·(n/m)^1.5, from n = 1024 on by twice as many, but by
    32 at most, or by the next even number below that divides n. Two blocks always meet, so they are the whole. Smaller
    weights, and those with n > 4m, are not turned: it saves little there.
    """
    large, small = max(shape), min(shape)
    if not isinstance(constraint, Orthonormal) or constraint.schedule is not None or constraint.blocks == 0:
        return None
    if small == 0 or large > 4 * small or (constraint.blocks is None and large < 256):
        return None
    usual = min(32, int((16 if large == small else 6 * (large / small) ** 1.5) * (1 if large < 1024 else 2)))
    most = (constraint.blocks or usual) // 2 * 2
    return next((blocks for blocks in range(most, 2, -2) if large % blocks == 0), 1)


def longest(size: int) -> float:
    """Radians by which a step turns a plane of a weight with ``size`` rows (or columns, if it has more) at most.

    Adam moves every entry of A by its learning rate, so a direction that all gradients share would be turned by up to
    ``size`` times that, and would carry on. Measured, not derived: LOG.md, 2026-11-25.
    """
    return LONGEST * min(1.0, 256 / size)


class Frame(Coordinate):
    """Turns weights of `Orthonormal` that are not far from square.

    Args:
        blocks: q, 1 or an even divisor of max(out, in).
    """

    def __init__(self, blocks: int = 1) -> None:
        self.blocks = blocks
        self.rounds = max(1, blocks - 1)

    def group(self, move: Move) -> Hashable:
        """Weights of one shape are turned together."""
        return move.weight.shape, move.weight.dtype, move.weight.device, self.blocks

    def work(self, move: Move) -> float:
        """The products of all pairs with W, and with S where that is turned too."""
        turned = 2 if self.blocks > 1 and _is_square(move.weight) else 1
        return turned * move.weight.numel() * max(_matrix(move.weight).shape) / max(2, self.blocks)

    def outcome(self, move: Move) -> dict[str, Any]:
        """What a turn leaves as it is were the readings, and S where W is not square."""
        read = {"met", "own"} if _is_square(move.weight) else {"met", "own", "sum"}
        return {key: value for key, value in move.memory.items() if key not in read}

    @torch.no_grad()
    def before_step(self, move: Move) -> None:
        """W.data ← zero turns (n, 2n/q), W.grad ← their gradient, optimizer.state[W] ← that of this round."""
        weight, state = move.weight, move.optimizer.state
        with full_precision(weight):
            self._recollect(move)
            gradient = self._read(move)
        move.refuse_non_finite(gradient)
        stacked = move.kept["state"] = state.pop(weight, {})
        if move.memory["steps"] >= self.rounds:
            state[weight] = open_round(stacked, self._round(move))
        elif first := first_momentum(move.optimizer, weight, gradient):  # there is no state for this round yet
            state[weight] = first
        # a constant has no skew part, so weight decay moves nothing; this one is as large as orthonormal entries are
        weight.grad, weight.data = None, torch.full_like(gradient, len(gradient) ** -0.5)
        move.hand(gradient if move.scale == 1.0 else gradient.mul_(move.scale))

    def give_back(self, move: Move) -> None:
        """W is W again, and what the optimizer made of the turns is kept to be folded."""
        if move.handed:
            move.kept["turns"], move.weight.data = move.weight.data, move.data

    @torch.no_grad()
    def after_step(self, move: Move) -> None:
        """The state of this round joins that of the others."""
        if "state" in move.kept:
            weight, state, stacked = move.weight, move.optimizer.state, move.kept.pop("state")
            made = state.pop(weight, {})
            if stacked:
                state[weight] = stacked
            close_round(stacked, self._round(move), self.rounds, made)
            if stacked:
                state[weight] = stacked
            if self.rounds > 1 and move.memory["steps"] == 1:
                refuse_hidden_state(move.optimizer, weight, self._shape(weight), move.name)

    @torch.no_grad()
    def fold_(self, moves: Sequence[Move]) -> None:
        """Turn each weight by the pairs of its round."""
        weight, pairs = moves[0].weight, max(1, self.blocks // 2)
        with full_precision(weight):
            turns = torch.cat([move.kept.pop("turns").unflatten(0, (pairs, -1)) for move in moves])
            angles = (turns - turns.mT).mul_(0.5 * math.sqrt(self.rounds))  # any optimizer's A, made exactly skew
            change, error = rotation(angles, longest(max(_matrix(weight).shape)))
            if not error < math.inf:
                raise TightlipError(
                    f"a step would leave NaN, infinity or no rotation in {moves[0].name}: lower the learning rate"
                )
            for move, turn in zip(moves, change.split(pairs), strict=True):
                self._turn_(move, turn)
                self._settle_(move, error / torch.finfo(turn.dtype).eps + ROUNDING)

    @torch.no_grad()
    def after_failure_(self, move: Move) -> None:
        """Give up the gradients that wait: how much of the step they have seen is not known."""
        if "blocks" in move.memory:
            self._forget(move)

    def _settle_(self, move: Move, error: float) -> None:
        """Count the step; where errors have added up, or W was written to, take the polar factor."""
        memory = move.memory
        memory["steps"] += 1
        memory["drift"] += error
        if not memory["drift"] <= DRIFT:
            move.weight.copy_(polar(_matrix(move.weight)).view(move.weight.shape))
            memory["drift"] = 0.0
        memory["fingerprint"] = fingerprint(move.weight)

    def _recollect(self, move: Move) -> None:
        """Make ``memory`` that of this very weight: begin anew if there is none, or if W was written to since."""
        memory, weight = move.memory, move.weight
        if not memory:
            state = move.optimizer.state.get(weight, {})
            stacked = stack_fresh(state, weight, self.rounds, self._shape(weight))
            if stacked is None:
                refuse_other_blocks(move, self.blocks)
            if stacked:
                move.optimizer.state[weight] = stacked
            memory |= {"blocks": self.blocks, "steps": self.rounds if stacked else 0, "fingerprint": -1}
        refuse_other_blocks(move, self.blocks)
        if memory["fingerprint"] != fingerprint(weight):
            self._forget(move)

    def _forget(self, move: Move) -> None:
        """Give up the gradients that wait, and have the polar factor taken after the next turn."""
        memory, weight, q = move.memory, _matrix(move.weight), self.blocks
        memory["drift"] = math.inf
        if q > 1:
            size = max(weight.shape) // q
            memory["sum"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            memory["met"] = weight.new_zeros(self.rounds, q // 2, size, size)
            memory["own"] = weight.new_zeros(q, size, size)

    def _shape(self, weight: Tensor) -> tuple[int, int]:
        """What the optimizer is handed: the pairs of a round, one above the other."""
        size = max(_matrix(weight).shape)
        return size, 2 * size // max(2, self.blocks)

    def _round(self, move: Move) -> int:
        return move.memory["steps"] % self.rounds  # type: ignore[no-any-return]

    def _read(self, move: Move) -> Tensor:
        """The gradient of this round's turns, one pair above the other."""
        weight, gradient = _matrix(move.weight), move.gradient.flatten(1)
        if move.scale != 1.0:
            gradient = gradient / move.scale
        if self.blocks == 1:
            return skew_part_(_tall(gradient) @ _tall(weight).mT)
        memory, order = move.memory, _order(self.blocks, self._round(move), weight.device)
        decay, total = KEPT ** (1 / self.rounds), memory["sum"]
        torch.add(gradient, total, alpha=decay, out=total)
        product = torch.bmm(_pairs(move, total, order, "sum"), _pairs(move, weight, order, "weight").mT)
        skew = (product - product.mT).mul_(0.5)
        halves = skew.unflatten(2, (2, -1)).unflatten(1, (2, -1))  # (pair, half, row, half, column)
        own = halves.diagonal(0, 1, 3).permute(0, 3, 1, 2)
        before = memory["own"].index_select(0, order).view(own.shape)
        memory["own"].index_copy_(0, order, own.flatten(0, 1))
        own.sub_(before, alpha=decay)
        met, last = halves[:, 0, :, 1], memory["met"][self._round(move)]
        new = met.sub(last, alpha=KEPT)
        last.copy_(met)
        met.copy_(new)
        halves[:, 1, :, 0].copy_(new.mT.neg_())
        return skew.flatten(0, 1)

    def _turn_(self, move: Move, change: Tensor) -> None:
        """F ← F + (R − I)·F on the pairs of this round, and S likewise."""
        weight = _matrix(move.weight)
        self._turn_matrix_(move, weight, change)
        if weight.data_ptr() != move.weight.data_ptr():  # a kernel that does not lie in one piece
            move.weight.copy_(weight.view(move.weight.shape))

    def _turn_matrix_(self, move: Move, weight: Tensor, change: Tensor) -> None:
        if self.blocks == 1:
            _tall(weight).add_(change[0] @ _tall(weight))
            return
        order = _order(self.blocks, self._round(move), weight.device)
        turned_too = {"sum": move.memory["sum"]} if _is_square(weight) else {}
        for use, matrix in ({"weight": weight} | turned_too).items():
            blocks, dim = _blocks(matrix, self.blocks)
            pairs, turned = _two_by_two(_ordered(move, blocks, use), dim), move.buffer("turned", *blocks.shape)
            if dim == 0:
                torch.bmm(change, pairs, out=_two_by_two(turned, dim))
            else:  # the transposed product, which lies in memory as the weight does
                torch.bmm(pairs.mT, change.mT, out=_two_by_two(turned, dim).mT)
            blocks.index_add_(dim, order, turned)


def _matrix(weight: Tensor) -> Tensor:
    """(out, in · taps): the weight itself, or that of a convolution whose taps are as many as its stride."""
    return weight.detach().flatten(1)


def _is_square(weight: Tensor) -> bool:
    """Whether the gradients that wait are turned along with it."""
    rows, columns = _matrix(weight).shape
    return rows == columns


def _tall(weight: Tensor) -> Tensor:
    return weight if weight.shape[0] >= weight.shape[1] else weight.mT


def _blocks(matrix: Tensor, count: int) -> tuple[Tensor, int]:
    """The larger side cut into blocks, and its place: (q, n/q, m) and 0, or of a wide matrix (m, q, n/q) and 1."""
    dim = 0 if matrix.shape[0] >= matrix.shape[1] else 1
    return matrix.unflatten(dim, (count, -1)), dim


def _two_by_two(blocks: Tensor, dim: int) -> Tensor:
    """Ordered blocks as pairs (q/2, 2n/q, m)."""
    pairs = blocks.unflatten(dim, (-1, 2)).flatten(dim + 1, dim + 2)
    return pairs if dim == 0 else pairs.permute(1, 2, 0)


def _pairs(move: Move, matrix: Tensor, order: Tensor, use: str) -> Tensor:
    """(q/2, 2n/q, m): the rows of F in the blocks that meet, copied; they are there until the weight is turned."""
    blocks, dim = _blocks(matrix, len(order))
    return _two_by_two(torch.index_select(blocks, dim, order, out=_ordered(move, blocks, use)), dim)


def _ordered(move: Move, blocks: Tensor, use: str) -> Tensor:
    return move.buffer((use, id(move.weight)), *blocks.shape)


@cache
def _order(blocks: int, number: int, device: torch.device) -> Tensor:
    """(q,): the blocks in the order in which they meet in this round, two by two."""
    return torch.tensor(tournament(blocks)[number], device="cpu").flatten().to(device)
