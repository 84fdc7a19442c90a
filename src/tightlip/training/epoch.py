"""One pass over the training data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..arguments import called
from ..descent import descend
from ..errors import TightlipError
from .averaging import Average
from .examples import Batch, Stream, Tensors
from .measures import Measures, hits, one_tensor
from .targets import compare

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs, generator) → inputs."""

Adversary = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, inputs, targets) → inputs."""


@dataclass
class Epoch:
    """One pass over the training data."""

    network: nn.Module
    source: Tensors | Stream
    measures: Measures
    engine: Optimizer
    scheduler: LRScheduler | None
    augment: Augment | None
    adversary: Adversary | None
    seed: int
    average: Average | None = None
    autocast: bool = False

    def __call__(self, number: int) -> dict[str, float]:
        """The row of the epoch: its mean loss and, where it applies, accuracy, while the weights moved."""
        torch.manual_seed(self.seed * 1_000_003 + number)
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        self.network.train()
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.counts = [0, 0]
        batches = self.source.epoch(self.generator)
        if self.average is not None:
            batches = self.average.after_each(batches)
        where = f" of epoch {number}"
        descend(self.network, self.engine, self._value, batches, self.scheduler, where=where)
        row = {"epoch": number, "loss": float(self.sums[0]) / self.counts[0]}
        if self.measures.classifies:
            row["train_accuracy"] = float(self.sums[1]) / self.counts[1]
        return row | {"learning_rate": float(self.engine.param_groups[0]["lr"])}

    def judged(self) -> nn.Module:
        """The network in which the epoch is judged and kept, in eval mode: the one that trains, or its average."""
        return (self.network if self.average is None else self.average.member()).eval()

    def _value(self, batch: Batch) -> Tensor:
        x, y = batch
        if self.augment is not None:
            x = _inputs(self.augment(x, self.generator), x, "augment")
        if self.adversary is not None:
            self.network.eval()
            x = _inputs(self.adversary(self.network, x, y), x, "adversary").detach()
            self.network.train()
        outputs = self._outputs(x)
        value = compare(self.measures.loss, outputs, self.measures.form(outputs, y))
        self.sums[0] += value.detach().double().cpu() * len(y)
        self.counts[0] += len(y)
        if self.measures.classifies:
            right = hits(outputs.detach(), y)
            self.sums[1] += right.sum().cpu()
            self.counts[1] += right.numel()
        return value

    def _outputs(self, x: Tensor) -> Tensor:
        """Of the network, in float32 at least, whatever its products were computed in."""
        if not self.autocast:
            return one_tensor(called(self.network, x))
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = one_tensor(called(self.network, x))
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _inputs(made: Any, x: Tensor, name: str) -> Tensor:
    if not isinstance(made, Tensor) or len(made) != len(x):
        kind = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise TightlipError(f"{name} must return inputs for all {len(x)} examples of the batch, got {kind}")
    return made
