"""A convolution as a stride-1 convolution of its phases, and how often padding repeats a pixel.

With stride s and dilation d an output at i reads the inputs at s·i + d·t for the taps t (padding moves them all).
Where s and d share a factor, only its multiples are read: both are divided by it. Along an axis, write t = s·j + r with
0 ≤ r < s. The inputs d·r + s·ℤ of each r are a channel of their own, since d·r has another residue modulo s for each;
in it tap t stands d·j places on, and the stride is 1. The dilation may then be 1: the places of each residue modulo d
are an image of their own. So every operator here is a part of *one* convolution on ℤᵈ, the **polyphase kernel**, in
which tap t is place j of phase r, whatever the size of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..errors import TightlipError

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
"""What torch's convolutions read beyond the edge of an image."""


@dataclass(frozen=True)
class Geometry:
    """How a convolution walks over an image: one entry per axis; padding as (before, after).

    ``transposed`` is for `nn.ConvTranspose1d` and its kin: the weight is (in, out / groups, *taps) as torch keeps it,
    and ``padding`` crops, which lowers no bound and is not read.

    Raises:
        TightlipError: for a number that no convolution can have.
    """

    stride: Sequence[int]
    dilation: Sequence[int]
    padding: Sequence[tuple[int, int]]
    groups: int = 1
    padding_mode: str = "zeros"
    transposed: bool = False

    def __post_init__(self) -> None:
        axes = len(self.stride)
        if len(self.dilation) != axes or len(self.padding) != axes:
            given = f"{self.stride}, {self.dilation} and {self.padding}"
            raise TightlipError(f"stride, dilation and padding must have one entry per axis each, got {given}")
        if min(self.stride, default=1) < 1 or min(self.dilation, default=1) < 1 or self.groups < 1:
            given = f"{self.stride}, {self.dilation} and {self.groups}"
            raise TightlipError(f"stride, dilation and groups must be ≥ 1, got {given}")
        if any(min(sides) < 0 for sides in self.padding):
            raise TightlipError(f"padding must be ≥ 0 on both sides, got {self.padding}: crop the image instead")
        if self.padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise TightlipError(f"padding mode {self.padding_mode!r} has no bound here: choose one of {known}")
        if self.transposed and self.padding_mode != "zeros":
            raise TightlipError(f"transposed convolutions take padding mode 'zeros' only, got {self.padding_mode!r}")

    @property
    def wraps(self) -> bool:
        """Whether pixels are repeated around a circle."""
        return self.padding_mode == "circular" and any(max(sides) > 0 for sides in self.padding)


def grouped(weight: Float[Tensor, "out in *taps"], geometry: Geometry) -> Float[Tensor, "groups rows columns *taps"]:
    """The blocks of a kernel, one per group.

    Raises:
        TightlipError: if the kernel does not have the axes or the groups of the geometry.
    """
    if weight.dim() - 2 != len(geometry.stride):
        raise TightlipError(
            f"a kernel of shape {tuple(weight.shape)} does not have the {len(geometry.stride)} axes of the geometry"
        )
    if weight.shape[0] % geometry.groups:
        raise TightlipError(f"{weight.shape[0]} channels cannot be divided into {geometry.groups} groups")
    return weight.unflatten(0, (geometry.groups, -1))


