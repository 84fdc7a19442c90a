"""How targets are put to a loss: one number per example is a vector or a column, and broadcasting pairs them wrongly.

The forms that targets may have are tried on a few rows, in order. The first that the loss takes, row against row, is
the one, and later batches must have it too.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..descent import scalar
from ..errors import TightlipError
from .pairing import AllPairsError, few, row_by_row

Loss = Callable[[Tensor, Tensor], Tensor]
Form = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) → targets as the loss wants them."""

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)
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


def column(outputs: Tensor, targets: Tensor) -> Tensor:
    """(N,) → (N, 1)."""
    return targets.reshape(len(targets), 1)


def as_numbers(form: Form) -> Form:
    """Integers as floating-point numbers."""
    return lambda outputs, targets: form(outputs, targets).to(outputs.dtype)


def are_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Whether targets are integers, one for each row of logits (N, C ≥ 2) or place of logits (N, C ≥ 2, …)."""
    if targets.is_floating_point() or outputs.dim() < 2 or outputs.shape[1] < 2:
        return False
    return targets.shape[1:] in (outputs.shape[2:], (1,))


def fitting(loss: Loss, outputs: Tensor, targets: Tensor) -> Form:
    """The form of targets that a loss takes, found on a few rows; it refuses targets of other shapes or kinds later.

    Raises:
        TightlipError: if it takes none, with its own reason.
    """
    labels = are_labels(outputs, targets)
    agree = targets.shape[1:] != (1,) if labels else targets.is_floating_point() and targets.shape == outputs.shape
    some = few(outputs, targets)
    problems: list[BaseException] = []
    for form in _forms(outputs, targets, labels):
        try:
            _try(loss, some[0], form(*some), slopes=not agree)
        except REFUSALS as problem:
            problems.append(problem)
            if isinstance(problem, IndexError):  # a label out of range is not a matter of form
                break
        else:
            return _as_rehearsed(form, outputs, targets)
    raise misfit(outputs, targets, problems[0]) from problems[0]


def fitting_metric(name: str, metric: Callable[[Tensor, Tensor], Any], outputs: Tensor, targets: Tensor) -> Form:
    """The form of targets in which a metric compares row with row; ``targets`` are in the loss's.

    Raises:
        TightlipError: if it compares every output with every target in each.
    """
    some = few(outputs, targets)
    refused: AllPairsError | None = None
    for form in _shapes(outputs, targets):
        put = form(*some)
        try:
            with torch.no_grad(), row_by_row(some[0], put):
                metric(some[0], put)
        except AllPairsError as problem:
            refused = problem
        except Exception:  # noqa: BLE001  of five rows it may know nothing
            return form
        else:
            return form
    raise TightlipError(
        f"the metric {name} cannot be measured on outputs {_kind(outputs)} and targets {_kind(targets)} ({refused}): "
        "let it reshape one as the other"
    ) from refused


def compare(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss, a scalar.

    Raises:
        TightlipError: if it cannot compare the two, with its own reason.
    """
    try:
        return scalar(loss(outputs, targets))
    except (IndexError, ValueError, RuntimeError) as problem:
        if isinstance(problem, torch.OutOfMemoryError):
            raise
        raise misfit(outputs, targets, problem) from problem


def misfit(outputs: Tensor, targets: Tensor, problem: BaseException) -> TightlipError:
    """One sentence for outputs and targets that a loss refuses; its own, where it is one."""
    if isinstance(problem, TightlipError):
        return problem
    reason = (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
    advice = "give numbers of the outputs' shape, or classes 0 … C − 1 of torch.int64 for outputs (N, C)"
    if isinstance(problem, AllPairsError) and outputs.shape[1:] == targets.shape[1:]:
        advice = "let it compare row with row, or change one shape, (N,) or (N, 1)"
    elif are_labels(outputs, targets) and not isinstance(problem, IndexError):
        advice = (
            "classes need a loss such as cross_entropy; a loss of differences needs numbers of the outputs' shape, as "
            "in functional.one_hot(labels, C).float()"
        )
    return TightlipError(
        f"the loss cannot compare outputs {_kind(outputs)} with targets {_kind(targets)} ({reason}): {advice}"
    )


def _kind(values: Tensor) -> str:
    return f"(N, {str(tuple(values.shape[1:]))[1:-1]}".rstrip(", ") + f") of {values.dtype}"


def _forms(outputs: Tensor, targets: Tensor, labels: bool) -> Iterator[Form]:
    """In the order in which they are tried."""
    if labels:
        yield from (as_given, flat) if targets.shape[1:] == (1,) else (as_given,)
        return
    yield from _shapes(outputs, targets)
    if not targets.is_floating_point() and _alike(outputs, targets):
        yield from map(as_numbers, _shapes(outputs, targets))


def _shapes(outputs: Tensor, targets: Tensor) -> list[Form]:
    """Numbers first meet outputs in one shape; one number per row may be a vector or a column."""
    forms: list[Form] = [like_outputs, as_given] if _alike(outputs, targets) else [as_given]
    if len(targets) == targets.numel():
        forms += [flat, column] if _alike(outputs, targets) else [flat]
    return forms


def _alike(outputs: Tensor, targets: Tensor) -> bool:
    return [n for n in outputs.shape[1:] if n != 1] == [n for n in targets.shape[1:] if n != 1]


def _as_rehearsed(form: Form, outputs: Tensor, targets: Tensor) -> Form:
    """The form for targets as these; others would be put to the loss in a shape that nobody has tried."""
    each = tuple(tuple(t.shape[1:]) for t in (outputs, targets))

    def put(some: Tensor, theirs: Tensor) -> Tensor:
        shapes = tuple(some.shape[1:]), tuple(theirs.shape[1:])
        varied = [len(shape) for shape in shapes] == [len(shape) for shape in each] and shapes[0] != each[0]
        if (shapes != each and not varied) or theirs.is_floating_point() != targets.is_floating_point():
            raise TightlipError(
                f"a batch has targets {_kind(theirs)} for outputs {_kind(some)}, and the first ones were "
                f"{_kind(targets)} for {_kind(outputs)}: give every batch one form"
            )
        return form(some, theirs)

    return put


def _try(loss: Loss, outputs: Tensor, targets: Tensor, slopes: bool) -> None:
    """Raise one of `REFUSALS` unless the loss gives a scalar, row against row; and its gradient, where asked.

    A loss may take integers, and fail at its gradient.
    """
    outputs = outputs.requires_grad_(slopes)
    with torch.enable_grad(), row_by_row(outputs, targets):
        value = scalar(loss(outputs, targets))
    if value.requires_grad:
        torch.autograd.grad(value, outputs, allow_unused=True)
