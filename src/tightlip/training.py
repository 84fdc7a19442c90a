"""`fit`: one training loop for every network here, on CPU or GPU, that survives being killed.

Every epoch draws its own random numbers from (seed, epoch), and the whole state is written after each epoch, so a run
resumed after ``kill -9`` has the same history as one that never stopped. The best network on *validation* data is the
one that remains.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from tqdm import tqdm

from .atomic import replacing
from .constraints import hold, is_constrained
from .errors import TightlipError
from .robustness.evaluation import wrong_size

logger = logging.getLogger(__name__)

Pair = tuple[Tensor, Tensor]
History = list[dict[str, float]]

_FORMAT = 1


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of inputs whose largest logit is the true class."""
    return float((predict(network, x).argmax(1) == y).double().mean())


@torch.no_grad()
def predict(network: nn.Module, x: Tensor, batch_size: int = 2048) -> Tensor:
    """The outputs for ``x`` (N, …), evaluated in batches without gradients."""
    try:
        return torch.cat([network(part) for part in x.split(batch_size)])
    except RuntimeError as problem:
        reason = wrong_size(network.modules(), x.shape)
        if reason is None:
            raise
        raise TightlipError(f"inputs of shape {tuple(x.shape)} do not fit the network: {reason}") from problem


def fit(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    train: Pair,
    validation: Pair,
    epochs: int,
    batch_size: int = 128,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = partial(Adam, lr=2e-3),
    schedule: Callable[[Optimizer, int], LRScheduler] = CosineAnnealingLR,
    score: Callable[[nn.Module, Tensor, Tensor], float] = accuracy,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train ``network`` in place; it ends with the weights of the epoch with the best validation score.

    Args:
        network: Any module; step-held layers are held for the optimizer automatically.
        loss: (outputs, targets) → scalar.
        train: Inputs (N, …) and targets (N,).
        validation: The same, to choose the epoch by.
        epochs: Passes over the training data.
        batch_size: Examples per step; the last, smaller batch of an epoch is used too.
        optimizer: Makes the optimizer from the parameters.
        schedule: Makes a scheduler from the optimizer and the total number of steps; stepped once per step.
        score: (network, inputs, targets) → number to maximize on validation data.
        augment: (inputs, generator) → inputs, applied to every training batch.
        device: Where to train; the network is moved there.
        seed: Of the order of the examples, of ``augment`` and of the network's own randomness.
        checkpoint: File written after each epoch, atomically; None keeps nothing.
        resume: Continue from ``checkpoint`` if it exists.
        progress: Show a progress bar on a terminal.

    Returns:
        One row per epoch: epoch, loss, train_accuracy (running), validation_accuracy, validation_score,
        learning_rate, seconds.

    Raises:
        TightlipError: if a part is no pair of tensors, equally many and not none, the loss becomes NaN or infinite, or
            the checkpoint is truncated or of another run.
    """
    _check(train, validation, epochs, batch_size)
    network.to(device)
    inputs, targets = (t.to(device) for t in train)
    held_out = tuple(t.to(device) for t in validation)
    steps = math.ceil(len(inputs) / batch_size)
    engine = optimizer(p for p in network.parameters() if p.requires_grad)
    if is_constrained(network):
        hold(network, engine)
    scheduler = schedule(engine, epochs * steps)
    key = {
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "data": _digest(inputs, targets),
        "optimizer": f"{type(engine).__name__} {engine.defaults}",
        "network": {name: list(value.shape) for name, value in network.state_dict().items()},
    }
    state = _State(network, engine, scheduler, key, checkpoint)
    if resume and checkpoint is not None and checkpoint.exists():
        state.restore(device)
    bar = tqdm(total=epochs, initial=len(state.history), unit="epoch", disable=None if progress else True)
    for epoch in range(len(state.history) + 1, epochs + 1):
        began = time.perf_counter()
        with torch.random.fork_rng():
            row = _epoch(network, loss, inputs, targets, batch_size, engine, scheduler, augment, seed, epoch)
        network.eval()
        row["validation_accuracy"] = accuracy(network, *held_out)
        row["validation_score"] = score(network, *held_out)
        row["seconds"] = time.perf_counter() - began
        state.record(row)
        bar.update()
        bar.set_postfix(loss=f"{row['loss']:.4f}", validation=f"{row['validation_accuracy']:.4f}")
        level = logging.INFO if bar.disable else logging.DEBUG  # without a bar, the log shows that it lives
        told = (epoch, epochs, row["loss"], row["validation_accuracy"], row["validation_score"], row["seconds"])
        logger.log(level, "epoch %d/%d: loss %.4f, validation accuracy %.4f, score %.4f, %.1f s", *told)
    bar.close()
    network.load_state_dict(state.best["network"])
    network.eval()
    return state.history


def _check(train: Any, validation: Any, epochs: int, batch_size: int) -> None:
    for name, part in (("training", train), ("validation", validation)):
        if not isinstance(part, tuple | list) or [isinstance(t, Tensor) for t in part] != [True, True]:
            kind = type(part).__name__
            raise TightlipError(
                f"the {name} part is a {kind}, and fit makes its own batches: give tensors (inputs, targets)"
            )
        x, y = part
        if len(x) == 0 or len(x) != len(y):
            raise TightlipError(
                f"the {name} part has {len(x)} inputs and {len(y)} targets: give equally many, not none"
            )
    if epochs < 1 or batch_size < 1:
        raise TightlipError(f"epochs={epochs} and batch_size={batch_size} train nothing: give numbers ≥ 1")


def _digest(*tensors: Tensor) -> str:
    """A hash of the training data, so that a run is never resumed on other data."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _epoch(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    batch_size: int,
    engine: Optimizer,
    scheduler: LRScheduler,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    torch.manual_seed(seed * 1_000_003 + epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    network.train()
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    right = torch.zeros((), dtype=torch.float64, device=inputs.device)
    order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    for index in order.split(batch_size):
        x, y = inputs[index], targets[index]
        outputs = network(augment(x, generator) if augment else x)
        value = loss(outputs, y)
        engine.zero_grad()
        value.backward()
        engine.step()
        scheduler.step()
        total += value.detach().double() * len(y)
        if outputs.dim() == 2:
            right += (outputs.detach().argmax(1) == y).sum()
    mean = float(total) / len(inputs)
    if not math.isfinite(mean):
        raise TightlipError(
            f"the loss became {mean} in epoch {epoch}: lower the learning rate; earlier epochs are kept"
        )
    return {
        "epoch": epoch,
        "loss": mean,
        "train_accuracy": float(right) / len(inputs),
        "learning_rate": float(engine.param_groups[0]["lr"]),
    }


class _State:
    """Everything that a resumed run needs, in one file that is replaced atomically."""

    def __init__(
        self,
        network: nn.Module,
        engine: Optimizer,
        scheduler: LRScheduler,
        key: dict[str, Any],
        path: Path | None,
    ) -> None:
        self.network, self.engine, self.scheduler, self.key, self.path = network, engine, scheduler, key, path
        self.history: History = []
        self.best: dict[str, Any] = {"score": -math.inf}

    def record(self, row: dict[str, float]) -> None:
        self.history.append(row)
        if "network" not in self.best or row["validation_score"] > self.best["score"] or math.isnan(self.best["score"]):
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = {"score": row["validation_score"], "network": weights}
        if self.path is None:
            return
        state = {
            "format": _FORMAT,
            "key": self.key,
            "network": self.network.state_dict(),
            "optimizer": self.engine.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
            "best": self.best,
        }
        with replacing(self.path) as partial_file:
            torch.save(state, partial_file)

    def restore(self, device: str | torch.device) -> None:
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)  # type: ignore[arg-type]
            known = state["format"] == _FORMAT and state["key"] == self.key
        except Exception as error:
            raise TightlipError(f"{self.path} is no readable checkpoint: delete it to start afresh") from error
        if not known:
            raise TightlipError(f"{self.path} belongs to another run: resume with the same options, data and network")
        self.network.load_state_dict(state["network"])
        self.engine.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history, self.best = state["history"], state["best"]
