"""Losses that buy margin: under a fixed Lipschitz constant, margin is robustness.

Where the constant is not fixed, Lipschitz-margin training asks for a margin that grows with an estimate of it,

    L = Π_l ‖W_l‖_{p→p},     margin 2^(1−1/q)·L·ε,

and gradients flow into both.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .activations import Householder
from .audit import Bound, Node, Sum, expand, fold, gains
from .errors import TightlipError
from .norms import as_norm, norm_name, operator_norm


def multiclass_hinge(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    kappa: float,
    mean_over_classes: bool = False,
) -> Float[Tensor, ""]:
    """Σ_{i≠t} max(0, κ − (y_t − y_i)), averaged over the batch. Source: paper Eq. 4, as printed.

    Args:
        logits: Scores y.
        labels: True classes t in [0, classes).
        kappa: The margin asked for, in logit units. For an ∞-norm network with constant K, κ = K·a certifies the
            radius a/2 wherever the loss is zero.
        mean_over_classes: Divide by the number of classes, as the original experiments did.

    Raises:
        TightlipError: for labels out of range, of another shape or of another dtype than int64.

    >>> multiclass_hinge(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([0]), kappa=1.0)
    tensor(0.5000)
    """
    check_labels(logits, labels)
    true = logits.gather(1, labels.unsqueeze(1))
    shortfall = (kappa - (true - logits)).clamp(min=0.0)
    total = shortfall.sum(1) - shortfall.gather(1, labels.unsqueeze(1)).squeeze(1)
    return total.mean() / (logits.shape[1] if mean_over_classes else 1)


def multiclass_margin(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """y_t − max_{i≠t} y_i of each input, for two classes or more; labels as in `multiclass_hinge`."""
    check_labels(logits, labels)
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return true - logits.scatter(1, labels.unsqueeze(1), -math.inf).amax(1)


def margin_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    offset: float | Float[Tensor, ""] = 0.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of (y − offset·onehot(t)) / temperature, times the temperature, averaged over the batch.

    Subtracting ``offset`` (logit units) from the true logit asks for that much margin; a small ``temperature`` lets
    the gradient fade once it is reached. Sources: Tsuzuku et al. 2018 (offset); Béthune et al. 2022 (temperature).

    Raises:
        TightlipError: for labels as in `multiclass_hinge`, or a temperature that is not positive.

    >>> margin_cross_entropy(torch.tensor([[9.0, 0.0]]), torch.tensor([0])) < 1e-3
    tensor(True)
    """
    check_labels(logits, labels)
    if not temperature > 0:
        raise TightlipError(f"temperature {temperature} is not positive: give a number > 0")
    shifted = logits - offset * functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return temperature * functional.cross_entropy(shifted / temperature, labels)


def lipschitz_margin_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    constant: float | Float[Tensor, ""],
    eps: float,
    q: float = 2,
) -> Float[Tensor, ""]:
    """Cross-entropy after 2^(1−1/q)·L·ε (√2·L·ε for q = 2) was added to every logit but the true one.

    A loss near zero means that the true class leads by what radius ε needs, *if* L is a Lipschitz constant. For
    comparison: unconstrained networks are trained with it, L = `norm_product(network)` at every step, so that the
    gradient lowers L. Adding to all logits but one is `margin_cross_entropy` with that offset.
    Source: Tsuzuku, Sato & Sugiyama 2018 (Lipschitz-margin training, q = 2).

    Args:
        logits: Scores y.
        labels: True classes in [0, classes).
        constant: L, in the input norm of ``eps`` and the output norm ``q``; a tensor takes part in the gradient.
        eps: The radius asked for, in input units.
        q: The norm of the logits in which L holds: 1, 2 or ``math.inf``.

    Raises:
        TightlipError: for labels as in `multiclass_hinge`, or if L or ε is negative or not finite.

    >>> lipschitz_margin_cross_entropy(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), constant=1.0, eps=0.1) < 1e-3
    tensor(True)
    """
    if isinstance(constant, Bound):
        raise TightlipError(f"{constant} is more than a number: give its .constant")
    if not torch.compiler.is_compiling():
        size = float(constant.detach() if isinstance(constant, Tensor) else constant)
        if not (0 <= size < math.inf and 0 <= eps < math.inf):
            raise TightlipError(f"constant = {size} and eps = {eps} ask for no margin: give finite numbers ≥ 0")
    factor: float = 2.0 ** (1.0 - 1.0 / as_norm(q))
    return margin_cross_entropy(logits, labels, offset=factor * eps * constant)


def norm_product(network: nn.Module, p: float = 2) -> Float[Tensor, ""]:
    """Π_l ‖W_l‖_{p→p}, differentiable: an estimate to train with. `lipschitz` is what proves a constant.

    The norms are computed in the dtype of the weights and rounded to nearest, so the product may lie below the true
    one by rounding. Layers without parameters count with their audited constant. Source: Tsuzuku et al. 2018.

    Args:
        network: ``nn.Linear``, `Scale` and layers without parameters, constrained or not, in containers that the audit
            opens.
        p: The norm of inputs and outputs: 1, 2 or ``math.inf``.

    Raises:
        TightlipError: for a layer without a rule, without a p→p bound, or with parameters and not ``nn.Linear``.

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(linear.weight, 3.0)
    >>> norm_product(nn.Sequential(linear, nn.ReLU()), math.inf)
    tensor(6., grad_fn=<MulBackward0>)
    """
    p = as_norm(p)

    def layer(node: Node, product: Tensor) -> Tensor:
        return product * _norm_of(node.operation, node.name, p)  # type: ignore[arg-type]

    def join(node: Node, products: list[Tensor]) -> Tensor:
        if isinstance(node.operation, Sum):
            return torch.stack([abs(w) * c for w, c in zip(node.operation.weights, products, strict=True)]).sum()
        return torch.linalg.vector_norm(torch.stack(products), p)

    return fold(expand(network), torch.ones(()), layer, join)


