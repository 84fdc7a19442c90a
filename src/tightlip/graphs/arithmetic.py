"""What forwards compute of entries and numbers, as layers: `Mean` over axes, `Offset` by a number, `Bias` by several.

A mean of n entries has the bound 1/n from the 1-norm, 1/√n from the 2-norm and 1 from the ∞-norm. A trace does not know
how many there are, so it takes n = 1; `Mean(dim, count=n)`, as a layer of one's own, states it.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from ..arguments import integer
from ..audit import Gains, Roundoff, Uniform, rule
from ..errors import TightlipError
from ..linalg.rounding import round_up, sqrt_up
from ..options import AXIS, FLAG, NUMBER, SIZE, optional
from ..stored import stored_integer, stored_number, stored_numbers
from .axes import DIMS, OfAxes, own_axes, own_axis, refuse_axes


class Mean(OfAxes):
    """The mean over axes other than that of the batch.

    Args:
        dim: The axis, or several.
        keepdim: Whether they stay, with one entry each.
        count: How many entries are averaged, n, where that is known: the bound in the 2-norm is 1/√n. Inputs with
            another number are refused. None takes any, and the bound is that of n = 1.

    >>> import torch
    >>> Mean(1)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([2.])
    """

    names = ("dim", "keepdim", "count")

    def __init__(self, dim: int | Sequence[int], keepdim: bool = False, count: int | None = None) -> None:
        super().__init__()
        self.dim: int | tuple[int, ...] = dim if isinstance(dim, int) else tuple(dim)
        self.keepdim, self.count = keepdim, count

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same without the axes."""
        dims = own_axes(self.dim, x.dim())
        entries = math.prod(x.shape[dim] for dim in dims)
        if self.count is not None and entries != self.count:
            raise TightlipError(f"count={self.count} was stated of a mean of {entries} entries: state count={entries}")
        return x.mean(dims, self.keepdim)


class Offset(OfAxes):
    """A number is added.

    >>> import torch
    >>> Offset(0.5)(torch.tensor([[1.0]]))
    tensor([[1.5000]])
    """

    names = ("value",)

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x + self.value


class Bias(OfAxes):
    """x + b, with a trained number for each entry of an axis: what is left of a normalization without its division.

    Args:
        features: Entries along the axis. The numbers begin at zero.
        dim: The axis: 1 of images and rows, -1 of what linear layers make.

    Raises:
        TightlipError: in the forward for another number of entries, or where the axis is that of the batch.

    >>> import torch
    >>> Bias(2, dim=1)(torch.ones(1, 2, 3)).shape
    torch.Size([1, 2, 3])
    """

    names = ("features", "dim")

    def __init__(self, features: int, dim: int = 1) -> None:
        super().__init__()
        self.features, self.dim = integer("features", features), integer("dim", dim, least=-1, most=63)
        self.bias = nn.Parameter(torch.zeros(self.features))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same."""
        dim = own_axis(self.dim, x.dim())
        if x.shape[dim] != self.features:  # broadcasting would repeat x, and the bound would be wrong
            raise TightlipError(f"Bias has {self.features} features, which do not fit inputs of shape {list(x.shape)}")
        return x + self.bias.reshape([-1] + [1] * (x.dim() - dim - 1))


@rule(Mean, options={"dim": DIMS, "keepdim": FLAG, "count": optional(SIZE)}, reshapes=True)
def _mean(module: Mean) -> Gains:
    """An n-th of each entry, in one output each: (AAᵀ) is 1/n times the identity.

    A mean errs by γ_{n+2}·mean|x| ≤ γ_{n+2}/√n·‖x in its window‖₂; where n is unknown, all inputs.
    """
    refuse_axes(module)
    if module.count is None:
        return Gains.constant(1.0, Roundoff(None, input=1.0))
    n = stored_integer(module, "count")
    if n < 1:
        raise TightlipError(f"Mean has count={n}: give an integer ≥ 1, or None")
    root, infinity = sqrt_up(round_up(Fraction(1, n))), math.inf
    table = {(1.0, 1.0): Fraction(1, n), (2.0, 2.0): Fraction(root), (infinity, infinity): Fraction(1)}
    return Gains(table, Roundoff(n + 2, input=root))


@rule(Offset, options={"value": NUMBER})
def _offset(module: Offset) -> Gains:
    return Gains.constant(1.0, Roundoff(2, output=1.0, own=abs(stored_number(module, "value"))))


@rule(Bias, options={"features": SIZE, "dim": AXIS}, affine=lambda module: Uniform())
def _bias(module: Bias) -> Gains:
    if stored_integer(module, "dim") == 0:
        raise TightlipError("a Bias along the axis of the batch tells examples apart: give another dim")
    bias = stored_numbers(module, "bias", (stored_integer(module, "features"),))  # another shape would be broadcast
    return Gains.constant(1.0, Roundoff(2, output=1.0, own=float(bias.abs().max())))
