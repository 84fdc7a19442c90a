"""Certified radii: how far every input may move before the prediction can change.

If f is K-Lipschitz from the p-norm to the q-norm, a difference of two logits changes by at most 2^(1−1/q)·K·‖δ‖_p, so

    radius = (y_t − max_{i≠t} y_i) / (2^(1−1/q)·K):   2K for q = ∞, √2·K for q = 2, K for q = 1,

or more, pair by pair, where the network ends in a linear layer (`pairs`).

(The rule printed in the paper, §4.3, M > Kε/2, is a factor 4 too generous: f(x) = (x, −x), x = 0.3, ε = 1 flips.)
Logits are evaluated in float64, and what that evaluation can be off by is subtracted from the margin first; radii are
rounded down. Ties, NaN and infinity are never certified.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..audit import Bound, audit_layers, bound_of
from ..constraints import constraint_of
from ..errors import TightlipError
from .evaluation import Step, evaluate, steps
from .pairs import pair_sensitivity

Labeled = tuple[Tensor, Tensor | None]
"""Inputs, and their true classes where these are known."""

Columns = tuple[Tensor, Tensor, Tensor, Tensor]
"""Radius, margin, prediction and correctness of some inputs."""


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
        return float(self.curve([eps])[0])

    def curve(self, eps: Sequence[float] | Float[Tensor, " radii"]) -> Float64[Tensor, " radii"]:
        """The certified accuracy at each of ``eps``, in their order: what `accuracy` says, for one sort in all.

        Raises:
            TightlipError: if one of ``eps`` is negative or NaN, or they are no row of numbers.
        """
        at = torch.as_tensor(eps, dtype=torch.float64, device="cpu")
        if at.dim() != 1 or not bool((at >= 0).all()):
            raise TightlipError(f"eps = {eps} holds what is no radius: give a row of numbers ≥ 0")
        radius = self.radius.cpu().double().sort().values
        return (len(radius) - torch.searchsorted(radius, at, right=True)).double() / len(radius)


@torch.no_grad()
def certify(
    network: nn.Module,
    x: Tensor | Iterable[Any],
    y: Tensor | None = None,
    p: float = 2,
    batch_size: int = 1024,
    progress: bool = True,
) -> Certificate:
    """Certified radii of a frozen classifier, from its audited constant alone.

    Of data larger than memory give the batches one by one: only radii, margins and predictions are kept.

    Args:
        network: A frozen network (see `tightlip.freeze`) with logits of shape (batch, classes).
        x: Inputs (batch, …), any floating dtype; converted to float64 exactly, on the network's device. Or an iterable
            of batches, such as a ``DataLoader``: tensors of that kind, or pairs of inputs and true classes.
        y: True classes (batch,), integers; None certifies the predicted class instead. Batches bring their own.
        p: The norm of the perturbations: 1, 2 or ``math.inf``.
        batch_size: Inputs evaluated at once; larger batches are divided.
        progress: Show a progress bar on a terminal, if it takes longer than a second.

    Raises:
        TightlipError: if a layer is still held by a constraint, the network cannot be audited, shapes do not fit,
            labels are out of range, only some batches have labels, or there are no batches.

    >>> certificate = certify(nn.Identity(), torch.tensor([[0.6, 0.0]]), p=math.inf)
    >>> round(float(certificate.radius), 6)
    0.3
    """
    if any(constraint_of(layer) is not None for layer in network.modules()):
        raise TightlipError("this network is still held by constraints: certify(freeze(network), …) instead")
    batches = _batches(x, y, batch_size)
    audited = audit_layers(network)
    bound = bound_of(audited, p)
    pairs = functools.cache(lambda classes: pair_sensitivity(audited, p, bound.sensitivity, classes))
    judge = functools.partial(_judge, steps(network, audited), pairs, _device(network))
    found: list[Columns] = []
    labeled = None
    for number, batch in enumerate(
        tqdm(batches, "certify", unit="batch", delay=1.0, disable=None if progress else True)
    ):
        try:
            inputs, labels = _labeled(batch)
            if labeled is not None and labeled != (labels is not None):
                raise TightlipError("either every batch has labels or none has: give all of them alike")
            labeled = labels is not None
            found += [judge(*part) for part in _split(inputs, labels, batch_size)]
        except TightlipError as problem:
            if isinstance(x, Tensor):
                raise
            raise TightlipError(f"batch {number}: {problem}") from problem
    if not found:
        raise TightlipError("there are no batches to certify: give at least one (a generator can be used only once)")
    radius, margin, prediction, correct = (torch.cat(column) for column in zip(*found, strict=True))
    return Certificate(radius, margin, prediction, correct, bound)


def _batches(x: Any, y: Any, batch_size: int) -> Iterable[Any]:
    """What to go through: slices of one tensor, or the batches as they come."""
    if batch_size < 1:
        raise TightlipError(f"batch_size={batch_size} evaluates nothing: give a number ≥ 1")
    if isinstance(x, Tensor):
        return list(_split(*_labeled((x, y)), batch_size))
    if not isinstance(x, Iterable) or hasattr(x, "__array__") or not isinstance(y, Tensor | None):
        raise TightlipError("certificates are made for torch tensors: convert arrays with torch.as_tensor")
    if y is not None:
        raise TightlipError("labels of batches come with the batches: give pairs (x, y), and no y beside them")
    return x


def _labeled(batch: Any) -> Labeled:
    """The inputs and labels of a batch, checked."""
    x, y = (*batch, None)[:2] if isinstance(batch, tuple | list) and 1 <= len(batch) <= 2 else (batch, None)
    if not isinstance(x, Tensor) or not isinstance(y, Tensor | None):
        kind = type(y if isinstance(x, Tensor) else x).__name__
        raise TightlipError(
            f"certificates are made for torch tensors x, or pairs (x, y), not for a {kind}: "
            "convert arrays with torch.as_tensor"
        )
    if not x.is_floating_point() or x.dim() < 2:
        raise TightlipError(
            f"inputs of shape {tuple(x.shape)} and {x.dtype} cannot be certified: give (batch, …) floats"
        )
    if y is not None and (y.shape != x.shape[:1] or y.is_floating_point()):
        raise TightlipError(
            f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit {len(x)} inputs: give one integer for each"
        )
    return x, y


def _split(x: Tensor, y: Tensor | None, batch_size: int) -> Iterator[Labeled]:
    return zip(x.split(batch_size), repeat(None) if y is None else y.split(batch_size), strict=False)


def _device(network: nn.Module) -> torch.device | None:
    """Where the network lies; None if it has no tensors, so that it works anywhere."""
    return next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)


def _judge(
    network: list[Step], pairs: Callable[[int], Tensor], device: torch.device | None, x: Tensor, y: Tensor | None
) -> Columns:
    finite = torch.isfinite(x.flatten(1)).all(1)
    logits, error = evaluate(network, x.to(device or x.device, torch.float64, copy=True))
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes ≥ 2)")
    prediction = logits.argmax(1)
    target = prediction if y is None else _checked(y.to(logits.device), logits)
    margin = _margin(logits, target) - 1.5 * error
    finite = finite.to(logits.device) & torch.isfinite(logits).all(1)
    sound = finite & torch.isfinite(margin) & (margin > 0)
    correct = (prediction == target) & sound
    sensitivity = pairs(logits.shape[1]).to(logits.device)
    radius = torch.where(correct, _radius(logits, target, 1.5 * error, sensitivity), 0.0)
    return radius.cpu(), margin.cpu(), prediction.cpu(), correct.cpu()


def _checked(y: Tensor, logits: Tensor) -> Tensor:
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
