"""What a type may state about its linear part, so that neighbors are multiplied out (`merging`); shifts do not count.

A registration's ``affine`` takes the module and returns one of these, or None where nothing is stated of it. The rule
has run before, so what the module holds is known to be sound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial

from torch import Tensor

from ..linalg.convolutions import convolution_norm_bounds
from ..linalg.enclosure import Enclosure, Scales
from ..linalg.geometry import Geometry
from ..linalg.spectral import operator_norm_bounds
from ..norms import PAIRS

Pair = tuple[float, float]
Table = dict[Pair, Fraction]


@dataclass(frozen=True)
class Uniform:
    """x ↦ ±c·x for inputs of any shape, by |c|: it merges with everything, and no bound gets smaller by it."""

    factor: Fraction = Fraction(1)


@dataclass(frozen=True)
class Flat:
    """(batch, …) → (batch, features), as `nn.Flatten` does: what follows are rows."""


@dataclass(frozen=True)
class Channels:
    """Channel c, on axis 1, times a number of its own.

    ``rows`` says that the forward refuses values of more than two axes whose last axis is as long as axis 1: where a
    matrix fits beside it, these are rows. ``pixels`` is the number of axes after the channels that the forward takes,
    one that may be absent included; None: any.
    """

    scales: Scales
    rows: bool = False
    pixels: int | None = None

    def norms(self) -> Table:
        """The largest of the numbers, for every pair."""
        return dict.fromkeys(PAIRS, self.scales.largest())


@dataclass(frozen=True)
class _Weighed:
    """A map that is made of the entries of a weight."""

    weight: Tensor | Enclosure

    @cached_property
    def enclosure(self) -> Enclosure:
        """The weight with what is known of its rounding."""
        return self.weight if isinstance(self.weight, Enclosure) else Enclosure.of(self.weight)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the weight."""
        return tuple((self.weight.center if isinstance(self.weight, Enclosure) else self.weight).shape)


@dataclass(frozen=True)
class Matrix(_Weighed):
    """x ↦ Wx along the last axis, with the weight (out, in)."""

    def norms(self) -> Table:
        """Its operator norms."""
        return self.enclosure.norm_bounds(operator_norm_bounds)


@dataclass(frozen=True)
class Kernel(_Weighed):
    """A convolution of (batch, channels, …), with its weight as torch keeps it, and the way it walks over an image."""

    geometry: Geometry

    @property
    def pointwise(self) -> bool:
        """Whether it is one matrix at every pixel."""
        walk, once = self.geometry, {1}
        still = {*self.shape[2:]} <= once and {*walk.stride} <= once and not any(map(any, walk.padding))
        return still and walk.groups == 1 and not walk.transposed

    def norms(self) -> Table:
        """Its operator norms, for images of every size."""
        return self.enclosure.norm_bounds(partial(_kernel_norms, self.geometry))


def _kernel_norms(geometry: Geometry, weight: Tensor, pairs: Sequence[Pair]) -> dict[Pair, float]:
    return convolution_norm_bounds(weight, geometry, pairs)


Linearly = Channels | Matrix | Kernel
"""Linear maps that are no multiple of the identity."""

Affine = Uniform | Flat | Linearly
"""What a type may state."""