def _norm_of(layer: nn.Module, name: str, p: float) -> float | Tensor:
    """The p→p norm of one layer that is unaltered."""
    if type(layer).forward is nn.Linear.forward:
        return operator_norm(layer.weight, p)  # type: ignore[arg-type]
    kind = type(layer).__name__
    if type(layer) is not Householder and next(layer.parameters(), None) is not None:
        raise TightlipError(
            f"the norm of {kind} at {name!r} has no gradient here: use nn.Linear and layers without parameters"
        )
    table = gains(layer, name).table
    if (p, p) not in table:
        pair = f"{norm_name(p)}→{norm_name(p)}"
        raise TightlipError(f"no rule proves a {pair} bound for {kind} at {name!r}: choose another p")
    return float(table[p, p])


def kantorovich(first: Float[Tensor, " n *one"], second: Float[Tensor, " m *single"]) -> Float[Tensor, ""]:
    """−(mean f(x) − mean f(x')): minimizing it over 1-Lipschitz f estimates the Wasserstein-1 distance from below.

    Args:
        first: The critic on samples of the first distribution, (n,) or (n, 1).
        second: The critic on samples of the second.

    Source: paper Eq. 1.

    Raises:
        TightlipError: if there are no samples of one of the two, or a sample has several outputs.

    >>> kantorovich(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(-2.)
    """
    for outputs in (first, second):
        if outputs.dim() == 0 or outputs.numel() != len(outputs):
            shape = tuple(outputs.shape)
            raise TightlipError(
                f"a critic gives one number per sample, got outputs of shape {shape}: give (n,) or (n, 1)"
            )
    if not (len(first) and len(second)):
        raise TightlipError(f"{len(first)} and {len(second)} samples have no distance: give at least one of each")
    return second.mean() - first.mean()


def hinge_kantorovich(
    scores: Float[Tensor, " batch *one"],
    labels: Int[Tensor, " batch *single"],
    margin: float = 1.0,
    weight: float = 10.0,
) -> Float[Tensor, ""]:
    """weight·mean max(0, margin − s·f(x)) − (mean f over s = +1 − mean f over s = −1), with s = ±1 by class.

    The hinge classifies, the Kantorovich term spreads the classes; a batch of one class has the hinge alone.
    Source: Serrurier et al. 2021 (hinge-Kantorovich–Rubinstein).

    Args:
        scores: One number per input, (batch,) or (batch, 1).
        labels: −1 and +1, or 0 and 1; of either shape too.
        margin: Asked of s·f(x), in units of the scores.
        weight: Of the hinge.

    Raises:
        TightlipError: for other labels, or scores and labels that are not one per input.

    >>> hinge_kantorovich(torch.tensor([1.0, -1.0]), torch.tensor([1, -1]))
    tensor(-2.)
    """
    shapes = f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} of {labels.dtype}"
    scores, labels = (t.reshape(len(t)) if t.dim() == 2 and t.shape[1] == 1 else t for t in (scores, labels))
    if scores.dim() != 1 or labels.shape != scores.shape or labels.is_floating_point():
        raise TightlipError(
            f"{shapes} do not fit: give one score and one integer per input, of shape (batch,) or (batch, 1), or use "
            "multiclass_hinge_kantorovich"
        )
    positive = labels == 1
    if not bool((positive | (labels == 0)).all()) and not bool((positive | (labels == -1)).all()):
        raise TightlipError("this loss compares two classes: give the labels -1 and +1, or 0 and 1")
    return _one_against_rest(scores.unsqueeze(1), positive.unsqueeze(1), margin, weight)


def multiclass_hinge_kantorovich(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], margin: float = 1.0, weight: float = 10.0
) -> Float[Tensor, ""]:
    """Σ_k `hinge_kantorovich` of logit k, class k against all others: a critic per class, a shared network.

    The Kantorovich term of a class that the batch lacks, or that fills it, is left out; its hinge stays.
    Source: Serrurier et al. 2021, one against the rest.

    Args:
        logits: Scores y, one per class.
        labels: True classes in [0, classes).
        margin: Asked of +y_t and of every −y_i, i ≠ t, in logit units.
        weight: Of the hinge.

    Raises:
        TightlipError: for labels as in `multiclass_hinge`.

    >>> multiclass_hinge_kantorovich(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 1]))
    tensor(-4.)
    """
    check_labels(logits, labels)
    return _one_against_rest(logits, functional.one_hot(labels, logits.shape[1]) == 1, margin, weight)


def _one_against_rest(
    scores: Float[Tensor, "batch critics"], positive: Bool[Tensor, "batch critics"], margin: float, weight: float
) -> Float[Tensor, ""]:
    """Σ over critics of weight·hinge − gap; the gap is left out where one side is empty."""
    member = positive.to(scores.dtype)
    count = member.sum(0)
    others = len(member) - count
    gap = (member * scores).sum(0) / count.clamp(min=1) - ((1 - member) * scores).sum(0) / others.clamp(min=1)
    hinge = (margin - (2 * member - 1) * scores).clamp(min=0.0).sum(1).mean()
    return weight * hinge - torch.where((count > 0) & (others > 0), gap, 0.0).sum()


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Raise for labels that are not one true class of these logits each, as `multiclass_hinge` says."""
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise TightlipError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} of {labels.dtype} do not fit: give "
            "logits (batch, classes) and true classes (batch,) of torch.int64"
        )
    if torch.compiler.is_compiling() or not labels.numel():
        return
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise TightlipError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, but the network has {logits.shape[1]} "
            "outputs: give it one for each class (two for two), and number the classes from 0"
        )
