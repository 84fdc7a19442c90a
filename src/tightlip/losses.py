"""Losses that buy margin: under a fixed Lipschitz constant, margin is robustness."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from .errors import TightlipError


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
        TightlipError: if a label is out of range.

    >>> multiclass_hinge(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([0]), kappa=1.0)
    tensor(0.5000)
    """
    _check(logits, labels)
    true = logits.gather(1, labels.unsqueeze(1))
    shortfall = (kappa - (true - logits)).clamp(min=0.0)
    total = shortfall.sum(1) - shortfall.gather(1, labels.unsqueeze(1)).squeeze(1)
    return total.mean() / (logits.shape[1] if mean_over_classes else 1)


def margin_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    offset: float = 0.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of (y − offset·onehot(t)) / temperature, times the temperature, averaged over the batch.

    Subtracting ``offset`` (logit units) from the true logit asks for that much margin; a small ``temperature`` lets
    the gradient fade once it is reached. Sources: Tsuzuku et al. 2018 (offset); Béthune et al. 2022 (temperature).

    Raises:
        TightlipError: if a label is out of range or the temperature is not positive.

    >>> margin_cross_entropy(torch.tensor([[9.0, 0.0]]), torch.tensor([0])) < 1e-3
    tensor(True)
    """
    _check(logits, labels)
    if not temperature > 0:
        raise TightlipError(f"temperature {temperature} is not positive: give a number > 0")
    shifted = logits - offset * functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return temperature * functional.cross_entropy(shifted / temperature, labels)


def kantorovich(first: Float[Tensor, " n *one"], second: Float[Tensor, " m *one"]) -> Float[Tensor, ""]:
    """−(mean f(x) − mean f(x')): minimizing it over 1-Lipschitz f estimates the Wasserstein-1 distance from below.

    Args:
        first: The critic on samples of the first distribution.
        second: The critic on samples of the second.

    Source: paper Eq. 1.

    >>> kantorovich(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(-2.)
    """
    return second.mean() - first.mean()


def hinge_kantorovich(
    scores: Float[Tensor, " batch"], labels: Int[Tensor, " batch"], margin: float = 1.0, weight: float = 10.0
) -> Float[Tensor, ""]:
    """weight·mean max(0, margin − s·f(x)) − (mean f over class 1 − mean f over class 0), with s = ±1 by class.

    The hinge classifies, the Kantorovich term spreads the classes. Both classes must occur in the batch.
    Source: Serrurier et al. 2021 (hinge-Kantorovich–Rubinstein).

    Raises:
        TightlipError: if labels are not 0 and 1, or one class is absent.

    >>> hinge_kantorovich(torch.tensor([1.0, -1.0]), torch.tensor([1, 0]))
    tensor(-2.)
    """
    positive = labels == 1
    if not bool((positive | (labels == 0)).all()) or not bool(positive.any()) or bool(positive.all()):
        raise TightlipError("this loss compares two classes: give labels 0 and 1, both present in the batch")
    sign = torch.where(positive, 1.0, -1.0).to(scores.dtype)
    return weight * (margin - sign * scores).clamp(min=0.0).mean() + kantorovich(scores[positive], scores[~positive])


def _check(logits: Tensor, labels: Tensor) -> None:
    if torch.compiler.is_compiling() or not labels.numel():
        return
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise TightlipError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, but the network has {logits.shape[1]} "
            "outputs: number the classes from 0"
        )
