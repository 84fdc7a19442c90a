"""What is measured on examples without gradients: outputs, accuracy, and the row of an epoch."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import tensor
from ..errors import TightlipError
from ..robustness.evaluation import wrong_size
from .examples import Batch
from .pairing import AllPairsError, row_by_row
from .targets import Form, Loss, are_labels, compare

Score = Callable[[nn.Module, Tensor, Tensor], float]
Metric = Callable[[Tensor, Tensor], float]

TAKEN = {"loss", "accuracy", "score"}
"""Names that no metric of a caller's may have."""


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of inputs whose largest logit is the true class.

    Raises:
        TightlipError: unless outputs are logits (N, C ≥ 2), and ``y`` holds one integer for each row or place of them.
    """
    logits = predict(network, tensor("inputs", x))
    labels = tensor("labels", y).to(logits.device)
    if len(labels) != len(logits) or not are_labels(logits, labels):
        raise TightlipError(
            "accuracy compares logits (N, C) of two classes at least with integers (N,), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}: measure numbers by a loss or "
            "a metric of your own"
        )
    return share(logits, labels)


def share(logits: Tensor, labels: Tensor) -> float:
    """The share of labels that are the largest logit's."""
    return float(hits(logits, labels).double().mean())


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Where the largest logit is the label's; a column of labels is one label per row."""
    largest = logits.argmax(1)
    return largest == labels.reshape(largest.shape)


@torch.no_grad()
def predict(network: nn.Module, x: Tensor, batch_size: int = 2048) -> Tensor:
    """The outputs for ``x`` (N, …), evaluated in batches without gradients; ``x`` stays as it is.

    Raises:
        TightlipError: for inputs that do not fit the network, or outputs that are not one tensor.
    """
    try:
        return torch.cat([one_tensor(network(part.clone())) for part in x.split(batch_size)])
    except RuntimeError as problem:
        reason = wrong_size(network.modules(), x.shape)
        if reason is None:
            raise
        raise TightlipError(f"inputs of shape {tuple(x.shape)} do not fit the network: {reason}") from problem


def one_tensor(outputs: Any) -> Tensor:
    """The outputs, where they are one row per example.

    Raises:
        TightlipError: for dictionaries, tuples and numbers.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() == 0:
        kind = "number" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TightlipError(f"the network must return one tensor (N, …), got a {kind}: wrap it so that it returns one")
    return outputs


@dataclass
class Measures:
    """What the row of an epoch holds, as a function of the network."""

    loss: Loss
    form: Form
    classifies: bool
    held_out: Batch | None
    score: Score | None
    metrics: Mapping[str, tuple[Metric, Form]]
    """With the form of targets that each takes, given those of the loss."""
    scored: bool = False

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float]:
        """validation_loss, validation_accuracy where it applies, the metrics, and validation_score, higher is better.

        Nothing without validation data.

        Raises:
            TightlipError: if a score or metric is not a number, or the score is NaN.
        """
        if self.held_out is None:
            return {}
        x, y = self.held_out
        outputs = predict(network, x)
        targets = self.form(outputs, y)
        row = {"validation_loss": float(compare(self.loss, outputs, targets))}
        if self.classifies:
            row["validation_accuracy"] = share(outputs, y)
        for name, (metric, form) in self.metrics.items():
            row[f"validation_{name}"] = _number(metric(outputs, form(outputs, targets)), f"the metric {name}")
        if self.score is not None:
            row["validation_score"] = _number(self._scored(network, x, y), "the score")
        else:
            row["validation_score"] = row["validation_accuracy"] if self.classifies else -row["validation_loss"]
        if math.isnan(row["validation_score"]):
            raise TightlipError(
                "the validation score is NaN: no epoch can be chosen by it; check the score and the data"
            )
        return row

    def _scored(self, network: nn.Module, x: Tensor, y: Tensor) -> Any:
        """The score; the first time, whether it compares row with row is watched."""
        assert self.score is not None
        try:
            with nullcontext() if self.scored else row_by_row(x, y):
                self.scored = True
                return self.score(network, x, y)
        except AllPairsError as problem:
            raise TightlipError(
                f"the score does not fit ({problem}), since targets are {tuple(y.shape)}: let it bring outputs and "
                "targets into one shape"
            ) from problem


def is_classification(outputs: Tensor, y: Tensor) -> bool:
    """Whether accuracy applies: targets are integer labels of logits, in [0, C); of outputs a few are enough."""
    return are_labels(outputs, y) and bool(((y >= 0) & (y < outputs.shape[1])).all())


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TightlipError(f"{name} must be a number, got a {type(value).__name__}: return a float") from problem
