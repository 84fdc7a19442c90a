"""Cells of frequencies: boxes that cover the torus, up to sign, and that can be split.

How far a cell reaches is measured by θ = max Σ_a n_a|δ_a| over its points ω + δ, for a polynomial of degree n_a along
axis a. In two dimensions the set Σ|δ_a| ≤ h is a diamond, and diamonds tile: half as many of them as of squares with
the same reach. So the first two frequencies are written as ω = ((u + v)/2, (u − v)/2), and a cell is a box in (u, v).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

INFLATED = 1.0 + 1e-9
"""Times this, the reach of a cell covers the rounding of its coordinates and of the cosine of the reach."""


@dataclass(frozen=True)
class Cells:
    """Boxes of one size, each for one group of channels: middles and half-widths in coordinates u with ω = u·frame."""

    group: Int64[Tensor, " cells"]
    middle: Float64[Tensor, "cells axes"]
    half: Float64[Tensor, " axes"]
    frame: Float64[Tensor, "axes axes"]

    def __len__(self) -> int:
        return len(self.group)

    @property
    def frequencies(self) -> Float64[Tensor, "cells axes"]:
        """The frequencies in the middles of the cells."""
        return self.middle @ self.frame

    def reach(self, degrees: Sequence[int]) -> float:
        """The largest Σ n_a|δ_a| within a cell, rounded up: it is convex, so it is attained in a corner."""
        corners = _corners(len(degrees)) * self.half @ self.frame
        return float((corners.abs() @ torch.tensor(degrees, dtype=torch.float64)).max()) * INFLATED

    def where(self, chosen: Bool[Tensor, " cells"] | Int64[Tensor, " chosen"] | slice) -> "Cells":
        """Some of the cells."""
        return Cells(self.group[chosen], self.middle[chosen], self.half, self.frame)

    def split(self) -> "Cells":
        """Every cell cut in half along each axis."""
        corners = _corners(len(self.half)) * self.half / 2.0
        middle = (self.middle[:, None] + corners).flatten(0, 1)
        return Cells(self.group.repeat_interleave(len(corners)), middle, self.half / 2.0, self.frame)

    def parts(self, size: int) -> "list[Cells]":
        """The cells in parts of at most ``size``."""
        return [self.where(slice(first, first + size)) for first in range(0, len(self), size)]


def covering(degrees: Sequence[int], groups: int, reach: float) -> Cells:
    """Cells within ``reach`` that, together with their negatives, cover the torus once for each group.

    *Why they do.* On one axis, [0, π] and its negative are the circle. On two, the diamond |ω₁ − π/2| + |ω₂ − π/2| ≤ π
    (u from 0 to 2π, v from −π to π) and its negative have centers a half period apart along both axes; diamonds of
    this size at all such places tile the plane like a chessboard. A third axis is covered whole.
    """
    axes = len(degrees)
    frame = torch.eye(axes, dtype=torch.float64)
    low, width = [0.0] + [-math.pi] * (axes - 1), [2.0 * math.pi] * axes
    if axes == 1:
        width = [math.pi]
    else:
        frame[:2, :2] = torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    steepest = [max(degrees[:2])] * min(axes, 2) + list(degrees[2:])
    share = reach / max(axes - 1, 1)
    pieces = [max(math.ceil(w * n / (2.0 * share) - 1e-9), 1) for w, n in zip(width, steepest, strict=True)]
    half = torch.tensor([w / (2 * m) for w, m in zip(width, pieces, strict=True)], dtype=torch.float64)
    places = torch.tensor(list(itertools.product(*map(range, pieces))), dtype=torch.float64)
    middle = torch.tensor(low, dtype=torch.float64) + (2.0 * places + 1.0) * half
    group = torch.arange(groups).repeat(len(middle))
    return Cells(group, middle.repeat_interleave(groups, 0), half, frame)


def _corners(axes: int) -> Float64[Tensor, "corners axes"]:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=axes)), dtype=torch.float64)
