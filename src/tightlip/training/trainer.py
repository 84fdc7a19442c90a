"""`fit`: one trainer for every network here and every supervised loss, on CPU or GPU, that survives being killed.

Every epoch draws its own random numbers from (seed, epoch), and the whole state is written after each epoch, so a run
resumed after ``kill -9`` has the same history as one that never stopped. The best network on *validation* data is the
one that remains.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from tqdm import tqdm

from .. import arguments
from ..descent import refuse_without_gradients
from ..locking import sole_writer
from .averaging import Average
from .checkpoint import State, writable
from .description import digest
from .epoch import Adversary, Augment, Epoch
from .examples import entry, examples, whole
from .identity import identity, recipe, structure
from .measures import Metric, Score
from .rehearsal import rehearse
from .settings import decay, numbers, optimizer_of, refuse_flags, refuse_functions, refuse_kinds, scheduler_of
from .targets import Loss

logger = logging.getLogger(__name__)

History = list[dict[str, float]]

QUIET = 10.0
"""Seconds from one epoch in the log to the next one, beside the last; of the others only ``--verbose`` tells."""


def fit(
    network: nn.Module,
    loss: Loss,
    train: Any,
    validation: Any = None,
    epochs: int = 50,
    batch_size: int | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = partial(Adam, lr=2e-3),
    schedule: Callable[[Optimizer, int], LRScheduler] | None = CosineAnnealingLR,
    score: Score | None = None,
    augment: Augment | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
    adversary: Adversary | None = None,
    metrics: Mapping[str, Metric] | None = None,
    tag: str | None = None,
    average: float = 0.0,
    autocast: bool = False,
) -> History:
    """Train ``network`` in place; it ends, in eval mode, with the weights of the epoch with the best validation score.

    Of equal scores the later epoch is the better one. Without validation data the last epoch stays. Everything is
    checked before the first step, so that a wrong call costs nothing; data are not modified.

    Args:
        network: Any module from a batch (N, …) to one tensor (N, …); step-held layers are held for the optimizer.
        loss: (outputs, targets) → a tensor of one number, which has a gradient. Both have a row per example: logits
            (N, C) and classes (N,) of int64, or numbers of one shape. Where each row is one number, targets get the
            shape, (N,) or (N, 1), in which the loss compares row with row; a loss that compares every output with
            every target is refused, and integers become floating-point numbers where it takes numbers alone.
        train: Inputs (N, …) and targets (N, …): a pair of tensors or numpy arrays, a `Part`, a ``Dataset`` of torch
            (drawn item by item) or a ``DataLoader`` (used as it is, with its own batches and order). Floating-point
            numbers are converted to the dtype of the network's weights, integer targets to int64.
        validation: The same, to choose the epoch by, read once into memory; or None.
        epochs: Passes over the training data.
        batch_size: Examples per step, 128 if None; the last, smaller batch of an epoch is used too.
        optimizer: (list of parameters) → one of torch's optimizers.
        schedule: (optimizer, steps in all) → one of torch's schedulers, stepped once per step. None keeps the rate.
        score: (network, inputs, targets) → number to maximize, called once per epoch with the network in eval mode, all
            validation inputs (M, …) and their targets as they were given, without gradients. None: the accuracy, where
            targets are integers and outputs are logits (N, C ≥ 2), and minus the validation loss elsewhere.
        augment: (inputs (B, …), generator) → inputs, as many; applied to every training batch. ``generator`` is a
            ``torch.Generator`` on the CPU that is seeded for the epoch: draw from it, and resumed runs draw the same.
        device: Where to train; the network is moved there.
        seed: Of the order of the examples, of ``augment`` and of the network's own randomness, from 0 to 2³² − 1.
        checkpoint: File written after each epoch, atomically, and by one process at a time; None keeps nothing. A file
            that is there is not overwritten: it is resumed, or refused.
        resume: Continue from ``checkpoint`` if it exists. What determines the run must be the same: data, network,
            loss, optimizer, schedule, augmentation, adversary, score, metrics and all numbers here. The order of a
            ``DataLoader`` with a generator of its own goes on where it was.
        progress: Show a progress bar on a terminal.
        adversary: (network, inputs (B, …), targets (B, …)) → inputs to train on instead, as many, e.g. ``partial(pgd,
            eps=0.3, steps=10)``; applied after ``augment``, the network being in eval mode and gradients on. Gradients
            that it leaves do not count.
        metrics: name → (outputs, targets) → number, called once per epoch with all outputs (M, …) and targets of the
            validation data, without gradients, into the history. Targets have the shape that the loss takes, or the one
            in which the metric compares row with row. Each is tried on a few rows before training.
        tag: A name of yours for what a checkpoint cannot describe, such as a loss that refers to an open file; with a
            tag, lambdas and functions of a script or notebook are not looked into.
        average: Decay of an exponential moving average of the weights, from 0 (none) to below 1: after every step it
            keeps that share of itself, so it reaches over about 1/(1 − average) steps. Each epoch is validated, chosen
            and kept in the average, with constrained weights put back on their sets; what trains is not touched. Its
            first value is that of the first step, so train for many times as many steps. Buffers, such as the running
            statistics of batch normalization, are copied as they are.
        autocast: Whether training multiplies in bfloat16 (``torch.autocast``), convolutions in the layout
            ``channels_last``: faster on GPUs and on CPUs with AMX, by up to a factor of two. Weights, their
            constraints, losses, validation and certificates are computed as without.

    Returns:
        One row per epoch: epoch, loss, learning_rate, seconds; train_accuracy (running) where accuracy applies; with
        validation data validation_loss, validation_accuracy where it applies, validation_<name of a metric>,
        validation_score.

    Raises:
        TightlipError: for data, outputs, options or targets that do not fit, NaN or infinity among data, a loss or
            score that becomes NaN, or a checkpoint that is damaged, of another run, there already without ``resume``,
            or in use by another process.
    """
    refuse_without_gradients()
    refuse_kinds(network, loss)
    (epochs, batch_size, seed), average = numbers(epochs, batch_size, seed), decay(average)
    refuse_flags(resume, progress, tag, checkpoint, autocast)
    refuse_functions(score, metrics, augment, adversary, validation)
    path, where = writable(checkpoint), arguments.device(device)
    enter = entry(network, where)
    source = examples(train, batch_size, enter)
    held_out = None if validation is None else whole(validation, enter)
    network.to(where)
    if autocast:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measures = rehearse(network, loss, source, held_out, score, dict(metrics or {}))
    engine = optimizer_of(network, optimizer, kept=path is not None)
    made = None if path is None else recipe(engine, network, tag)
    scheduler = scheduler_of(engine, schedule, epochs * len(source))
    mean = Average(network, average) if average else None
    epoch = Epoch(network, source, measures, engine, scheduler, augment, adversary, seed, mean, autocast)
    state = State(network, engine, scheduler, source.generators(), path, None if mean is None else mean.averaged)
    if path is not None:
        functions = {"loss": loss, "schedule": schedule, "score": score, "metrics": metrics}
        state.key = {"optimizer": made, "epochs": epochs} | _described(epoch, functions, tag)
    return _trained(epoch, state, epochs, resume, where, progress)


def _trained(epoch: Epoch, state: State, epochs: int, resume: bool, where: torch.device, progress: bool) -> History:
    """The history of all epochs, by one process at a time; the network is that of the best."""
    path = state.path
    with nullcontext(state.still_sole) if path is None else sole_writer(path) as state.still_sole:
        state.begin(resume, where)
        _run(epoch, state, epochs, progress)
    epoch.network.load_state_dict(state.best["network"])
    epoch.network.eval()
    return state.history


def _described(epoch: Epoch, functions: dict[str, Any], tag: str | None) -> dict[str, Any]:
    """What of a run must be the same where it is resumed, beside its length and its optimizer."""
    network, source, average = epoch.network, epoch.source, epoch.average
    functions |= {"augment": epoch.augment, "adversary": epoch.adversary, "training data": source.identity()}
    return {
        "tag": tag,
        "seed": epoch.seed,
        "batch_size": source.batch_size,
        "network": structure(network, tag),
        "validation data": [digest(t) for t in epoch.measures.held_out or ()],
        **{n: identity(thing, f"its {n}", network, tag, source.generators()) for n, thing in functions.items()},
        **({} if average is None else {"average": average.decay}),  # files of before there were averages are known
        **({"autocast": True} if epoch.autocast else {}),  # ... and of before there was this
    }


def _run(epoch: Epoch, state: State, epochs: int, progress: bool) -> None:
    """The epochs that are still to do."""
    bar = tqdm(total=epochs, initial=len(state.history), unit="epoch", disable=None if progress else True)
    told = time.perf_counter()
    for number in range(len(state.history) + 1, epochs + 1):
        began = time.perf_counter()
        with torch.random.fork_rng():
            row = epoch(number)
            judged = epoch.judged()
            row |= epoch.measures(judged)
        row["seconds"] = time.perf_counter() - began
        state.record(row, judged)
        told = _tell(bar, row, epochs, told)
    bar.close()


def _tell(bar: Any, row: dict[str, float], epochs: int, last: float) -> float:
    """Show a row in the bar, or else now and then in the log, so that one sees that it lives; when it did so."""
    now = time.perf_counter()
    told = {name: value for name, value in row.items() if name not in ("epoch", "learning_rate", "seconds")}
    if told.get("validation_score") == -told.get("validation_loss", math.nan):
        del told["validation_score"]  # the same number with another sign
    bar.update()
    bar.set_postfix({name: f"{value:.4f}" for name, value in told.items()})
    words = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in told.items())
    due = bar.disable and (row["epoch"] == epochs or now - last >= QUIET)
    level = logging.INFO if due else logging.DEBUG
    logger.log(level, "epoch %d/%d: %s, %.1f s", row["epoch"], epochs, words, row["seconds"])
    return now if due else last
