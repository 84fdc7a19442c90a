"""The largest and the smallest entries over axes, as layers: `Max` and `Min`, such as global max-pooling.

Each output depends on entries of its own, and changes by no more than the most that one of them changes: the bound is 1
in every norm. But one entry alone gets a gradient.
"""

from collections.abc import Sequence

from torch import Tensor

from ..audit import EXACT, Gains, rule
from ..options import FLAG
from .axes import DIMS, OfAxes, own_axes, refuse_axes


class Max(OfAxes):
    """The largest entry over axes other than that of the batch.

    Args:
        dim: The axis, or several.
        keepdim: Whether they stay, with one entry each.

    >>> import torch
    >>> Max(1)(torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([3.])
    """

    names = ("dim", "keepdim")

    def __init__(self, dim: int | Sequence[int], keepdim: bool = False) -> None:
        super().__init__()
        self.dim: int | tuple[int, ...] = dim if isinstance(dim, int) else tuple(dim)
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same without the axes."""
        return x.amax(own_axes(self.dim, x.dim()), self.keepdim)


class Min(Max):
    """The smallest entry over axes other than that of the batch; options are those of `Max`.

    >>> import torch
    >>> Min(1)(torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) → the same without the axes."""
        return x.amin(own_axes(self.dim, x.dim()), self.keepdim)


@rule(Max, Min, options={"dim": DIMS, "keepdim": FLAG}, reshapes=True)
def _extreme(module: Max) -> Gains:
    refuse_axes(module)
    return Gains.constant(1.0, EXACT)
