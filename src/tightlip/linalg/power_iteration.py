"""The spectral norm of a weight in a training step: estimated by a power iteration, and checked by a factorization.

    v ← WᵀWv / ‖WᵀWv‖          ‖Wv‖ ≤ ‖W‖₂, whichever v it is: an estimate from below
    t²I − WᵀW is positive      ⟺  ‖W‖₂ < t: a Cholesky factorization tells

The estimate alone would let a weight out of the ball. So t = ‖Wv‖ times a little more is taken only where the
factorization succeeds; else an eigenvalue solver gives the norm, at three to five times the price. All is computed in
the weight's own precision, and is as exact as a decomposition would be: the audit is what proves.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .rounding import full_precision

MARGIN = 1e-4
"""How far the bound may stand above the estimate, in parts of it."""

ROUNDING = 8.0
"""By how many units of rounding, times √n, the norm of a member may exceed 1."""

ENOUGH = 1e-5
"""A round that makes the squared estimate larger by less than this, in parts of it, is the last."""


class Norm(NamedTuple):
    """An upper bound on a spectral norm, at most 0.01 % above it, and a vector near where the norm is attained."""

    bound: float
    vector: Float[Tensor, " n"]


def spectral_norm(weight: Float[Tensor, "out in"], start: Tensor | None = None, rounds: int = 20) -> Norm:
    """‖W‖₂ from above, up to the rounding of the weight's type; exactly 1 for any norm that is not above 1.

    Args:
        weight: Finite entries, whose squares do not overflow in sums.
        start: The vector that was returned for nearly the same weight, if there is one.
        rounds: At most so many of the iteration; more make it rarer that the solver is asked.
    """
    with full_precision(weight):
        gram = weight @ weight.mT if len(weight) <= weight.shape[1] else weight.mT @ weight
        square, vector = _iterated(gram, start, rounds)
        one = (1.0 + ROUNDING * torch.finfo(weight.dtype).eps * len(gram) ** 0.5) ** 2
        if square <= one and _within(gram, one):
            return Norm(1.0, vector)
        above = square * (1.0 + MARGIN) ** 2
        if above > 1.0 and _within(gram, above):
            return Norm(above**0.5, vector)
        values, vectors = torch.linalg.eigh(gram)
        return Norm(max(float(values[-1]), 1.0) ** 0.5, vectors[:, -1].contiguous())


def _iterated(gram: Float[Tensor, "n n"], start: Tensor | None, rounds: int) -> tuple[float, Tensor]:
    """The largest eigenvalue from below, and its vector, after at most so many rounds."""
    known = start is not None and start.shape == gram.shape[:1]
    vector = start.to(gram) if known else gram[:, int(gram.diagonal().argmax())]  # type: ignore[union-attr]
    square = 0.0
    for _ in range(rounds):
        vector = torch.nn.functional.normalize(vector, dim=0)
        image = gram @ vector
        last, square = square, float(vector @ image)
        if square <= last * (1.0 + ENOUGH):
            break
        vector = image
    return square, torch.nn.functional.normalize(vector, dim=0)


def _within(gram: Float[Tensor, "n n"], square: float) -> bool:
    """Whether all eigenvalues are below ``square``."""
    shifted = -gram
    shifted.diagonal().add_(square)
    return int(torch.linalg.cholesky_ex(shifted).info) == 0
