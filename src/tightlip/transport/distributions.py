"""Pairs of distributions whose Wasserstein-1 distance is exactly 1, with the potential that attains it.

The first distribution sits in centers c_1 … c_m, the second is uniform on the unit spheres around them, each center and
its sphere with weight 1/m. Moving every center to its own sphere costs 1; and the 1-Lipschitz potential

    f(x) = −min_i ‖x − c_i‖₂

is 0 in the centers and −1 on the spheres, as long as no center is closer than 2 to another. So W1 = 1, and no
1-Lipschitz function separates the pair by more (Kantorovich duality). Source: paper §7.1.1 and H.1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..arguments import integer, output_of, tensor
from ..errors import TightlipError

MOST_ROUNDING = 1e-4
"""How coarse coordinates may be beside a sphere of radius 1."""


class Spheres:
    """Centers against the unit spheres around them; W1 = 1 in the Euclidean norm.

    Args:
        centers: Shape (m, d), at least 2 apart.

    Raises:
        TightlipError: for centers of another shape or kind, not finite, so far out that rounding swallows the spheres,
            or closer than 2 (up to rounding), naming the two.

    >>> pair = Spheres(torch.tensor([[0.0, 0.0]]))
    >>> pair.potential(torch.tensor([[3.0, 4.0]]))
    tensor([-5.])
    """

    wasserstein1 = 1.0
    """The true distance."""

    def __init__(self, centers: Float[Tensor, "m d"]) -> None:
        centers = tensor("centers", centers)
        usable = centers.dtype in (torch.float32, torch.float64) and centers.dim() == 2 and centers.numel() > 0
        if not usable or not bool(torch.isfinite(centers).all()):
            raise TightlipError(
                "centers must be finite numbers of shape (m, d) in float32 or float64, got shape "
                f"{tuple(centers.shape)} and {centers.dtype}"
            )
        exact = centers.double()
        near = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        rounding = torch.finfo(centers.dtype).eps * float(exact.abs().max())
        if rounding > MOST_ROUNDING:
            raise TightlipError(
                f"centers as far out as {float(exact.abs().max()):.3g} leave no unit sphere in {centers.dtype}: "
                "move them towards zero, or give them in float64"
            )
        if float(near.min()) < 2 * (1 - 1e-6):
            i, j = divmod(int(near.argmin()), len(centers))
            raise TightlipError(
                f"centers must be 2 apart, or the spheres overlap and W1 may be less than 1; centers {i} and {j} "
                f"are {float(near.min()):.6g} apart"
            )
        self.centers = centers

    @property
    def dimension(self) -> int:
        """D."""
        return self.centers.shape[1]

    def sample(
        self, count: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "count d"], Float[Tensor, "count d"]]:
        """``count`` samples of each distribution, row by row from the same center.

        No batch is unbalanced: each center is as frequent as any other, ± 2, and directions come in opposite pairs.
        """
        count = integer("count", count)
        half, many = -(-count // 2), len(self.centers)
        turn = torch.randperm(many, generator=generator)[torch.arange(half) % many].repeat(2)[:count]
        directions = self._directions(half, generator)
        first = self.centers[turn]
        return first, first + torch.cat([directions, -directions])[:count]

    def potential(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """f(x) = −min_i ‖x − c_i‖₂, unique up to a constant on the straight lines from centers to spheres."""
        x = tensor("x", x)
        if x.dim() == 0 or x.shape[-1] != self.dimension:
            raise TightlipError(f"points must have shape (…, {self.dimension}), got {tuple(x.shape)}")
        return -torch.linalg.vector_norm(x.unsqueeze(-2) - self.centers.to(x), dim=-1).amin(-1)

    @torch.no_grad()
    def objective(
        self, critic: nn.Module, count: int = 100_000, generator: torch.Generator | None = None
    ) -> tuple[float, float]:
        """Mean f(centers) − mean f(spheres), and the standard error of sampling: at most 1 for 1-Lipschitz f.

        In one dimension the sphere has two points, and the objective is exact. Otherwise directions come in opposite
        pairs, which keeps the mean and lowers its variance; the error is that of the means over pairs and centers.

        Args:
            critic: (batch, d) → (batch, 1) or (batch,).
            count: Points of each sphere; an even number.
            generator: Of the directions.

        Raises:
            TightlipError: for fewer than two points in more than one dimension, or a critic with several outputs.
        """
        count = integer("count", count, least=2 if self.dimension > 1 else 0)
        if self.dimension == 1:
            directions = self.centers.new_ones(1, 1)
        else:
            directions = self._directions(count // 2, generator)
        at_centers = output_of(critic, self.centers).double().mean()
        means = torch.cat([self._means(critic, part) for part in directions.split(4096)])
        error = float(means.std() / len(means) ** 0.5) if len(means) > 1 else 0.0
        return float(at_centers - means.mean()), error

    def _directions(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform on the unit sphere."""
        steps = torch.randn(count, self.dimension, generator=generator, dtype=self.centers.dtype)
        return steps / torch.linalg.vector_norm(steps, dim=1, keepdim=True)

    def _means(self, critic: nn.Module, directions: Tensor) -> Tensor:
        """For each direction, the mean over centers and both ends."""
        ends = torch.stack([directions, -directions])[:, :, None] + self.centers
        points = ends.flatten(0, 2)
        outputs = output_of(critic, points)
        if outputs.numel() != len(points):
            shape = tuple(outputs.shape)
            raise TightlipError(f"a critic must give one output for each point, got {shape} for {len(points)} points")
        return outputs.double().reshape(2, len(directions), -1).mean((0, 2))


def absolute_value() -> Spheres:
    """0 against ±1 on the line; the potential is −|x|. Source: paper Figure 4.

    >>> absolute_value().potential(torch.tensor([[-3.0]]))
    tensor([-3.])
    """
    return Spheres(torch.zeros(1, 1))


def circular_cones() -> Spheres:
    """Three points of the plane against the circles around them, which touch; three cones. Source: paper Figure 5."""
    return Spheres(torch.tensor([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]))


def high_dimensional_cone(dimension: int) -> Spheres:
    """The origin of R^d against the unit sphere; the potential is −‖x‖. Source: paper Table 1."""
    return Spheres(torch.zeros(1, integer("dimension", dimension)))
