"""Gradient descent: the one loop under `fit`, `train_critic` and the studies.

For each batch: w ← step(w, ∇ loss(batch)), with constrained weights back on their sets after every step.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .arguments import taking
from .constraints import hold, is_constrained
from .errors import TightlipError

Batch = TypeVar("Batch")


def descend(
    network: nn.Module,
    optimizer: Optimizer,
    loss: Callable[[Batch], Tensor],
    batches: Iterable[Batch],
    schedule: LRScheduler | None = None,
    watch: Callable[[int], None] | None = None,
    where: str = "",
) -> None:
    """One step of ``optimizer`` for each batch; step-held layers of ``network`` are held for it.

    What ``loss`` leaves in the gradients does not count, so it may differentiate on its way.

    Args:
        network: The module whose weights are trained.
        optimizer: Made from its parameters.
        loss: One of ``batches`` → scalar.
        batches: Whatever ``loss`` takes: pairs of tensors, or ``range(1000)`` where it draws its own.
        schedule: Stepped after each step; None leaves the rate as it is.
        watch: Called with the number of each step, from 0, before it is taken.
        where: Ends the place in errors, e.g. " of epoch 3".

    Raises:
        TightlipError: if the loss is not a scalar, has no gradient, or is NaN or infinite (before the step is taken);
            if a weight is NaN or infinite at the end; for what `hold` refuses.
    """
    refuse_without_gradients()
    _refuse_kinds(network, optimizer, loss, schedule, watch)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TightlipError("LBFGS evaluates between its own steps, and this loop evaluates once: use Adam or SGD")
    if is_constrained(network):
        hold(network, optimizer)
    for step, batch in enumerate(batches):
        if watch is not None:
            watch(step)
        value = scalar(loss(batch))
        _refuse_divergence(value, f"at step {step}{where}, counted from 0")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise TightlipError(f"the last steps{where} left NaN or infinity in {name}: lower the learning rate")


def refuse_without_gradients() -> None:
    """Raise under ``torch.no_grad`` and ``torch.inference_mode``, where nothing can be trained."""
    if not torch.is_grad_enabled():
        raise TightlipError("gradients are switched off here, by torch.no_grad or inference_mode: train outside of it")


def _refuse_kinds(network: Any, optimizer: Any, loss: Any, schedule: Any, watch: Any) -> None:
    """Refuse what cannot be what it is given as, such as a class in the place of what is made of it."""
    for name, given, fits in (
        ("network", network, isinstance(network, nn.Module)),
        ("optimizer", optimizer, hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad")),
        ("schedule", schedule, schedule is None or hasattr(schedule, "step")),
    ):
        if not fits or isinstance(given, type):
            kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
            raise TightlipError(
                f"{name} must be one of torch's, made, got {kind}: descend takes (network, optimizer, loss, batches)"
            )
    taking("loss", loss, "batch")
    if watch is not None:
        taking("watch", watch, "step")


def scalar(value: Any) -> Tensor:
    """A loss of one number, without dimensions.

    Raises:
        TightlipError: if it is anything else.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise TightlipError(
            f"a loss is one number, got {kind}: average it, e.g. reduction='mean'; a class of torch.nn must be made "
            "first, e.g. nn.MSELoss()"
        )
    return value.reshape(())


def _refuse_divergence(value: Tensor, place: str) -> None:
    number = value.item()
    if not math.isfinite(number):
        raise TightlipError(f"the loss became {number} (NaN or infinite) {place}: lower the learning rate")
    if not value.requires_grad:
        raise TightlipError(f"the loss has no gradient {place}: it must depend on weights that train")
