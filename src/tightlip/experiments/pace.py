"""How many epochs fill a time on this machine: a few steps are timed before training, on a network of their own."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from torch import nn

from ..data import Part, Splits
from ..provenance import write_json
from ..training import History
from .classification_options import Config

logger = logging.getLogger(__name__)

PACE = "pace.json"
"""Beside the checkpoint of a run that is not complete: the epochs that were chosen."""

STEPS = 16
"""In each of the epochs that are timed."""

TIMED = 2
"""Epochs that are timed, after one that warms up."""

Learn = Callable[[Config, Part, Part, int], tuple[nn.Module, History]]
"""(options, training part, validation part, classes) → the network, trained, and its history."""


def paced(
    config: Config, parts: Splits, classes: int, learn: Learn, checkpoint: Path | None = None, resume: bool = False
) -> Config:
    """The options with as many epochs as take about ``config.minutes``, at least one; without minutes as they are.

    The estimate is of this machine as it is now: one that is busier later takes longer. It does not know what writing
    checkpoints takes, nor that methods may slow down on their way. All else of the run is as with the same ``epochs``.

    Args:
        config: What is to be trained.
        parts: Of the data.
        classes: How many there are.
        learn: Trains a network of its own; nothing of it stays.
        checkpoint: Where the run keeps its state; the number of epochs is kept beside it.
        resume: Take the number that is kept there, if it is.
    """
    if config.minutes is None:
        return config
    kept = None if checkpoint is None else checkpoint.with_name(PACE)
    epochs = _kept(kept) if resume and kept is not None else None
    if epochs is None:
        seconds = epoch_seconds(replace(config, minutes=None), parts, classes, learn)
        epochs = max(1, math.floor(60 * config.minutes / seconds))
        logger.info("an epoch takes about %.2g s: %d epochs for %g minutes", seconds, epochs, config.minutes)
    if kept is not None:
        write_json(kept, {"epochs": epochs})
    return replace(config, epochs=epochs, minutes=None)


def epoch_seconds(config: Config, parts: Splits, classes: int, learn: Learn) -> float:
    """About how long an epoch takes, from short epochs over the same share of training and validation examples."""
    share = min(1.0, STEPS * config.batch / len(parts.train))
    train, validation = _first(parts.train, share), _first(parts.validation, share)
    with _silent():
        _, history = learn(replace(config, epochs=1 + TIMED), train, validation, classes)
    return max(fmean(row["seconds"] for row in history[1:]) / share, 1e-9)


def _first(part: Part, share: float) -> Part:
    count = math.ceil(share * len(part))
    return Part(part.images[:count], part.labels[:count])


def _kept(path: Path) -> int | None:
    """The number in the file; None if it cannot be read."""
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return epochs if isinstance(epochs, int) and epochs >= 1 else None


@contextmanager
def _silent() -> Iterator[None]:
    """The epochs that are timed are none of the run's, and are not told."""
    told = logging.getLogger("tightlip.training")
    level = told.level
    told.setLevel(logging.WARNING)
    try:
        yield
    finally:
        told.setLevel(level)
