"""Carriers: how a layer's weight is a matrix, or a family of them, so that sets of matrices need not know layers.

The weight of `nn.Linear` is its matrix. A convolution is an operator on images of every size, and which matrices bound
it depends on the norms of the promise (`linalg.convolutions`):

* p→∞: every output reads each tap of its row once, so the rows of ``weight.flatten(1)``, whatever the stride, dilation
  and groups.
* 1→q: every input is read through the taps of its own residue modulo the stride. With stride s and dilation d that
  share no factor, d·t and d·t' have one residue where t and t' do; a shared factor is divided out first. So the
  columns, one for each input channel and residue of t.
* 2→2: where no axis has more taps than its stride (after that division), no pixel is read twice by an output channel,
  and the weight of each group is a matrix on patches. Else the operator is more than a matrix, and the set says what it
  makes of that (`Constraint.on_kernels`).

Padding that repeats pixels keeps ∞→q promises only, and circular padding, under which taps may meet in one pixel, also
those from p to p if the stride is 1.
"""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TightlipError
from ..linalg.geometry import Geometry, repeats_pixels
from ..norms import norm_name
from ..rules.convolution import geometry_of
from .constraint import Constraint

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
"""Layers that `constrain` takes."""


class Carrier(abc.ABC):
    """A bijection between weights (out, in, *taps) and families of matrices, up to entries that stay zero."""

    @abc.abstractmethod
    def matrices(self, weight: Tensor) -> Tensor:
        """(family, rows, columns)."""

    @abc.abstractmethod
    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The weight of this shape that has these matrices."""


@dataclass(frozen=True)
class Rows(Carrier):
    """One matrix for each group: a row for each output channel, a column for each input channel and tap.

    Where a pixel is read in several places, as one tap or another, the matrix is √places times the weight: the squares
    of all patches add up to places times that of the image.
    """

    groups: int = 1
    places: int = 1

    def matrices(self, weight: Tensor) -> Tensor:
        """(groups, out / groups, in · taps)."""
        rows = weight.flatten(1).unflatten(0, (self.groups, -1))
        return rows if self.places == 1 else rows * self.places**0.5

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """(out, in, *taps)."""
        return (matrices if self.places == 1 else matrices / self.places**0.5).reshape(*shape)

    def __str__(self) -> str:
        groups = "" if self.groups == 1 else f", groups {self.groups}"
        return groups if self.places == 1 else f"{groups}, divided by √{self.places}"


@dataclass(frozen=True)
class Columns(Carrier):
    """One matrix, with a column for each group, input channel and residue of taps modulo the stride."""

    stride: tuple[int, ...]
    groups: int

    def matrices(self, weight: Tensor) -> Tensor:
        """(1, out / groups · places, groups · in · residues); places beyond the last tap are zero."""
        spread = F.pad(weight, [side for k, s in self._last_first(weight.shape) for side in (0, -k % s)])
        for axis, s in enumerate(self.stride):
            spread = spread.unflatten(2 + 2 * axis, (-1, s))
        spread = spread.unflatten(0, (self.groups, -1))  # group, out, in, place, residue, place, residue
        places, residues = self._axes(spread.dim())
        together = spread.permute(1, *places, 0, 2, *residues)
        return together.flatten(1 + len(places)).flatten(0, len(places))[None]

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """(out, in, *taps)."""
        places, residues = self._axes(3 + 2 * len(self.stride))
        counts = [-(-k // s) for k, s in zip(shape[2:], self.stride, strict=True)]
        sizes = shape[0] // self.groups, *counts, self.groups, shape[1], *self.stride
        order = (1, *places, 0, 2, *residues)
        spread = matrices.reshape(sizes).permute(*(order.index(axis) for axis in range(len(order)))).flatten(0, 1)
        for axis, (count, s) in enumerate(zip(counts, self.stride, strict=True)):
            spread = spread.reshape(*spread.shape[: 2 + axis], count * s, *spread.shape[4 + axis :])
            spread = spread.narrow(2 + axis, 0, shape[2 + axis])
        return spread.contiguous()

    def _axes(self, dim: int) -> tuple[range, range]:
        return range(3, dim, 2), range(4, dim, 2)

    def _last_first(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        return list(zip(shape[2:], self.stride, strict=True))[::-1]

    def __str__(self) -> str:
        return "" if max(self.stride) == self.groups == 1 else f" at stride {by(self.stride)}, groups {self.groups}"


class Carried(Constraint):
    """A set of matrices, as a set of weights (out, in, *taps): those all of whose matrices are members."""

    def __init__(self, asked: Constraint, carrier: Carrier) -> None:
        self._asked, self.carrier = asked, carrier
        self.norms, self.projects = asked.norms, asked.projects
        self.holds, self.promises = asked.holds, asked.promises  # type: ignore[misc]

    @property
    def asked(self) -> Constraint:
        """The set of matrices."""
        return self._asked

    def map(self, weight: Tensor) -> Tensor:
        """The set's map of each matrix."""
        return self.carrier.weight(self._each(self._asked.map, weight), weight.shape)

    def map_(self, weight: Tensor, last: Tensor | None = None) -> Tensor | None:
        """The set's map of each matrix in place: all of them or none."""
        matrices = self.carrier.matrices(weight.detach()).contiguous()
        if len(matrices) > 1:  # a later one may have no member near it
            matrices = matrices.clone()
        kept = [self._asked.map_(matrix, last) for matrix in matrices]
        if matrices.data_ptr() != weight.data_ptr():
            weight.copy_(self.carrier.weight(matrices, weight.shape))
        return kept[0] if len(kept) == 1 else None

    def distance(self, weight: Tensor) -> float:
        """The largest distance of a matrix."""
        distances = [self._asked.distance(matrix) for matrix in self.carrier.matrices(weight)]
        return math.nan if any(map(math.isnan, distances)) else max(distances)

    def tangent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """The set's tangent part for each matrix."""
        return self.carrier.weight(self._each(self._asked.tangent, weight, gradient), weight.shape)

    def finish(self, weight: Tensor) -> Tensor:
        """What the set makes of each matrix."""
        return self.carrier.weight(self._each(self._asked.finish, weight), weight.shape)

    def chart(self, weight: Tensor) -> nn.Module | None:
        """The set's charts, one for each matrix."""
        charts = [self._asked.chart(matrix) for matrix in self.carrier.matrices(weight)]
        made = [chart for chart in charts if chart is not None]
        return _Charts(self.carrier, made) if made else None

    def sample(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Every matrix drawn by the set."""
        matrices = self.carrier.matrices(torch.empty(*shape, device="cpu"))
        drawn = [self._asked.sample(matrix.shape, generator) for matrix in matrices]
        return self.carrier.weight(torch.stack(drawn), shape)

    def contains(self, weight: Tensor) -> bool:
        """Whether every matrix is a member."""
        return all(self._asked.contains(matrix) for matrix in self.carrier.matrices(weight))

    def _each(self, function: Callable[..., Tensor], *weights: Tensor) -> Tensor:
        families = [self.carrier.matrices(weight) for weight in weights]
        return torch.stack([function(*matrices) for matrices in zip(*families, strict=True)])

    def __repr__(self) -> str:
        return f"{self._asked!r}{self.carrier}"


class _Charts(nn.Module):
    """Charts of matrices as one of the weight."""

    def __init__(self, carrier: Carrier, charts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.carrier, self.charts = carrier, nn.ModuleList(charts)

    def forward(self, weight: Tensor) -> Tensor:
        pairs = zip(self.charts, self.carrier.matrices(weight), strict=True)
        return self.carrier.weight(torch.stack([chart(matrix) for chart, matrix in pairs]), weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        pairs = zip(self.charts, self.carrier.matrices(weight), strict=True)
        found = [chart.right_inverse(matrix) for chart, matrix in pairs]  # type: ignore[operator]
        return self.carrier.weight(torch.stack(found), weight.shape)


def carried(layer: Layer, constraint: Constraint) -> Constraint:
    """The set of this layer's weights whose operators keep the promise of ``constraint``.

    Raises:
        TightlipError: where there is none: padding that repeats pixels, kernels of which the set says nothing.
    """
    if type(layer) is nn.Linear:
        return constraint
    assert not isinstance(layer, nn.Linear)
    geometry, shape = geometry_of(layer), tuple(layer.weight.shape)
    apart = tuple(s // math.gcd(s, d) for s, d in zip(geometry.stride, geometry.dilation, strict=True))
    p, q = constraint.norms
    if (p, q) == (2.0, 2.0):
        return _by_operator(constraint, shape, geometry, apart)
    if p != math.inf:
        refuse_repeated_pixels(constraint, shape, geometry)
    return Carried(constraint, Rows() if q == math.inf else Columns(apart, geometry.groups))


def _by_operator(
    constraint: Constraint, shape: tuple[int, ...], geometry: Geometry, apart: tuple[int, ...]
) -> Constraint:
    patches = all(k <= s for k, s in zip(shape[2:], apart, strict=True))
    if patches and not repeats_pixels(geometry, shape[2:]):
        return Carried(constraint, Rows(geometry.groups))
    kernels = constraint.on_kernels(shape, geometry)
    if kernels is not None:
        return kernels
    refuse_repeated_pixels(constraint, shape, geometry)
    raise TightlipError(
        f"{constraint} speaks of matrices, and {by(shape[2:])} taps at stride {by(geometry.stride)} read pixels more "
        "than once: use as many taps as the stride, such as 1×1, or Orthonormal(), SpectralBall() or RowL1Ball()"
    )


def by(sizes: Sequence[int]) -> str:
    """Sizes along axes in words: 3×3."""
    return "×".join(map(str, sizes))


def refuse_repeated_pixels(constraint: Constraint, shape: Sequence[int], geometry: Geometry) -> None:
    """Raise where the promise does not hold at the edges of images.

    Raises:
        TightlipError: for padding that reads pixels again, or around a circle in which taps may meet.
    """
    p, q = constraint.norms
    if repeats_pixels(geometry, shape[2:]) or (p != q and geometry.wraps):
        raise TightlipError(
            f"{geometry.padding_mode} padding {_sides(geometry)} reads pixels again, so {constraint} would not bound "
            f"this convolution from the {norm_name(p)}-norm to the {norm_name(q)}-norm: use padding_mode='zeros'; with "
            "any padding RowL1Ball() bounds the inf-norm and, of kernels, SpectralBall() the 2-norm"
        )


def _sides(geometry: Geometry) -> str:
    return "×".join(str(before) if before == after else f"{before}+{after}" for before, after in geometry.padding)
