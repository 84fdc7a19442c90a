"""Certified radii: how far every input may move before the prediction can change.

If f is K-Lipschitz from the p-norm to the q-norm, a difference of two logits changes by at most 2^(1−1/q)·K·‖δ‖_p, so

    radius = (y_t − max_{i≠t} y_i) / (2^(1−1/q)·K):   2K for q = ∞, √2·K for q = 2, K for q = 1,

or more, pair by pair, where the network ends in a linear layer (`pairs`). A network with one logit z answers by its
sign; it is the pair (−z/2, z/2), whose difference z changes by at most K·‖δ‖_p, so its radius is |z| / K.

(The rule printed in the paper, §4.3, M > Kε/2, is a factor 4 too generous: f(x) = (x, −x), x = 0.3, ε = 1 flips.)
Logits are evaluated in float64, and what that evaluation can be off by is subtracted from the margin first; radii are
rounded down. Ties, NaN and infinity are never certified.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import FLATTEN
from ..audit import Bound, audit, bound_of
from ..constraints import constraint_of
from ..errors import TightlipError
from ..graphs.graph import Graph
from ..graphs.tracing import as_graph, refuse_disagreement
from ..linalg.rounding import widened
from ..norms import as_norm
from .batches import Labeled, batches, labeled
from .evaluation import Wide, evaluate, wide
from .pairs import pair_sensitivity

Columns = tuple[Tensor, Tensor, Tensor, Tensor]
"""Radius, margin, prediction and correctness of some inputs."""


@dataclass(frozen=True)
class Certificate:
    """Radii within which no perturbation changes the prediction, for every input of a batch.

    ``radius`` is in the p-norm of the bound and in units of the inputs; 0 where the prediction is wrong, tied or not
    finite. ``margin`` is y_t − max y_i (t the label, or the prediction without labels), lowered by the rounding error.
    ``correct`` says where the prediction is the label beyond rounding. Without labels (``labeled`` is false) nothing is
    known to be right or wrong: it says where the prediction is beyond rounding, and `accuracy` and `curve` count the
    inputs whose predicted class, whether right or not, stays the same within eps.
    """

    radius: Float[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    prediction: Int[Tensor, " batch"]
    correct: Bool[Tensor, " batch"]
    bound: Bound
    labeled: bool = True

    def __repr__(self) -> str:
        count, sure = len(self.radius), int(self.correct.sum())
        unlabeled = f"without labels, {sure} whose predicted class stays the same nearby"
        return f"Certificate({count} inputs, {f'{sure} correct' if self.labeled else unlabeled}, {self.bound!r})"

    def accuracy(self, eps: float) -> float:
        """Certified accuracy: the share of inputs with radius > ``eps``; at 0 the share of safely correct ones.

        Without labels it is the share of predicted classes that stay the same within ``eps``, and no accuracy.

        Raises:
            TightlipError: if ``eps`` is not a number ≥ 0, or there are no inputs.
        """
        return float(self.curve([eps])[0])

    def curve(self, eps: Sequence[float] | Float[Tensor, " radii"]) -> Float64[Tensor, " radii"]:
        """The certified accuracy at each of ``eps``, in their order: what `accuracy` says, for one sort in all.

        Raises:
            TightlipError: if one of ``eps`` is not a number ≥ 0, they are not a row, or there are no inputs.
        """
        if not len(self.radius):
            raise TightlipError("this certificate has no inputs, so no share of them: certify at least one")
        try:
            at = torch.as_tensor(eps, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, OverflowError, RuntimeError) as problem:
            raise TightlipError(
                "each radius must be a number ≥ 0 that a float64 can hold: give a row of them"
            ) from problem
        if at.dim() != 1 or not bool((at >= 0).all()):
            raise TightlipError(f"each radius must be a number ≥ 0, got eps = {eps}: give a row of them")
        radius = self.radius.cpu().double().sort().values
        return (len(radius) - torch.searchsorted(radius, at, right=True)).double() / len(radius)


@torch.no_grad()
def certify(
    network: nn.Module,
    x: Any,
    y: Any = None,
    p: float = 2,
    batch_size: int = 1024,
    progress: bool = True,
    output: int | str | None = None,
) -> Certificate:
    """Certified radii of a frozen classifier, from its audited constant alone.

    Of data larger than memory give the batches one by one: only radii, margins and predictions are kept.

    Args:
        network: A frozen network (see `tightlip.freeze`) with logits of shape (batch, classes), or (batch, 1): one
            logit z answers class 1 where z > 0 and class 0 where z < 0, with margin ±z and radius |z| / K.
        x: Inputs (batch, …), a tensor or an array of float16 to float64; converted to float64 exactly, and moved to the
            network's device. Or a `Part` of a split, with its labels. Or an iterable of batches, such as a
            ``DataLoader``: inputs of that kind, or pairs of inputs and true classes.
        y: True classes (batch,), integers from 0 (for one logit also −1 and 1); None certifies the predicted class
            instead. Batches bring their own.
        p: The norm of the perturbations: 1, 2 or ``math.inf``.
        batch_size: Inputs evaluated at once; larger batches are divided.
        output: Of a network with several outputs the one that answers, by its number or its name.
        progress: Show a progress bar on a terminal, if it takes longer than a second.

    Raises:
        TightlipError: if a layer is still held by a constraint, the network cannot be audited, shapes do not fit,
            labels are out of range, only some batches have labels, or there are no batches; if this thread flushes
            denormal numbers to zero.

    >>> certificate = certify(nn.Identity(), torch.tensor([[0.6, 0.0]]), p=math.inf)
    >>> round(float(certificate.radius), 6)
    0.3
    """
    _refuse_held(network)
    parts = batches(x, y, batch_size)
    graph = as_graph(network)
    compare = functools.partial(refuse_disagreement, network, graph)
    network = _answering(graph, output)
    audited = audit(network)
    bound = bound_of(audited, as_norm(p))
    pairs = functools.cache(lambda classes: pair_sensitivity(audited, p, bound.sensitivity, classes))
    judge = functools.partial(_judge, wide(network, audited), pairs, _device(network))
    found: list[Columns] = []
    have_labels = None
    for number, batch in enumerate(tqdm(parts, "certify", unit="batch", delay=1.0, disable=None if progress else True)):
        try:
            inputs, labels = labeled(batch)
            if have_labels is not None and have_labels != (labels is not None):
                raise TightlipError("either every batch has labels or none has: give all of them alike")
            have_labels = labels is not None
            if not found:
                compare(inputs)
            found += [judge(*part) for part in _split(inputs, labels, batch_size)]
        except TightlipError as problem:
            if parts is not x:  # slices that were made here have no numbers
                raise
            raise TightlipError(f"batch {number}: {problem}") from problem
    if not found:
        raise TightlipError("there are no batches to certify: give at least one (a generator can be used only once)")
    radius, margin, prediction, correct = (torch.cat(column) for column in zip(*found, strict=True))
    return Certificate(radius, margin, prediction, correct, bound, bool(have_labels))


def _refuse_held(network: Any) -> None:
    if not isinstance(network, nn.Module):
        raise TightlipError(f"certify takes the network first and inputs second, got a {type(network).__name__} first")
    if any(constraint_of(layer) is not None for layer in network.modules()):
        raise TightlipError("this network is still held by constraints: certify(freeze(network), …) instead")


def _answering(network: nn.Module, output: int | str | None) -> nn.Module:
    """The network with the output that answers."""
    if isinstance(network, Graph) and (output is not None or network.outputs):
        return network.only(output)
    if output is not None:
        raise TightlipError("this network has one output: leave out output=")
    return network


def _split(x: Tensor, y: Tensor | None, batch_size: int) -> Iterator[Labeled]:
    return zip(x.split(batch_size), repeat(None) if y is None else y.split(batch_size), strict=False)


def _device(network: nn.Module) -> torch.device | None:
    """Where the network lies; None if it has no tensors, so that it works anywhere."""
    return next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)


def _judge(
    network: Wide, pairs: Callable[[int], Tensor], device: torch.device | None, x: Tensor, y: Tensor | None
) -> Columns:
    inputs = widened(x).to(device or x.device)
    finite = torch.isfinite(inputs.flatten(1)).all(1)
    logits, error = evaluate(network, inputs)
    if logits.dim() != 2 or not logits.shape[1]:
        advice = f"; of inputs with several axes make rows: {FLATTEN}" if logits.dim() == x.dim() > 2 else ""
        raise TightlipError(f"the outputs have shape {tuple(logits.shape)}: certificates need (batch, classes){advice}")
    sensitivity = pairs(logits.shape[1]).to(logits.device)
    if logits.shape[1] == 1:
        y = None if y is None else _two_classes(y)
        logits = torch.cat((-logits, logits), 1) / 2  # their difference is the logit, and so is what is known of it
    prediction = logits.argmax(1)
    target = prediction if y is None else _checked(y.to(logits.device), logits)
    margin = _margin(logits, target) - 1.5 * error
    finite = finite & torch.isfinite(logits).all(1)
    sound = finite & torch.isfinite(margin) & (margin > 0)
    correct = (prediction == target) & sound
    radius = torch.where(correct, _radius(logits, target, 1.5 * error, sensitivity), 0.0)
    return radius.cpu(), margin.cpu(), prediction.cpu(), correct.cpu()


def _two_classes(y: Tensor) -> Tensor:
    """Labels 0 and 1, or −1 and 1, as 0 and 1."""
    negative = y == -1
    if not bool(((y == 1) | (y == 0)).all() | ((y == 1) | negative).all()):
        raise TightlipError("a network with one output tells two classes apart: give the labels 0 and 1, or -1 and 1")
    return y.masked_fill(negative, 0)


def _checked(y: Tensor, logits: Tensor) -> Tensor:
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < logits.shape[1]):
        classes = f"{logits.shape[1]} classes from 0"
        raise TightlipError(f"labels reach from {int(y.min())} to {int(y.max())}: number the {classes}")
    return y


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
