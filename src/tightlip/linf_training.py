"""How networks of ∞-norm distances are trained: the norm rises to ∞, and a loss of all classes gives way to a hinge.

At p = ∞ a gradient reaches one entry of each unit, which is too little to begin with. Source of both: Zhang et al.,
ICML 2021 and ICLR 2022, with octaves in the place of a continuous p, so that powers are squarings.
"""

import math
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .arguments import integer
from .errors import TightlipError
from .linf_distance import MOST_OCTAVES, LinfDistance, SortedDistance
from .losses import multiclass_margin


class FadingCrossEntropy(nn.Module):
    """max(0, θ − m) + (1 − t)²·(cross-entropy of scale·y − 0.9·max(0, θ − m)), averaged over the batch.

    m = y_t − max_{i≠t} y_i is the margin of an input, and t, from 0 to 1, the ``progress`` of training, which
    `OctaveSchedule` keeps. In the ∞-norm a margin of θ certifies the radius θ/2.

    Args:
        margin: θ, in units of the outputs.
        scale: Of the outputs in the cross-entropy.

    Raises:
        TightlipError: for a negative margin, or a scale that is not positive; in the forward for labels as in
            `multiclass_hinge`.

    >>> import torch
    >>> loss = FadingCrossEntropy(margin=0.5)
    >>> loss.progress = 1.0
    >>> loss(torch.tensor([[0.3, 0.0]]), torch.tensor([0]))
    tensor(0.2000)
    """

    def __init__(self, margin: float, scale: float = 10.0) -> None:
        super().__init__()
        if not 0 <= margin < math.inf:
            raise TightlipError(f"margin must be a finite number ≥ 0, got {margin!r}")
        if not 0 < scale < math.inf:
            raise TightlipError(f"scale must be a finite number > 0, got {scale!r}")
        self.margin, self.scale, self.progress = margin, scale, 0.0

    def forward(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The mean over the batch."""
        hinge = (self.margin - multiclass_margin(logits, labels)).clamp(min=0).mean()
        share = (1.0 - self.progress) ** 2
        entropy = functional.cross_entropy(self.scale * logits, labels)
        return share * entropy + (1.0 - 0.9 * share) * hinge

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"margin={self.margin:g}, scale={self.scale:g}"


class OctaveSchedule(LRScheduler):
    """A rate that rises and falls along a cosine, while distances go from p = 2^first to 2^last, and to ∞ at the end.

    Give it to `fit` as ``schedule=partial(OctaveSchedule, network=network, loss=loss)``; step it once per step.

    Args:
        optimizer: Its rates are those at the top.
        steps: Of all of training.
        network: Its `LinfDistance` and `SortedDistance` layers get the octaves.
        loss: Gets ``progress`` from 0 to 1; or None.
        first: The octave at the beginning.
        last: The octave before p = ∞.
        relaxed: The share of training in which p is finite.
        warm_up: The share of training in which the rate rises.

    Raises:
        TightlipError: for impossible numbers, or a network without such layers.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        network: nn.Module,
        loss: FadingCrossEntropy | None = None,
        first: int = 3,
        last: int = 10,
        relaxed: float = 0.9,
        warm_up: float = 0.05,
    ) -> None:
        self.steps = integer("steps", steps)
        self.first, self.last = (integer(n, v, most=MOST_OCTAVES) for n, v in (("first", first), ("last", last)))
        if first > last:
            raise TightlipError(f"octaves rise, from first to last: got first={first}, last={last}")
        for name, share in (("relaxed", relaxed), ("warm_up", warm_up)):
            if not 0 <= share <= 1:
                raise TightlipError(f"{name} must be a share of training from 0 to 1, got {share!r}")
        self.relaxed, self.warm_up = relaxed, warm_up
        self._loss = loss
        self._layers = [m for m in network.modules() if isinstance(m, LinfDistance | SortedDistance)]
        if not self._layers:
            raise TightlipError("this network has no LinfDistance or SortedDistance whose octave could rise")
        super().__init__(optimizer)

    @property
    def progress(self) -> float:
        """The share of training that is over."""
        return min(1.0, self.last_epoch / self.steps)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of this step."""
        t = self.progress
        rise = min(1.0, (t + 0.001) / self.warm_up) if self.warm_up else 1.0
        return [base * rise * 0.5 * (1 + math.cos(math.pi * t)) for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """The next step."""
        super().step(epoch)
        self._relax()

    def state_dict(self) -> dict[str, Any]:
        """Numbers only."""
        return {name: value for name, value in super().state_dict().items() if name not in ("_layers", "_loss")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Layers and loss follow."""
        super().load_state_dict(state_dict)
        self._relax()

    def _relax(self) -> None:
        t = self.progress
        share = t / self.relaxed if self.relaxed else math.inf
        octave = None if share > 1 else round(self.first + (self.last - self.first) * share)
        for layer in self._layers:
            layer.octave = octave
        if self._loss is not None:
            self._loss.progress = t
