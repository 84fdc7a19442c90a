"""Sets of classes that hold the true one with a chosen probability, also where inputs are moved by up to ε.

Let s_i(x) = max_{j≠i} y_j − y_i say how little class i is one's answer, and let q be the ⌈(n + 1)(1 − α)⌉-th smallest
score s_y(x) of n labeled inputs that the network was not trained on (split conformal prediction). At an input x' that
somebody may have moved by ‖δ‖_p ≤ ε, the score of class i was at least

    max_{j≠i} (y_j − y_i − S[j, i]·ε)         (S as in `pairs`),

and the set is made of all classes for which this is ≤ q.

**Theorem.** If the n inputs and one more, x, are exchangeable, the set at x + δ holds the class of x with at least the
probability 1 − α, for all ‖δ‖_p ≤ ε at once.

*Proof.* The score of x is as likely to have any rank among all n + 1 scores, so it is one of the ⌈(n + 1)(1 − α)⌉
smallest with at least that share. Then it is not above q; ties only help. What stands in the formula is below s_i(x)
for every δ, so a class whose own score is not above q is never left out. Scores of the n are rounded up, those of x'
down. ∎

Sources: Vovk, Gammerman & Shafer 2005; Gendler et al. 2022, "Adversarially Robust Conformal Prediction" (a score that
is stable gives robust sets); Massena et al. 2025, "Efficient Robust Conformal Prediction via Lipschitz-Bounded
Networks".
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..arguments import number, probability
from ..audit import Bound
from ..errors import TightlipError
from .batches import batches, labeled
from .certificate import certify
from .contests import LARGEST, as_contest
from .decision import Steepness
from .examination import Examined, examined
from .judging import evaluated
from .overtaking import down

_USUAL = 0.1
"""Of alpha, in errors."""


@dataclass(frozen=True)
class ConformalSets:
    """A network that answers with a set of classes: called with inputs (batch, …), it returns (batch, classes).

    ``quantile`` is the q of this file, ``calibrated`` the number of inputs that it comes from. The set of an input that
    is not finite holds all classes.
    """

    quantile: float
    alpha: float
    eps: float
    calibrated: int
    bound: Bound
    known: Examined = field(repr=False)
    steepness: Callable[[int], Steepness] = field(repr=False)

    @torch.no_grad()
    def __call__(self, x: Any, batch_size: int = 1024) -> Bool[Tensor, "batch classes"]:
        """Which classes are in the set of each input, a tensor or an array, or batches of such without labels.

        Raises:
            TightlipError: as `certify` for inputs.
        """
        parts = [labeled(batch)[0] for batch in batches(x, None, batch_size)]
        if not parts:
            raise TightlipError("there are no batches: give at least one (a generator can be used only once)")
        return torch.cat([self._sets(part) for part in parts]).cpu()

    def _sets(self, x: Tensor) -> Tensor:
        finite, logits, error = evaluated(self.known, x)
        moved = -down(-self.steepness(logits.shape[1]).each * self.eps).to(logits.device)
        logits = as_contest(logits)
        held = torch.empty_like(logits, dtype=torch.bool)
        for i in range(logits.shape[1]):
            ahead = down(down(down(logits - logits[:, i, None]) - 1.5 * error.unsqueeze(1)) - moved[i])
            ahead[:, i] = -math.inf
            held[:, i] = ~(ahead.amax(1) > self.quantile)
        return held | ~finite.unsqueeze(1)


def conformal_sets(
    network: nn.Module,
    x: Any,
    y: Any = None,
    alpha: float = 0.1,
    eps: float = 0.0,
    p: float = 2,
    batch_size: int = 1024,
    output: int | str | None = None,
) -> ConformalSets:
    """Calibrate sets of classes on labeled inputs that the network was not trained on.

    The guarantee is about inputs of the same kind as these, on average over them, and over which of them were drawn for
    the calibration; it says nothing of single classes, and nothing where inputs of another kind come.

    Args:
        network: A frozen classifier, as `certify` takes it.
        x: Inputs, as `certify` takes them, not moved by anybody.
        y: Their classes.
        alpha: How often the true class may be missing from its set, in (0, 1).
        eps: How far inputs may be moved later on; 0 gives ordinary split conformal sets.
        p: The norm of that: 1, 2 or ``math.inf``.
        batch_size: Inputs evaluated at once.
        output: Of a network with several outputs the one that answers.

    Raises:
        TightlipError: as `certify`; without labels; for fewer than ⌈1/alpha⌉ − 1 inputs, of which no such q is known.

    >>> points = torch.tensor([[0.9, 0.1], [0.2, 0.4], [0.7, 0.3], [0.6, 0.5]])
    >>> sets = conformal_sets(nn.Identity(), points, torch.tensor([0, 1, 0, 0]), alpha=0.25, eps=0.1)
    >>> sets(torch.tensor([[0.9, 0.1], [0.50, 0.49]]))
    tensor([[ True, False],
            [ True,  True]])
    """
    alpha, eps = probability("alpha", alpha, usual=_USUAL), number("eps", eps, least=0.0)
    certificate = certify(network, x, y, p, batch_size, False, output)
    if certificate.label is None:
        raise TightlipError("sets are calibrated on labeled inputs: give the true classes y")
    count = len(certificate.margin)
    place = math.ceil((count + 1) * (1 - Fraction(alpha)))
    if place > count:
        least = math.ceil(1 / Fraction(alpha)) - 1
        raise TightlipError(f"{count} inputs cannot calibrate sets for alpha = {alpha:g}: give at least {least}")
    scores = torch.nan_to_num(-certificate.margin, nan=math.inf, posinf=math.inf)
    quantile = float(scores.kthvalue(place).values)
    known = examined(network, p, output)
    steepness = functools.cache(functools.partial(LARGEST.steepness, known.audited, p, known.bound.sensitivity))
    return ConformalSets(quantile, alpha, eps, count, certificate.bound, known, steepness)
