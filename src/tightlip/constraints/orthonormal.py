"""Orthonormal matrices: all singular values 1 (paper §4.2.1), the set on which gradients keep their norm.

Tall matrices (out > in) have orthonormal columns, wide ones orthonormal rows, square ones both. The map is the polar
factor, the nearest member; the tangent space at W is {Z : WᵀZ + ZᵀW = 0}. With a truncated schedule, the paper's recipe
for training, members are only known to have ‖W‖₂ ≤ 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import TightlipError
from ..linalg.geometry import Geometry
from ..linalg.kernel_shape import KernelShape
from ..linalg.polar import orthonormalize, residual, tangent
from ..linalg.schedules import Schedule
from .carrier import Carried, Rows, refuse_repeated_pixels
from .constraint import Constraint
from .orthonormal_kernels import OrthonormalKernels
from .spectral import spectral_excess


class Orthonormal(Constraint):
    """Matrices with ‖W‖₂ = 1 and every singular value 1: 2→2 norm exactly 1, gradients preserved where out ≤ in.

    Args:
        schedule: None holds W on the set exactly. A `tightlip.linalg.schedules.Schedule`, such as ``bjorck(3)``, runs
            that many steps only; then W is near the set, ‖W‖₂ ≤ 1 is all that is promised, and `freeze` keeps W.
        finish: The steps that `freeze` runs on weights trained with a ``schedule``, e.g. ``bjorck(15)``. It changes the
            network, and a warning says by how much.
        blocks: For ``hold="step"``: an even number q turns a weight in q blocks, 2/q of it in each step, or in as many
            below q as divide its larger side; 1 turns it whole; 0 lets the optimizer move the weight itself. None
            chooses by the shape (docs/theory/frame.md).

    Source: paper §4.2.1, Eq. 2, Theorem 2 and §7 (3 iterations in training, 15 or more at the end).

    Raises:
        TightlipError: if ``schedule`` or ``finish`` is anything else, such as a number of steps; if ``blocks`` is odd.

    >>> from tightlip.linalg.schedules import bjorck
    >>> Orthonormal(bjorck(3), finish=bjorck(15))
    Orthonormal(schedule=bjorck(3, order=1), finish=bjorck(15, order=1))
    """

    norms: tuple[float, float] = (2.0, 2.0)

    def __init__(
        self, schedule: Schedule | None = None, finish: Schedule | None = None, blocks: int | None = None
    ) -> None:
        for name, given in (("schedule", schedule), ("finish", finish)):
            if not isinstance(given, Schedule | None):
                raise TightlipError(
                    f"{name} must be one of tightlip.linalg.schedules, such as bjorck(3), got {given!r}"
                )
        if blocks is not None and (type(blocks) is not int or blocks < 0 or (blocks != 1 and blocks % 2)):
            raise TightlipError(f"blocks must be an even number, 1, 0 or None, got {blocks!r}")
        self.schedule, self.finish_schedule, self.blocks = schedule, finish, blocks
        self.projects = schedule is None

    def map(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The polar factor, or what the schedule makes of a weight scaled by a true bound."""
        return orthonormalize(weight, self.schedule)

    def map_(self, weight: Float[Tensor, "out in"], last: Tensor | None = None) -> None:
        """The same in place."""
        weight.copy_(self.map(weight))

    def finish(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The polar factor; with a schedule, the result of ``finish``, or the weight as it is."""
        if self.schedule is None or self.finish_schedule is not None:
            return orthonormalize(weight, self.finish_schedule)
        return weight

    def distance(self, weight: Float[Tensor, "out in"]) -> float:
        """‖WᵀW − I‖_F on the small side, a bound on every |σ² − 1|; with a schedule, how much ‖W‖₂ exceeds 1."""
        if self.schedule is not None:
            return spectral_excess(weight)
        return float(torch.linalg.matrix_norm(residual(weight)))

    def tangent(self, weight: Float[Tensor, "out in"], gradient: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """G − W sym(WᵀG) at an orthonormal W; with a schedule, all of G."""
        return tangent(weight, gradient) if self.schedule is None else gradient

    def on_kernels(self, shape: Sequence[int], geometry: Geometry) -> Constraint | None:
        """Kernels that are products of orthonormal factors; where there are channels for all taps, orthonormal rows."""
        refuse_repeated_pixels(self, shape, geometry)
        if self.schedule is not None or self.blocks not in (None, 1):
            raise TightlipError(
                f"{self} is for matrices, and kernels with more taps than their stride are moved by turning all their "
                "factors in each step: use Orthonormal()"
            )
        kernels = KernelShape.of(shape, geometry.stride, geometry.dilation, geometry.groups)
        if not kernels.factorable and kernels.places is not None:
            return Carried(self, Rows(geometry.groups, kernels.places))
        return OrthonormalKernels(self, kernels, geometry.groups)

    def __repr__(self) -> str:
        options = {"schedule": self.schedule, "finish": self.finish_schedule, "blocks": self.blocks}
        return f"Orthonormal({', '.join(f'{key}={value!r}' for key, value in options.items() if value is not None)})"
