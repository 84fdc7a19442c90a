"""What a caller of `fit` sets, made or refused before any data is looked at."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..arguments import flag, integer, number, taking
from ..errors import TightlipError
from .measures import TAKEN

SEEDS = 2**32 - 1
"""The largest seed: it is multiplied, and must fit into 64 bits."""

LARGEST = 2**31
"""Batches are not larger, since no part is."""


def refuse_kinds(network: Any, loss: Any) -> None:
    """Refuse what cannot be a network or a loss, and classes in their place."""
    if not isinstance(network, nn.Module) or not callable(loss) or isinstance(loss, type):
        kinds = [f"the class {t.__name__}" if isinstance(t, type) else f"a {type(t).__name__}" for t in (network, loss)]
        raise TightlipError(
            f"fit takes a network and a loss (outputs, targets) → number, got {kinds[0]} and {kinds[1]}: give these "
            "first, made, as nn.MSELoss() is"
        )
    taking("loss", loss, "outputs", "targets")


def numbers(epochs: Any, batch_size: Any, seed: Any) -> tuple[int, int | None, int]:
    """The three as integers; those that train nothing are refused."""
    size = None if batch_size is None else min(integer("batch_size", batch_size), LARGEST)
    return integer("epochs", epochs), size, integer("seed", seed, least=0, most=SEEDS)


def decay(average: Any) -> float:
    """What an average of weights keeps of itself at each step; 0 for no average."""
    found = number("average", average, least=0, most=1)
    if found == 1:
        raise TightlipError(
            "average=1.0 would keep the weights of the first step: give a number below 1, such as 0.99, or 0 for none"
        )
    return found


def refuse_flags(resume: Any, progress: Any, tag: Any, checkpoint: Any, autocast: Any) -> None:
    """Refuse what is not true or false, a tag that is not a word, and continuing from nowhere."""
    flag("progress", progress)
    flag("autocast", autocast)
    if not isinstance(tag, str | None):
        raise TightlipError(f"tag must be a str, a name of yours for what a checkpoint cannot describe, got {tag!r}")
    if flag("resume", resume) and checkpoint is None:
        raise TightlipError("resume=True continues from a checkpoint, and none is named: give checkpoint=…")


def refuse_functions(score: Any, metrics: Any, augment: Any, adversary: Any, validation: Any) -> None:
    """Refuse functions that cannot be called as they will be, or whose data are not there."""
    for name, given, arguments in (
        ("score", score, ("network", "inputs", "targets")),
        ("augment", augment, ("inputs", "generator")),
        ("adversary", adversary, ("network", "inputs", "targets")),
    ):
        if given is not None:
            taking(name, given, *arguments)
    if not isinstance(metrics, Mapping | None) or not all(isinstance(name, str) for name in metrics or ()):
        raise TightlipError(f"metrics must be a dictionary of name → function, got {metrics!r}")
    for name, metric in (metrics or {}).items():
        taking(f"the metric {name}", metric, "outputs", "targets")
    if TAKEN & set(metrics or {}):
        raise TightlipError(f"metrics may not be called {', '.join(sorted(TAKEN))}, which fit measures: rename them")
    for name, given in {"score": score, "metrics": metrics}.items():
        if given is not None and validation is None:
            raise TightlipError(f"{name} is measured on validation data, and there are none: give validation=…")


def optimizer_of(network: nn.Module, make: Any, kept: bool) -> Optimizer:
    """The optimizer of the weights that train.

    Args:
        network: Theirs.
        make: Makes it from them.
        kept: Whether a checkpoint is written, which holds no weights but the network's.

    Raises:
        TightlipError: if none trains, none can be made of them, or it is of other weights.
    """
    if isinstance(make, Optimizer) or not callable(make):
        raise TightlipError(
            f"optimizer is made by fit from the parameters, got {_kind(make)}: give e.g. "
            "partial(torch.optim.Adam, lr=1e-3)"
        )
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    if not trainable:
        raise TightlipError("no weight of the network trains: give one whose parameters require gradients")
    try:
        made = make(trainable)
    except (TypeError, ValueError, RuntimeError) as problem:
        if isinstance(problem, TightlipError):
            raise
        raise TightlipError(
            f"optimizer cannot be made from the parameters ({problem}): give a function of them, e.g. "
            "partial(torch.optim.Adam, lr=1e-3)"
        ) from problem
    if not all(hasattr(made, name) for name in ("step", "zero_grad", "param_groups", "state_dict")):
        raise TightlipError(
            f"optimizer must make one of torch's optimizers from the parameters, and made {_kind(made)}"
        )
    moved = {id(weight) for group in made.param_groups for weight in group["params"]}
    if moved.isdisjoint(map(id, trainable)):
        raise TightlipError("the optimizer that was made has no weight of this network: make it from the parameters")
    if kept and not moved <= set(map(id, network.parameters())):
        raise TightlipError(
            "the optimizer has weights that are not the network's, which no checkpoint would keep: make them part of "
            "the network, or leave checkpoint out"
        )
    return made


def scheduler_of(optimizer: Optimizer, make: Any, steps: int) -> LRScheduler | None:
    """The schedule of an optimizer for so many steps.

    Raises:
        TightlipError: if it is no function of both, none can be made, or it waits for a score.
    """
    if make is None:
        return None
    if isinstance(make, LRScheduler) or not callable(make):
        raise TightlipError(
            f"schedule is made by fit from (optimizer, steps), got {_kind(make)}: give e.g. CosineAnnealingLR, or None"
        )
    taking("schedule", make, "optimizer", "steps")
    try:
        made = make(optimizer, steps)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TightlipError(f"schedule cannot be made from the optimizer and {steps} steps: {problem}") from problem
    if isinstance(made, ReduceLROnPlateau):
        raise TightlipError(
            "ReduceLROnPlateau waits for a score, and fit steps once per batch: give a schedule of steps"
        )
    if not isinstance(made, LRScheduler) or getattr(made, "optimizer", optimizer) is not optimizer:
        raise TightlipError(
            f"schedule must make a scheduler of torch's for the optimizer that it is given, and made {_kind(made)}"
        )
    return made


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
