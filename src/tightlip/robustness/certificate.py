"""Certified radii: how far every input may move before the prediction can change.

If f is K-Lipschitz from the p-norm to the q-norm, a difference of two logits changes by at most 2^(1−1/q)·K·‖δ‖_p, so

    radius = (y_t − max_{i≠t} y_i) / (2^(1−1/q)·K):   2K for q = ∞, √2·K for q = 2, K for q = 1,

or more, pair by pair, where the network ends in a linear layer (`pairs`). A network with one logit z answers by its
sign; it is the pair (−z/2, z/2), whose difference z changes by at most K·‖δ‖_p, so its radius is |z| / K. Other
decisions from the same pairs, such as the k largest logits, are in `contests`, `groups` and `labels`.

(The rule printed in the paper, §4.3, M > Kε/2, is a factor 4 too generous: f(x) = (x, −x), x = 0.3, ε = 1 flips.)
Logits are evaluated in float64, and what that evaluation can be off by is subtracted from the margin first; radii are
rounded down. Ties, NaN and infinity are never certified.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import flag
from ..audit import Bound
from ..errors import TightlipError
from ..linalg.arithmetic import Arithmetic, arithmetic_of
from .batches import Labeled, batches, labeled
from .contests import LARGEST
from .decision import Decision
from .deployed import Deployed, machine_of
from .examination import Examined, examined, refuse_held
from .judging import Columns, judge
from .standardized import standardizing
from .statistics import CONFIDENCE, ClassAccuracy, Paired, paired, per_class, wilson, worst_class


@dataclass(frozen=True)
class Certificate:
    """Radii within which no perturbation changes the prediction, for every input of a batch.

    ``radius`` is in the p-norm of the bound and in units of the inputs, or in standardized ones where ``standardized``;
    0 where the prediction is wrong, tied or not finite. ``margin`` is y_t − max y_i (t the label, or the prediction
    without labels), lowered by the rounding error. ``correct`` says where the prediction is the label beyond rounding;
    ``label`` is the true class (of one logit 0 or 1). Without labels (``label`` is None) nothing is known to be right
    or wrong: ``correct`` says where the prediction is beyond rounding, and `accuracy`, `curve` and `interval` count the
    inputs whose predicted class, whether right or not, stays the same within eps.

    ``decision`` says what is certified instead of the largest logit, if anything: then ``margin`` and ``correct`` are
    its, and ``prediction`` is the class with the largest logit still. Of several labels per input (`MultiLabel`),
    prediction and label are (batch, labels), all else is about all of them together, and ``each`` has one certificate
    for every label.
    """

    radius: Float[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    prediction: Int[Tensor, "batch *labels"]
    correct: Bool[Tensor, " batch"]
    bound: Bound
    label: Int[Tensor, "batch *labels"] | None = None
    decision: Decision = LARGEST
    each: tuple["Certificate", ...] = field(default=(), repr=False)
    arithmetic: str = "real"
    standardized: bool = False

    @property
    def speaks_of(self) -> str:
        """The arithmetic for which it holds, in words."""
        return self.bound.arithmetic if self.arithmetic == "real" else arithmetic_of(self.arithmetic).words

    @property
    def labeled(self) -> bool:
        """Whether it knows what is right."""
        return self.label is not None

    def __repr__(self) -> str:
        count, sure = len(self.radius), int(self.correct.sum())
        unlabeled = f"without labels, {sure} whose predicted class stays the same nearby"
        what = "" if self.decision == LARGEST else f"{self.decision!r}, "
        return f"Certificate({count} inputs, {f'{sure} correct' if self.labeled else unlabeled}, {what}{self.bound!r})"

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
                another norm or unit and ``eps`` is not 0, or as `accuracy`.
        """
        if not isinstance(other, Certificate):
            raise TightlipError(f"a certificate is compared with another one, got a {type(other).__name__}")
        if not torch.equal(self._known().cpu(), other._known().cpu()):
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
        if eps and self.standardized != other.standardized:
            raise TightlipError("radii in standardized units and raw ones are not comparable: give eps=0, or one unit")
        return paired(self._certified(eps), other._certified(eps))

    def _certified(self, eps: Any) -> Bool[Tensor, " batch"]:
        """Which radii are beyond ``eps``."""
        return self.radius.cpu().double() > self._radii([eps])

    def _known(self) -> Int[Tensor, "batch *labels"]:
        if self.label is None:
            raise TightlipError("this certificate knows no labels, so no classes: give certify the true classes y")
        return self.label

    def _labels(self) -> Int[Tensor, " batch"]:
        if self.each:
            raise TightlipError(f"inputs with {len(self.each)} labels have no class: ask one of certificate.each")
        return self._known()

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
    decision: Decision | None = None,
    arithmetic: str | Arithmetic = "real",
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
        decision: What is to stay the same: `TopK`, `Groups`, `OneVsRest` or `MultiLabel`, whose labels are
            (batch, logits); None is the largest logit, ``TopK(1)``.
        arithmetic: "real": of the function with the stored weights in exact arithmetic. Or of the network as a machine
            computes it, in any order of its sums, at every point within the radius rounded to the format: "float64",
            "float32", "bfloat16/float32" (stored in the first, added in the second), and these with "-blocks", where
            sums are taken by blocks of at most 64 terms. Direct sums are meant: no TF32, Winograd, Strassen or FFT.
            For the largest logit alone.
        standardized: Of a network that begins with `Normalize`: radii are in the norm of what that layer makes, whose
            unit is the std of each feature, and the bound is that of all that follows. ``x`` is raw as ever.

    Raises:
        TightlipError: if a layer is still held by a constraint, the network cannot be audited, shapes do not fit,
            labels are out of range, only some batches have labels, or there are no batches; if the decision does not
            fit the logits; if this thread flushes denormal numbers to zero.

    >>> certificate = certify(nn.Identity(), torch.tensor([[0.6, 0.0]]), p=float("inf"))
    >>> round(float(certificate.radius), 6)
    0.3
    """
    refuse_held(network, "certify")
    decision = _decision(decision)
    parts = batches(x, y, batch_size, decision.several)
    known = examined(network, p, output)
    if flag("standardized", standardized):
        known = standardizing(known)
    steepness = functools.cache(functools.partial(decision.steepness, known.audited, p, known.bound.sensitivity))
    judged = functools.partial(judge, known, decision, steepness, _machine(known, decision, arithmetic))
    found: list[Columns] = []
    have_labels = None
    for number, batch in enumerate(tqdm(parts, "certify", unit="batch", delay=1.0, disable=None if progress else True)):
        try:
            inputs, labels = _alike(batch, have_labels, decision.several)
            have_labels = labels is not None
            if not found:
                known.compare(inputs)
            found += [judged(*part) for part in _split(inputs, labels, batch_size)]
        except TightlipError as problem:
            if parts is not x:  # slices that were made here have no numbers
                raise
            raise TightlipError(f"batch {number}: {problem}") from problem
    make = functools.partial(
        Certificate, bound=known.bound, decision=decision, arithmetic=str(arithmetic), standardized=standardized
    )
    return _put_together(found, make, bool(have_labels), decision.several)


def _machine(known: Examined, decision: Decision, arithmetic: str | Arithmetic) -> Deployed | None:
    """What a machine makes of the network; None in exact arithmetic."""
    if arithmetic != "real" and decision != LARGEST:
        raise TightlipError(f"{decision} is certified in exact arithmetic alone: leave out decision=, or arithmetic=")
    return machine_of(known, arithmetic)


def _decision(given: Any) -> Decision:
    if isinstance(given, Decision | None):
        return given or LARGEST
    raise TightlipError(f"decision must be one such as TopK(3) or Groups([[0, 1], [2, 3]]), got {given!r:.60}")


def _alike(batch: Any, have_labels: bool | None, several: bool) -> Labeled:
    """Inputs and labels of a batch, which has labels if those before it had; None: it is the first."""
    inputs, labels = labeled(batch, several)
    if have_labels is not None and have_labels != (labels is not None):
        raise TightlipError("either every batch has labels or none has: give all of them alike")
    return inputs, labels


def _put_together(
    found: list[Columns], make: Callable[..., Certificate], have_labels: bool, several: bool
) -> Certificate:
    """One certificate of all batches."""
    if not found:
        raise TightlipError("there are no batches to certify: give at least one (a generator can be used only once)")
    radius, margin, prediction, correct, target = (torch.cat(column) for column in zip(*found, strict=True))
    label = target if have_labels else None
    if not several:
        return make(radius, margin, prediction, correct, label=label)
    columns = (radius, margin, prediction, correct, target)
    each = [
        make(r, m, guess, right, label=true if have_labels else None)
        for r, m, guess, right, true in zip(*(column.unbind(1) for column in columns), strict=True)
    ]
    return make(radius.amin(1), margin.amin(1), prediction, correct.all(1), label=label, each=tuple(each))


def _split(x: Tensor, y: Tensor | None, batch_size: int) -> Iterator[Labeled]:
    return zip(x.split(batch_size), repeat(None) if y is None else y.split(batch_size), strict=False)