def polyphase(
    kernel: Float[Tensor, "groups rows columns *taps"], stride: Sequence[int], dilation: Sequence[int]
) -> Float[Tensor, "groups rows phases *places"]:
    """The kernel of the stride-1 convolution of the phases; outer slabs of zeros are cut away.

    Of the phases that no tap reads one is kept, so that a kernel which leaves pixels unread shows it.
    """
    for axis, (s, d) in enumerate(zip(stride, dilation, strict=True), start=3):
        phases = min(s // math.gcd(s, d), kernel.shape[axis] + 1)
        fill = [0, 0] * (kernel.dim() - 1 - axis) + [0, -kernel.shape[axis] % phases]
        kernel = F.pad(kernel, fill).unflatten(axis, (-1, phases)).movedim(axis + 1, 3).flatten(2, 3)
    for axis in range(3, kernel.dim()):
        kernel = _trimmed(kernel, axis)
    return kernel


def _trimmed(kernel: Tensor, axis: int) -> Tensor:
    used = kernel.movedim(axis, 0).flatten(1).any(1).nonzero()
    if not len(used):
        return kernel.narrow(axis, 0, 1)
    return kernel.narrow(axis, int(used[0]), int(used[-1] - used[0]) + 1)


def pixel_multiplicity(geometry: Geometry, taps: Sequence[int]) -> int:
    """How often padding repeats one pixel at most, in any image that torch accepts.

    Padding is a map E of 0 and 1 with one 1 per row, so EᵀE is diagonal and holds how often each pixel stands in the
    padded image: ‖E‖_{2→2}² = ‖E‖_{1→1} is the largest of these numbers, and ‖E‖_{∞→∞} = 1. It is a product over the
    axes. Let a and b be the padding before and after, m the fewest pixels with which the convolution has an output
    (m + a + b = d(k − 1) + 1), and n ≥ max(m, 1) the pixels of an axis. What is repeated:

    * zeros: nothing, 1.
    * circular (torch asks for a, b ≤ n): the last a and the first b pixels, once each. They meet, 3, where n < a + b;
      else 2, or 1 without padding.
    * reflect (torch asks for a, b ≤ n − 1): pixels 1 … a, and n − 1 − b … n − 2. They meet, 3, where n ≤ a + b + 1 and
      both are there; else 2.
    * replicate: the first pixel a times, the last b times: 1 + max(a, b), or 1 + a + b if n may be 1.
    """
    product = 1
    for k, d, sides in zip(taps, geometry.dilation, geometry.padding, strict=True):
        product *= _MULTIPLICITIES[geometry.padding_mode](*sides, _fewest_pixels(k, d, sides))
    return product


def _fewest_pixels(taps: int, dilation: int, sides: tuple[int, int]) -> int:
    return max(dilation * (taps - 1) + 1 - sum(sides), 1)


def _circular(before: int, after: int, fewest: int) -> int:
    meet = max(before, after, fewest) < before + after
    return 3 if meet else 2 if before or after else 1


def _reflect(before: int, after: int, fewest: int) -> int:
    meet = before and after and max(before + 1, after + 1, fewest) <= before + after + 1
    return 3 if meet else 2 if before or after else 1


def _replicate(before: int, after: int, fewest: int) -> int:
    return 1 + (before + after if fewest == 1 else max(before, after))


_MULTIPLICITIES = {
    "zeros": lambda before, after, fewest: 1,
    "circular": _circular,
    "reflect": _reflect,
    "replicate": _replicate,
}


def row_multiplicity(geometry: Geometry, taps: Sequence[int]) -> int:
    """How often a circular convolution without its stride repeats one row at most.

    Around a circle of n pixels the output at i is the circular convolution at i mod n, and a stride only leaves rows
    out. There are n + a + b − d(k − 1) rows of stride 1: each at most once if a + b ≤ d(k − 1), else at most
    ⌈1 + (a + b − d(k − 1))/n⌉ times, with n ≥ max(a, b, 1). A block-circulant matrix has the symbol at the n-th roots
    of unity for its blocks, so its norm is at most that on ℤ, also where n is less than the kernel's extent.
    """
    product = 1
    for k, d, (before, after) in zip(taps, geometry.dilation, geometry.padding, strict=True):
        further = before + after - d * (k - 1)
        product *= 1 + max(-(-further // max(before, after, 1)), 0)
    return product


def repeats_pixels(geometry: Geometry, taps: Sequence[int]) -> bool:
    """Whether padding may read a pixel so often that a p→p bound of ℤ, with p < ∞, does not hold on some image."""
    around = geometry.wraps and all(d % s == 0 for s, d in zip(geometry.stride, geometry.dilation, strict=True))
    return pixel_multiplicity(geometry, taps) > 1 and not (around and row_multiplicity(geometry, taps) == 1)
