"""The shape of an orthonormal convolution kernel as a product: which factors there are, and which moves between them.

An array of kernels is worked on as (batch, rows, *taps, n): the square factors act on the last axis, which is that of
the larger side, so that a product with one of them is one matrix product.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import TightlipError


@dataclass(frozen=True)
class KernelShape:
    """What a product is made of, by the shape of one group of a convolution.

    Args:
        outputs: Channels out, of one group.
        inputs: Channels in, of one group.
        kernel: Taps along each axis.
        stride: Of each axis, after `of` has divided it by what it shares with the dilation.

    Raises:
        TightlipError: for kernels with more than two axes, and sizes below 1.
    """

    outputs: int
    inputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (self.outputs, self.inputs, *self.kernel, *self.stride)
        if not 1 <= len(self.kernel) <= 2 or len(self.stride) != len(self.kernel):
            raise TightlipError(
                f"orthonormal kernels have one axis or two, and a stride for each, got {self.kernel} and {self.stride}"
            )
        if min(sizes) < 1:
            raise TightlipError(f"channels, taps and strides must be ≥ 1, got {sizes}")

    @classmethod
    def of(
        cls, weight: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int = 1
    ) -> "KernelShape":
        """The shape of a convolution's ``weight`` (groups·out, in, …).

        Stride s and dilation d that share a factor read pixels of one residue only: there they are s/g and d/g.

        >>> KernelShape.of((64, 32, 3, 3), stride=(2, 2), dilation=(1, 1))
        KernelShape(outputs=64, inputs=32, kernel=(3, 3), stride=(2, 2))
        """
        if weight[0] % groups:
            raise TightlipError(f"{weight[0]} channels cannot be cut into {groups} groups")
        apart = tuple(s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))
        return cls(weight[0] // groups, weight[1], tuple(weight[2:]), apart)

    @property
    def patch(self) -> tuple[int, ...]:
        """Taps of the patch factor: the stride, or the kernel where that is smaller."""
        return tuple(min(k, s) for k, s in zip(self.kernel, self.stride, strict=True))

    @property
    def axes(self) -> tuple[int, ...]:
        """The axis of each move, from the right: x, y, x, y."""
        left = [k - p for k, p in zip(self.kernel, self.patch, strict=True)]
        return tuple(axis for turn in range(max(left)) for axis, moves in enumerate(left) if turn < moves)

    @property
    def tall(self) -> bool:
        """Whether the product is that of the transposed kernel."""
        return math.prod(self.patch) == 1 and self.outputs > self.inputs

    @property
    def rows(self) -> int:
        """Rows of the patch factor."""
        return self.inputs if self.tall else self.outputs

    @property
    def columns(self) -> int:
        """n, rows and columns of the square factors.

        Where a stride's patches have less than a quarter of the channels that come out, inputs are lifted: they are the
        first of n channels, and the others are zero.
        """
        if self.tall:
            return self.outputs
        patch = math.prod(self.patch)
        return self.inputs if self.outputs <= 4 * patch * self.inputs else self.outputs // patch

    @property
    def angles(self) -> int:
        """Rows and columns of the skew matrix that turns the patch factor: its larger side."""
        return max(self.rows, self.columns * math.prod(self.patch))

    def folded(self, kernel: Tensor) -> Tensor:
        """(*batch, out, in, *taps) as (batch, rows, *taps, n), lifted by zeros."""
        channels = kernel.flatten(0, -3 - len(self.kernel)) if kernel.dim() > 2 + len(self.kernel) else kernel[None]
        rows = channels.movedim(1, -1) if self.tall else channels.movedim(2, -1)
        return torch.nn.functional.pad(rows, (0, self.columns - rows.shape[-1]))

    def unfolded(self, product: Tensor, batch: Sequence[int]) -> Tensor:
        """The adjoint of `folded`."""
        rows = product[..., : self.outputs if self.tall else self.inputs]
        kernel = rows.movedim(-1, 1 if self.tall else 2)
        return kernel.contiguous().view(*batch, self.outputs, self.inputs, *self.kernel)

    @property
    def factorable(self) -> bool:
        """Whether products can be found again from their kernels.

        Where both axes have moves left, a slab has rows·(p + 1) rows at least, p the patch along the other axis. If
        that is less than n/2, vectors without an entry in the slabs of one axis are left to choice, and most choices
        leave no product. Along one axis every choice does, and so it does for 2×2 kernels. A lift is not found at all.
        """
        alone = len(set(self.axes)) < 2 or (math.prod(self.patch) == 1 and len(self.axes) == 2)
        return not self._lifted and (alone or self.columns <= 2 * (1 + min(self.patch)) * self.rows)

    @property
    def places(self) -> int | None:
        """In how many places each pixel is read, if a channel for each input and tap makes the kernel an isometry.

        It does where the stride divides the kernel: the weight is then orthonormal columns (out, in · taps) over
        √places, since the squares of all patches add up to places times that of the image. None: there are too few
        channels, or pixels are read in different numbers of places.
        """
        enough = self.outputs >= self.inputs * math.prod(self.kernel)
        even = all(k % s == 0 for k, s in zip(self.kernel, self.stride, strict=True))
        return math.prod(self.kernel) // math.prod(self.stride) if enough and even else None

    @property
    def square(self) -> "KernelShape":
        """The kernel that, with a 1×1 convolution before it or after it, stands in for one that is not factorable."""
        if self._lifted or self.tall:
            return replace(self, inputs=max(self.inputs, -(-self.outputs // math.prod(self.patch))))
        return replace(self, outputs=max(self.outputs, self.inputs))

    @property
    def _lifted(self) -> bool:
        return not self.tall and self.columns > self.inputs

    def refuse_unfactorable(self) -> None:
        """Raise where products cannot be found again from their kernels.

        Raises:
            TightlipError: which names what can.
        """
        if not self.factorable:
            kernel = "×".join(map(str, self.kernel))
            raise TightlipError(
                f"an orthonormal {kernel} kernel from {self.inputs} to {self.outputs} channels cannot be found again "
                "from its entries: use tightlip.lifted(layer), a square kernel and a 1×1 convolution in its place"
            )
