"""How targets are put to a loss: one number per example is a vector or a column, and broadcasting pairs them wrongly.

Outputs (N, 1) minus targets (N,) are N×N differences. So where the shapes differ, the forms that targets may have are
tried on a few rows, in order, and the first that the loss takes without such an operation is the one.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..descent import scalar
from ..errors import TightlipError

Loss = Callable[[Tensor, Tensor], Tensor]
Form = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) → targets as the loss wants them."""

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, UserWarning)
"""How losses say that outputs and targets do not fit."""


def as_given(outputs: Tensor, targets: Tensor) -> Tensor:
    """Unchanged."""
    return targets


def like_outputs(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of the outputs' shape."""
    return targets.reshape(outputs.shape)


def flat(outputs: Tensor, targets: Tensor) -> Tensor:
    """(N, 1) → (N,)."""
    return targets.reshape(len(targets))


def as_numbers(form: Form) -> Form:
    """Integers as floating-point numbers."""
    return lambda outputs, targets: form(outputs, targets).to(outputs.dtype)


def are_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Whether targets are integers, one for each row of logits (N, C ≥ 2) or place of logits (N, C ≥ 2, …)."""
    if targets.is_floating_point() or outputs.dim() < 2 or outputs.shape[1] < 2:
        return False
    return targets.shape[1:] in (outputs.shape[2:], (1,))


def fitting(loss: Loss, outputs: Tensor, targets: Tensor) -> Form:
    """The form of targets that a loss takes, found on a few rows; outputs and targets that fit as they are, untried.

    Raises:
        TightlipError: if it takes none, with its own reason.
    """
    labels = are_labels(outputs, targets)
    if (labels and targets.shape[1:] != (1,)) or (targets.is_floating_point() and targets.shape == outputs.shape):
        return as_given
    rows = torch.arange(7 if 5 in outputs.shape[1:] else 5, device=outputs.device)
    some = [t.detach()[rows % len(t)] for t in (outputs, targets)]
    problems: list[BaseException] = []
    for form in _forms(outputs, targets, labels):
        try:
            _try(loss, some[0], form(*some))
        except REFUSALS as problem:
            problems.append(problem)
            if isinstance(problem, IndexError):  # a label out of range is not a matter of form
                break
        else:
            return form
    raise misfit(outputs, targets, problems[0]) from problems[0]


def compare(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss, a scalar.

    Raises:
        TightlipError: if it cannot compare the two, with its own reason.
    """
    try:
        return scalar(loss(outputs, targets))
    except (IndexError, RuntimeError) as problem:
        if isinstance(problem, torch.OutOfMemoryError):
            raise
        raise misfit(outputs, targets, problem) from problem


def misfit(outputs: Tensor, targets: Tensor, problem: BaseException) -> TightlipError:
    """One sentence for outputs and targets that a loss refuses; its own, where it is one."""
    if isinstance(problem, TightlipError):
        return problem
    reason = (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
    if isinstance(problem, UserWarning):
        reason = "their sizes differ"
    kinds = [f"(N, {str(tuple(t.shape[1:]))[1:-1]}".rstrip(", ") + f") of {t.dtype}" for t in (outputs, targets)]
    return TightlipError(
        f"the loss cannot compare outputs {kinds[0]} with targets {kinds[1]} ({reason}): give numbers of the outputs' "
        "shape, or classes 0 … C − 1 of torch.int64 for outputs (N, C)"
    )


def _forms(outputs: Tensor, targets: Tensor, labels: bool) -> Iterator[Form]:
    """In the order in which they are tried."""
    if labels:
        yield from (as_given, flat)
        return
    forms = [as_given]
    if [n for n in outputs.shape[1:] if n != 1] == [n for n in targets.shape[1:] if n != 1]:
        forms = [like_outputs, as_given]  # numbers first meet a loss in one shape
    yield from forms
    if not targets.is_floating_point() and len(forms) == 2:
        yield from map(as_numbers, forms)


def _try(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Raise one of `REFUSALS` unless the loss gives a scalar that it can differentiate, row against row."""
    outputs = outputs.requires_grad_()
    with warnings.catch_warnings(), torch.enable_grad(), _Broadcasts(len(outputs)) as mode:
        warnings.filterwarnings("error", message="Using a target size")
        value = scalar(loss(outputs, targets))
    if mode.found:
        raise ValueError("it would compare every output with every target")
    if value.requires_grad:
        torch.autograd.grad(value, outputs, allow_unused=True)


class _Broadcasts(TorchDispatchMode):
    """Sees whether a vector of one number per row was repeated for every other row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.found = rows, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape.count(self.rows) > 1:
            self.found |= any(isinstance(t, Tensor) and self.rows in t.shape and t.dim() < result.dim() for t in args)
        return result
