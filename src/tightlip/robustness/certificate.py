"""Certified radii: how far every input may move before the prediction can change.

If f is K-Lipschitz from the p-norm to the q-norm, a difference of two logits changes by at most 2^(1−1/q)·K·‖δ‖_p, so

    radius = (y_t − max_{i≠t} y_i) / (2^(1−1/q)·K):   2K for q = ∞, √2·K for q = 2, K for q = 1,

or more, pair by pair, where the network ends in a linear layer (`pairs`).

(The rule printed in the paper, §4.3, M > Kε/2, is a factor 4 too generous: f(x) = (x, −x), x = 0.3, ε = 1 flips.)
Logits are evaluated in float64, and what that evaluation can be off by is subtracted from the margin first; radii are
rounded down. Ties, NaN and infinity are never certified.
"""

import copy
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..audit import UNKNOWN, Bound, Gains, chain, gains, lipschitz
from ..constraints import constraint_of
from ..errors import TightlipError
from ..linalg.rounding import SMALLEST_SQUARED, UNDERFLOW, UNIT_ROUNDOFF, round_up
from .pairs import pair_sensitivity


@dataclass(frozen=True)
class Certificate:
    """Radii within which no perturbation changes the prediction, for every input of a batch.

    ``radius`` is in the p-norm of the bound and in units of the inputs; 0 where the prediction is wrong, tied or not
    finite. ``margin`` is y_t − max y_i (t the label, or the prediction without labels), lowered by the rounding error.
    """

    radius: Float[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    prediction: Int[Tensor, " batch"]
    correct: Bool[Tensor, " batch"]
    bound: Bound

    def __repr__(self) -> str:
        return f"Certificate({len(self.radius)} inputs, {int(self.correct.sum())} correct, {self.bound!r})"

    def accuracy(self, eps: float) -> float:
        """Certified accuracy: the share of inputs with radius > ``eps``; at 0 the share of safely correct ones.

        Raises:
            TightlipError: if ``eps`` is negative or NaN.
        """
        if not eps >= 0:
            raise TightlipError(f"eps = {eps} is no radius: give a number ≥ 0")
        return float((self.radius > eps).double().mean())


@torch.no_grad()
def certify(
    network: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    p: float = 2,
    batch_size: int = 1024,
) -> Certificate:
    """Certified radii of a frozen classifier, from its audited constant alone.

    Args:
        network: A frozen network (see `tightlip.freeze`) with logits of shape (batch, classes).
        x: Inputs (batch, …), any floating dtype; converted to float64 exactly.
        y: True classes (batch,), integers; None certifies the predicted class instead.
        p: The norm of the perturbations: 1, 2 or ``math.inf``.
        batch_size: Inputs evaluated at once.

    Raises:
        TightlipError: if a layer is still held by a constraint, the network cannot be audited, shapes do not fit, or
            labels are out of range.

    >>> certificate = certify(nn.Identity(), torch.tensor([[0.6, 0.0]]), p=math.inf)
    >>> round(float(certificate.radius), 6)
    0.3
    """
    if any(constraint_of(layer) is not None for layer in network.modules()):
        raise TightlipError("this network is still held by constraints: certify(freeze(network), …) instead")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor | None):
        raise TightlipError("certificates are made for torch tensors: convert arrays with torch.as_tensor")
    if not x.is_floating_point() or x.dim() < 2:
        raise TightlipError(
            f"inputs of shape {tuple(x.shape)} and {x.dtype} cannot be certified: give (batch, …) floats"
        )
    bound = lipschitz(network, p)
    exact = copy.deepcopy(network).eval().double()
    logits, error = _evaluate(exact, x, batch_size)
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes ≥ 2)")
    prediction = logits.argmax(1)
    target = prediction if y is None else _checked(y.to(logits.device), logits)
    margin = _margin(logits, target) - 1.5 * error
    finite = torch.isfinite(x.flatten(1)).all(1).to(logits.device) & torch.isfinite(logits).all(1)
    sound = finite & torch.isfinite(margin) & (margin > 0)
    correct = (prediction == target) & sound
    pairs = pair_sensitivity(network, p, bound.sensitivity, logits.shape[1]).to(logits.device)
    radius = torch.where(correct, _radius(logits, target, 1.5 * error, pairs), 0.0)
    return Certificate(radius.cpu(), margin.cpu(), prediction.cpu(), correct.cpu(), bound)


def _evaluate(network: nn.Module, x: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    layers = [(layer, gains(layer, name)) for name, layer in chain(network)]
    for layer, known in layers:
        if known.roundoff == UNKNOWN:
            kind = type(layer).__name__
            raise TightlipError(f"the rule of {kind} states no roundoff: return Gains(…, Roundoff(…)) to certify")
    try:
        pieces = [_logits(layers, part.to(torch.float64, copy=True)) for part in x.split(batch_size)]
    except RuntimeError as problem:
        raise TightlipError(f"inputs of shape {tuple(x.shape)} do not fit the network: {problem}") from problem
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def _checked(y: Tensor, logits: Tensor) -> Tensor:
    if y.shape != logits.shape[:1] or y.is_floating_point():
        raise TightlipError(f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit {len(logits)} inputs")
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < logits.shape[1]):
        raise TightlipError(f"labels reach from {int(y.min())} to {int(y.max())}: number the classes from 0")
    return y.long()


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    """y_t − max_{i≠t} y_i, rounded down."""
    others = logits.scatter(1, target.unsqueeze(1), -math.inf).amax(1)
    return _down(logits.gather(1, target.unsqueeze(1)).squeeze(1) - others)


def _radius(logits: Tensor, target: Tensor, error: Tensor, pairs: Tensor) -> Tensor:
    """min_i (y_t − y_i − error) / S[t, i], rounded down at each step; infinite where no logit can catch up."""
    lead = logits.gather(1, target.unsqueeze(1)) - logits
    lead = _down(_down(lead) - error.unsqueeze(1))
    radius = _down(lead / pairs[target])
    radius = torch.where(pairs[target] == 0, math.inf, radius)
    return radius.scatter(1, target.unsqueeze(1), math.inf).amin(1).clamp(min=0.0)


def _down(value: Tensor) -> Tensor:
    """The next float64 below, which covers the rounding of one operation."""
    return torch.nextafter(value, torch.full_like(value, -math.inf))


def _size(x: Tensor) -> Tensor:
    """‖x‖₂ of each input from above; squares that underflow are covered by the second term."""
    return x.flatten(1).norm(dim=1) + SMALLEST_SQUARED


def _logits(layers: list[tuple[nn.Module, Gains]], x: Tensor) -> tuple[Tensor, Tensor]:
    """The float64 logits and, per input, a bound on their distance in the 2-norm from the exact ones."""
    error = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for layer, known in layers:
        size, count = _size(x), len(x)
        x = layer(x)
        if len(x) != count:
            raise TightlipError(f"{type(layer).__name__} changes the number of examples: keep the batch axis apart")
        spread = round_up(Fraction(known.table[2.0, 2.0])) if (2.0, 2.0) in known.table else math.inf
        rounding = known.roundoff
        local = rounding.input * size + rounding.output * _size(x) + UNDERFLOW
        carried = torch.where(error == 0, 0.0, spread * error)
        error = (carried + local) * (1.0 + 64.0 * UNIT_ROUNDOFF)
    return x, error
