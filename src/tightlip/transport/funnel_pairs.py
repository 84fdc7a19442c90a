"""Pairs of continuous distributions with a known potential that has several funnels, and so with known W1.

For centers b_n and offsets a_n let u(z) = min_n(‖z − b_n‖₂ + a_n). Each point lies on a straight line from the center
of its funnel, along which u rises at rate 1 up to where another funnel is as low, or the cube [−h, h]^D ends. The
second distribution is uniform on that cube; a point y of it, at the share t of its line, is moved down to t^8. What
comes out is the first distribution. Moving along the lines costs E‖x − y‖ = E u(y) − E u(x), and u is 1-Lipschitz, so

    W1 = E‖x − y‖,     and the potential is f = −u.

Source: Korotin, Kolesov & Burnaev 2022, "Kantorovich Strikes Back! Wasserstein GANs are not Optimal Transport?"
(NeurIPS, arXiv:2206.07767), §4 and Appendix C; their 28 pairs are those of `DIMENSIONS` × `FUNNELS`, bit for bit.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..arguments import integer, tensor
from ..errors import TightlipError

DIMENSIONS = (2, 4, 8, 16, 32, 64, 128)
"""D of the published pairs."""

FUNNELS = (4, 16, 64, 256)
"""N of the published pairs."""

SEED = 987
"""Of the published pairs."""

HALF = 2.5
"""h, half the edge of the cube."""

POWER = 8
"""A share t of a line becomes t^8."""

SPREAD = 0.1
"""The standard deviation of offsets."""

BLOCK = 2**20
"""About how many distances are kept at once."""


class FunnelPair:
    """A distribution that is drawn into N funnels against the uniform one of a cube in R^D, in the Euclidean norm.

    Use it to see what a critic misses: W1, potential and gradient are known, and none of them is easy to find.

    Args:
        dimension: D.
        funnels: N.
        seed: Of centers and offsets; 987 gives the published pairs. Settings should be chosen with other seeds.

    Attributes:
        centers: b, shape (N, D), float32, as they were drawn.
        offsets: a, shape (N,), float32.

    Raises:
        TightlipError: if a number is not an integer of at least 1 (or 0 for the seed).

    >>> pair = FunnelPair(2, 4)
    >>> x, y = pair.coupled(1000, torch.Generator().manual_seed(0))
    >>> round(float((x - y).norm(dim=1).mean()), 1), round(float((pair.potential(x) - pair.potential(y)).mean()), 1)
    (0.8, 0.8)
    """

    def __init__(self, dimension: int, funnels: int, seed: int = SEED) -> None:
        d, n = integer("dimension", dimension), integer("funnels", funnels)
        self.seed = integer("seed", seed, least=0)
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(n, d, generator=generator)  # what the published code draws first, and writes over
        torch.randn(n, generator=generator)
        self.centers = HALF * torch.rand(n, d, generator=generator).mul(2).add(-1)
        self.offsets = torch.randn(n, generator=generator).mul(SPREAD)

    @property
    def dimension(self) -> int:
        """D."""
        return self.centers.shape[1]

    @property
    def funnels(self) -> int:
        """N."""
        return self.centers.shape[0]

    @property
    def diameter(self) -> float:
        """Of the cube, which holds both distributions; rounded up."""
        return math.nextafter(2 * HALF * math.sqrt(self.dimension) * (1 + 2**-50), math.inf)

    def sample(
        self, count: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "count d"], Float[Tensor, "count d"]]:
        """``count`` samples of each distribution, independent of one another: for training.

        Computed in float64, then rounded to ``dtype``.
        """
        count = integer("count", count)
        moved = torch.cat([self._moved(part) for part in self._uniform(count, generator)])
        return moved.to(dtype), torch.cat(list(self._uniform(count, generator))).to(dtype)

    def coupled(
        self, count: int, generator: torch.Generator | None = None
    ) -> tuple[Float64[Tensor, "count d"], Float64[Tensor, "count d"]]:
        """``count`` samples of the best coupling, row by row: x_i comes from y_i. Never train on them as pairs."""
        parts = [(self._moved(part), part) for part in self._uniform(integer("count", count), generator)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    def potential(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """f(x) = −min_n(‖x − b_n‖₂ + a_n), in the dtype of x: mean f(first) − mean f(second) is W1."""
        rows, nearest = self._rows(x)
        away = torch.linalg.vector_norm(rows - self.centers.to(rows)[nearest], dim=1)
        return -(away + self.offsets.to(rows)[nearest]).reshape(x.shape[:-1])

    def gradient(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """∇f(x), of norm 1, by differences; 0 in a center, where there is none."""
        rows, nearest = self._rows(x)
        step = self.centers.to(rows)[nearest] - rows
        length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
        return torch.where(length > 0, step / length, 0.0).reshape(x.shape)

    def wasserstein1(self, count: int = 1_000_000, generator: torch.Generator | None = None) -> tuple[float, float]:
        """The true distance by that many pairs of the best coupling, and its standard error.

        Values that were published are of 4,096 pairs, and up to 3 % off.

        Raises:
            TightlipError: for fewer than two pairs.
        """
        parts = self._uniform(integer("count", count, least=2), generator)
        lengths = torch.cat([torch.linalg.vector_norm(self._moved(part) - part, dim=1) for part in parts])
        return float(lengths.mean()), float(lengths.std()) / math.sqrt(len(lengths))

    def _uniform(self, count: int, generator: torch.Generator | None) -> Iterator[Float64[Tensor, "part d"]]:
        """Uniform points of the cube, in parts of bounded size."""
        size = max(1, BLOCK // max(self.funnels, self.dimension))
        for first in range(0, count, size):
            part = torch.rand(min(size, count - first), self.dimension, generator=generator, dtype=torch.float64)
            yield part.mul_(2).sub_(1).mul_(HALF)

    def _moved(self, y: Float64[Tensor, "part d"]) -> Float64[Tensor, "part d"]:
        """Each point of the cube along its line, from the share t of it to t^8."""
        centers = self.centers.double()
        away = torch.cdist(y, centers)
        nearest = (away + self.offsets).argmin(1)
        step = y - centers[nearest]
        length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
        direction = step / length.clamp(min=torch.finfo(y.dtype).tiny)
        beyond = torch.minimum(self._to_funnels(y, away, direction, nearest), self._to_walls(y, direction))
        share = length / (length + beyond[:, None])
        return centers[nearest] + direction * (length + beyond[:, None]) * share**POWER

    def _to_funnels(self, y: Tensor, away: Tensor, direction: Tensor, nearest: Tensor) -> Float64[Tensor, " part"]:
        """How far beyond y another funnel is as low as its own: the least r > 0 with ‖y + r·v − b_j‖ + a_j = u(y) + r.

        With δ_j = u(y) − a_j that is r = (‖y − b_j‖² − δ_j²)/(2·(δ_j − ⟨v, y − b_j⟩)), where δ_j + r is not negative.
        """
        place = nearest[:, None]
        lowest = away.gather(1, place) + self.offsets.double()[nearest][:, None]
        level = lowest - self.offsets
        rising = (y * direction).sum(1, keepdim=True) - direction @ self.centers.double().mT
        r = 0.5 * (away.square() - level.square()) / (level - rising)
        r.masked_fill_(~(r > 0) | (r <= -level), torch.inf)
        return r.scatter_(1, place, torch.inf).amin(1)

    def _to_walls(self, y: Tensor, direction: Tensor) -> Float64[Tensor, " part"]:
        """How far beyond y the cube ends."""
        return ((direction.sign() * HALF - y) / direction).abs().nan_to_num(nan=torch.inf).amin(1)

    def _rows(self, x: Tensor) -> tuple[Float[Tensor, "rows d"], Tensor]:
        """Points as rows, and the funnel of each."""
        x = tensor("x", x)
        if x.dim() == 0 or x.shape[-1] != self.dimension or not x.is_floating_point():
            raise TightlipError(
                f"points must be numbers of floating point, (…, {self.dimension}), got {tuple(x.shape)} of {x.dtype}"
            )
        rows = x.reshape(-1, self.dimension)
        centers, offsets = self.centers.to(rows), self.offsets.to(rows)
        parts = rows.split(max(1, BLOCK // self.funnels))
        exact = "donot_use_mm_for_euclid_dist"
        found = [torch.cdist(part, centers, compute_mode=exact).add_(offsets).argmin(1) for part in parts]
        return rows, torch.cat(found)
