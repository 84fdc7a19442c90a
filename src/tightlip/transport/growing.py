"""Funnels that are trained from few to many: a piece learns where its part of the points goes, then splits in two.

Sought are points c_j and offsets q_j with a large difference of means of f(x) = min_j(‖x − c_j‖₂ + q_j). Trained as
they stand, pieces starve: far from zero in many dimensions the one whose point is the innermost is the least
everywhere, and the others get no gradient any more. So three things are done.

* Offsets are q_j = l_j − √(‖c_j − m‖² + s²), with m the mean of the points and s² their mean square from it. The root
  is what ‖x − c_j‖ is on average, so a point may move in or out, and its piece keeps its share of the points.
* Pieces begin near m, where all are alike but for their direction, and move out as they learn.
* Few begin, and each has many points to learn from. Then every piece becomes two, a little apart, again and again.

In up to some 32 dimensions points of a sample tell where funnels are, and all pieces may begin there at once.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from ..arguments import flag, integer, number, taking
from ..descent import descend
from ..errors import TightlipError
from ..losses import kantorovich
from .critic import Sampler
from .potential import Funnels

FEW, NEAR = 64, 0.3
"""Pieces that begin, and how far from the mean, as a share of the points of a sample."""

FIRST, LATER = 0.25, 0.35
"""Shares of all steps before pieces split, and from there until they have split for the last time."""

APART = 0.2
"""How far each of two pieces is from the one that they were, as a share of s/√d, the size of a coordinate."""

GROWING, STANDING = 0.1, 0.25
"""The learning rate of offsets, as a share of that of coordinates, of pieces that split and of those that do not."""

PROBED = 8192
"""Points of each sample that tell their mean and spread, and where pieces begin."""


def train_funnels(
    sample: Sampler,
    steps: int = 2000,
    batch_size: int = 1024,
    pieces: int = 1024,
    grow: bool = True,
    learning_rate: float = 0.014,
    progress: bool = True,
) -> Funnels:
    """Maximize mean f(x) − mean f(x') over `Funnels` f; the constant is 1 in the 2-norm, whatever comes out.

    Good where the potential is a minimum of cones, or, for the samples exchanged, minus one. It says little where
    the potential has many peaks: a peak takes many cones.

    Args:
        sample: Gives a fresh batch of each distribution: how many → (first, second), float32 rows (n, d).
        steps: Of Adam, in all; the rate falls to zero along one cosine.
        batch_size: Points of each distribution per step.
        pieces: Of f; with ``grow`` 64 times a power of two.
        grow: Whether pieces begin as a few near the mean and split; otherwise all begin at points of the second
            distribution, with offsets 0. That is faster, and fails where nearly all points are near no other.
        learning_rate: Of coordinates, at the first step, as a share of their root mean square; less of offsets.
        progress: Whether to show a bar on a terminal.

    Returns:
        Funnels in float32 that do not train.

    Raises:
        TightlipError: for numbers of pieces that splitting does not reach, other options, or a loss that is not finite.
    """
    steps, batch_size = integer("steps", steps), integer("batch_size", batch_size)
    pieces, rate = integer("pieces", pieces), number("learning_rate", learning_rate, above=0)
    taking("sample", sample, "count")
    ends = _ends(steps, pieces, flag("grow", grow))
    rates = rate, rate * (GROWING if grow else STANDING)
    model = _start(*sample(max(PROBED, pieces)), FEW if grow else pieces, grow)
    with tqdm(total=steps, unit="step", disable=None if flag("progress", progress) else True, leave=False) as bar:
        for split, (begin, end) in enumerate(pairwise((0, *ends))):
            model = model.split() if split else model
            _train(model, sample, batch_size, rates, range(begin, end), steps, bar)
    return Funnels(model.points.detach(), model.offsets().detach())


def _ends(steps: int, pieces: int, grow: bool) -> list[int]:
    """After how many steps pieces split, each time, and at last the end."""
    splits = round(math.log2(pieces / FEW)) if grow else 0
    if grow and pieces != FEW * 2 ** max(splits, 0):
        raise TightlipError(f"{pieces} pieces do not come of {FEW} by splitting: give {FEW}, {2 * FEW}, {4 * FEW}, …")
    return [round(steps * (FIRST + LATER * split / splits)) for split in range(splits)] + [steps]


def _start(first: Float32[Tensor, "n d"], second: Float32[Tensor, "n d"], count: int, near: bool) -> "_Leveled":
    mean = torch.cat((first, second)).mean(0)
    spread = float((second - mean).square().sum(1).mean().sqrt())
    points = mean + (NEAR if near else 1.0) * (second[:count] - mean)
    levels = usual_distance(points, mean, spread)
    return _Leveled(points, levels.mean().expand(count) if near else levels, mean, spread)


def _train(
    model: "_Leveled",
    sample: Sampler,
    batch_size: int,
    rates: tuple[float, float],
    numbers: range,
    steps: int,
    bar: tqdm,
) -> None:
    """The steps of these numbers, out of all."""
    of_points, of_levels = (model.size * rate for rate in rates)
    groups: list[dict[str, Any]] = [{"params": [model.points]}, {"params": [model.levels], "lr": of_levels}]
    engine = torch.optim.Adam(groups, of_points, betas=(0.9, 0.99), fused=True)
    schedule = LambdaLR(engine, lambda step: (1 + math.cos(math.pi * (numbers.start + step) / steps)) / 2)

    def loss(_: int) -> Tensor:
        first, second = sample(batch_size)
        values = model(torch.cat((first, second)))
        return kantorovich(values[:batch_size], values[batch_size:])

    def watch(_: int) -> None:
        bar.update()

    descend(model, engine, loss, numbers, schedule, watch)


class _Leveled(nn.Module):
    """The pieces by their points c and levels l; searched by products in float32, and valued by differences."""

    def __init__(
        self, points: Float32[Tensor, "k d"], levels: Float32[Tensor, " k"], mean: Tensor, spread: float
    ) -> None:
        super().__init__()
        self.points, self.levels = nn.Parameter(points.clone()), nn.Parameter(levels.clone())
        self.mean, self.spread = mean, spread

    @property
    def size(self) -> float:
        """s/√d."""
        return self.spread / math.sqrt(self.points.shape[1])

    def offsets(self) -> Float32[Tensor, " k"]:
        """The q that belong to the levels."""
        return self.levels - usual_distance(self.points, self.mean, self.spread)

    def forward(self, x: Float32[Tensor, "n d"]) -> Float32[Tensor, " n"]:
        """F."""
        offsets = self.offsets()
        least = self._least(x, offsets)
        return torch.linalg.vector_norm(x - self.points[least], dim=1) + offsets[least]

    @torch.no_grad()
    def _least(self, x: Float32[Tensor, "n d"], offsets: Float32[Tensor, " k"]) -> Int64[Tensor, " n"]:
        x, points = x - self.mean, self.points - self.mean
        squares = torch.addmm(points.square().sum(1), x, points.mT, alpha=-2)
        return squares.add_(x.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_().add_(offsets).argmin(1)

    def split(self) -> "_Leveled":
        """Twice as many, in pairs about where they were."""
        step = torch.randn_like(self.points)
        step *= APART * self.size / torch.linalg.vector_norm(step, dim=1, keepdim=True)
        points, levels = self.points.detach(), self.levels.detach()
        return _Leveled(torch.cat((points + step, points - step)), levels.repeat(2), self.mean, self.spread)


def usual_distance(points: Float[Tensor, "k d"], mean: Float[Tensor, " d"], spread: float) -> Float[Tensor, " k"]:
    """√(‖c − m‖² + s²), the root of the mean square of ‖x − c‖ over x of mean m and mean square distance s² from it."""
    return ((points - mean).square().sum(1) + spread**2).sqrt()
