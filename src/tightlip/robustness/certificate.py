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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import flag
from ..audit import Bound, audit, bound_of
from ..constraints import constraint_of
from ..errors import TightlipError
from ..graphs.graph import Graph
from ..graphs.tracing import as_graph, refuse_disagreement
from ..norms import as_norm
from .batches import Labeled, batches, labeled
from .evaluation import wide
from .judging import Columns, judge
from .pairs import pair_sensitivity
from .standardized import standardizing
from .statistics import CONFIDENCE, ClassAccuracy, Paired, paired, per_class, wilson, worst_class


@dataclass(frozen=True)
class Certificate:
    """Radii within which no perturbation changes the prediction, for every input of a batch.

    ``radius`` is in the p-norm of the bound and in units of the inputs, or standardized ones where that was asked; 0
    where the prediction is wrong, tied or not finite. ``margin`` is y_t − max y_i (t the label, or the prediction
    without labels), lowered by the rounding error. ``correct`` says where the prediction is the label beyond rounding;
    ``label`` is the true class (of one logit 0 or 1). Without labels (``label`` is None) nothing is known to be right
    or wrong: ``correct`` says where the prediction is beyond rounding, and `accuracy`, `curve` and `interval` count the
    inputs whose predicted class, whether right or not, stays the same within eps.
    """

    radius: Float[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    prediction: Int[Tensor, " batch"]
    correct: Bool[Tensor, " batch"]
    bound: Bound
    label: Int[Tensor, " batch"] | None = None

    @property
    def labeled(self) -> bool:
        """Whether it knows what is right."""
        return self.label is not None

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
        at = self._radii(eps)
        radius = self.radius.cpu().double().sort().values
        return (len(radius) - torch.searchsorted(radius, at, right=True)).double() / len(radius)

    def interval(self, eps: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's interval for `accuracy`: what these inputs tell of all that they were drawn from.

        Raises:
            TightlipError: as `accuracy`, or if ``confidence`` is not between 0 and 1.
        """
        return wilson(int(self._certified(eps).sum()), len(self.radius), confidence)

    def by_class(self, eps: float) -> tuple[ClassAccuracy, ...]:
        """The certified accuracy on the inputs of each class, in the order of the classes that have some.

        Raises:
            TightlipError: as `accuracy`, or without labels.
        """
        return per_class(self._certified(eps), self._labels())

    def worst_class(self, eps: float) -> ClassAccuracy:
        """The class with the lowest certified accuracy; of equals the one with the most inputs, then the first.

        Raises:
            TightlipError: as `by_class`.
        """
        return worst_class(self.by_class(eps))

    def paired(self, other: "Certificate", eps: float = 0.0) -> Paired:
        """This classifier against another one on the same inputs: certified accuracies at ``eps``, input by input.

        Raises:
            TightlipError: if ``other`` is no certificate of as many inputs with the same labels, its radii are in
                another norm and ``eps`` is not 0, or as `accuracy`.
        """
        if not isinstance(other, Certificate):
            raise TightlipError(f"a certificate is compared with another one, got a {type(other).__name__}")
        if not torch.equal(self._labels().cpu(), other._labels().cpu()):
            raise TightlipError(
                f"these certificates, of {len(self.radius)} and {len(other.radius)} inputs, do not have the same "
                "labels: certify the same inputs in the same order"
            )
        norms = self.bound.input_norm, other.bound.input_norm
        if eps and norms[0] != norms[1]:
            raise TightlipError(
                f"radii in the {norms[0]:g}-norm and in the {norms[1]:g}-norm are not comparable: give eps=0, or "
                "certify both in one norm"
            )
        return paired(self._certified(eps), other._certified(eps))

    def _certified(self, eps: Any) -> Bool[Tensor, " batch"]:
        """Which radii are beyond ``eps``."""
        return self.radius.cpu().double() > self._radii([eps])

    def _labels(self) -> Int[Tensor, " batch"]:
        if self.label is None:
            raise TightlipError("this certificate knows no labels, so no classes: give certify the true classes y")
        return self.label

    def _radii(self, eps: Any) -> Float64[Tensor, " radii"]:
        """``eps`` checked."""
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
        return at


@torch.no_grad()
def certify(
    network: nn.Module,
    x: Any,
    y: Any = None,
    p: float = 2,
    batch_size: int = 1024,
    progress: bool = True,
    output: int | str | None = None,
    standardized: bool = False,
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
        standardized: Of a network that begins with `Normalize`: radii are in the norm of what that layer makes, whose
            unit is the std of each feature, and the bound is that of all that follows. ``x`` is raw as ever.

    Raises:
        TightlipError: if a layer is still held by a constraint, the network cannot be audited, shapes do not fit,
            labels are out of range, only some batches have labels, or there are no batches; if this thread flushes
            denormal numbers to zero.

    >>> certificate = certify(nn.Identity(), torch.tensor([[0.6, 0.0]]), p=float("inf"))
    >>> round(float(certificate.radius), 6)
    0.3
    """
    refuse_held(network)
    parts = batches(x, y, batch_size)
    graph = as_graph(network)
    compare = functools.partial(refuse_disagreement, network, graph)
    network = _answering(graph, output)
    audited = audit(network)
    measured = standardizing(audited) if flag("standardized", standardized) else audited
    bound = bound_of(measured, as_norm(p))
    pairs = functools.cache(lambda classes: pair_sensitivity(measured, p, bound.sensitivity, classes))
    judged = functools.partial(judge, wide(network, audited), pairs, device_of(network))
    found: list[Columns] = []
    have_labels = None
    for number, batch in enumerate(tqdm(parts, "certify", unit="batch", delay=1.0, disable=None if progress else True)):
        try:
            inputs, labels = _alike(batch, have_labels)
            have_labels = labels is not None
            if not found:
                compare(inputs)
            found += [judged(*part) for part in _split(inputs, labels, batch_size)]
        except TightlipError as problem:
            if parts is not x:  # slices that were made here have no numbers
                raise
            raise TightlipError(f"batch {number}: {problem}") from problem
    return _put_together(found, bound, bool(have_labels))


def _alike(batch: Any, have_labels: bool | None) -> Labeled:
    """Inputs and labels of a batch, which has labels if those before it had; None: it is the first."""
    inputs, labels = labeled(batch)
    if have_labels is not None and have_labels != (labels is not None):
        raise TightlipError("either every batch has labels or none has: give all of them alike")
    return inputs, labels


def _put_together(found: list[Columns], bound: Bound, have_labels: bool) -> Certificate:
    """One certificate of all batches."""
    if not found:
        raise TightlipError("there are no batches to certify: give at least one (a generator can be used only once)")
    radius, margin, prediction, correct, label = (torch.cat(column) for column in zip(*found, strict=True))
    return Certificate(radius, margin, prediction, correct, bound, label if have_labels else None)


def refuse_held(network: Any) -> None:
    """Refuse a network whose layers may still be moved by their constraints."""
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


def device_of(network: nn.Module) -> torch.device | None:
    """Where the network lies; None if it has no tensors, so that it works anywhere."""
    return next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)
