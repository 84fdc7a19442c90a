"""Gradient-norm-preserving activations: sort the features within groups (paper §4.1).

The Jacobian of GroupSort is a permutation matrix, so it keeps every p-norm of a gradient and of a difference. Groups
are named by their *size*; `contiguous=True` groups neighbors (0 1 | 2 3 | …) as the paper draws it, `False` groups
features n/k apart (0, n/k, …), a fixed permutation of the other and the fast layout before a dense layer.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .arguments import integer
from .audit import EXACT, Gains, Roundoff, rule
from .errors import TightlipError
from .linalg.sorting import sort_members
from .options import AXIS, FLAG, INTEGER, SIZE, optional
from .stored import stored_integer, stored_numbers


def grouped(x: Tensor, group_size: int | None, dim: int, contiguous: bool = True) -> Tensor:
    """``x`` with its feature axis split into (groups, members), or (members, groups) where groups are strided."""
    if not -x.dim() <= dim < x.dim():
        raise TightlipError(
            f"axis {dim} of an input with {x.dim()} axes does not exist: dim is the axis of the features (-1 for dense "
            "layers, 1 for images), and not how many are in a group"
        )
    features = x.shape[dim]
    size = features if group_size is None else group_size
    if size < 1 or features % size:
        raise TightlipError(
            f"{features} features do not divide into groups of {size}: choose a width that is a multiple of {size}"
        )
    shape = (features // size, size) if contiguous else (size, features // size)
    return x.unflatten(dim, shape)


def group_sort(
    x: Tensor, group_size: int | None, dim: int = -1, contiguous: bool = True, bias: Tensor | None = None
) -> Tensor:
    """Sort ascending within groups of ``group_size`` features along ``dim``; None sorts all of them.

    Args:
        x: Any shape.
        group_size: Members per group, ≥ 1; must divide the size of ``dim``.
        dim: The feature axis: -1 for dense layers, 1 for NCHW images.
        contiguous: Whether a group is made of neighbors or of features n/k apart.
        bias: One number per feature, added before sorting; on a GPU in the same pass.

    Raises:
        TightlipError: if the axis does not exist or is not divisible, or the bias is not of its size.

    >>> group_sort(torch.tensor([3.0, 1.0, 2.0, 5.0]), 2)
    tensor([1., 3., 2., 5.])
    """
    groups, axis = grouped(x, group_size, dim, contiguous), dim % x.dim()
    if bias is not None:
        if bias.shape != x.shape[axis : axis + 1]:
            raise TightlipError(
                f"a bias of shape {tuple(bias.shape)} is not one number for each of {x.shape[axis]} features"
            )
        bias = bias.reshape(*groups.shape[axis : axis + 2], *[1] * (x.dim() - axis - 1))
    return sort_members(groups, axis + (1 if contiguous else 0), bias).flatten(axis, axis + 1)


def _sorted_by_torch(x: Tensor, group_size: int | None, dim: int, contiguous: bool) -> Tensor:
    """`group_sort` in what TorchScript can compile."""
    axis = dim % x.dim()
    groups = grouped(x, group_size, dim, contiguous)
    return groups.sort(dim=axis + 1 if contiguous else axis)[0].flatten(axis, axis + 1)


class GroupSort(nn.Module):
    """Sort each group of ``group_size`` features ascending; 1-Lipschitz in every norm. Source: paper §4.1.

    See `group_sort` for shapes and errors.

    >>> GroupSort(3)(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """

    def __init__(self, group_size: int | None, dim: int = -1, contiguous: bool = True) -> None:
        super().__init__()
        self.group_size = None if group_size is None else integer("group_size", group_size)
        self.dim, self.contiguous = _axis(dim), contiguous

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, features, …) → the same."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return _sorted_by_torch(x, self.group_size, self.dim, self.contiguous)
        else:
            return group_sort(x, self.group_size, self.dim, self.contiguous)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.group_size}, dim={self.dim}" + ("" if self.contiguous else ", contiguous=False")


class MaxMin(GroupSort):
    """GroupSort with groups of two: (min, max) of each pair. Source: paper §4.1; Chernodub & Nowicki 2016.

    >>> MaxMin()(torch.tensor([[2.0, 1.0, 3.0, 4.0]]))
    tensor([[1., 2., 3., 4.]])
    """

    def __init__(self, dim: int = -1, contiguous: bool = True) -> None:
        super().__init__(2, dim, contiguous)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"dim={self.dim}" + ("" if self.contiguous else ", contiguous=False")


class FullSort(GroupSort):
    """Sort all features ascending. Source: paper §4.1.

    >>> FullSort()(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__(None, dim)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"dim={self.dim}"


class Abs(nn.Module):
    """|x|, elementwise: as expressive as MaxMin under the 2-norm, not under the ∞-norm. Source: paper §4.1.

    >>> Abs()(torch.tensor([-2.0, 1.0]))
    tensor([2., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        return x.abs()


class Maxout(nn.Module):
    """The largest of each group of ``group_size`` neighbors: (…, n, …) → (…, n / group_size, …).

    1-Lipschitz in every norm, but not gradient-norm preserving: the other members get no gradient.
    Sources: paper §2.2 and Table 1; Goodfellow et al. 2013.

    >>> Maxout(2)(torch.tensor([[2.0, 1.0, 3.0, 4.0]]))
    tensor([[2., 4.]])
    """

    def __init__(self, group_size: int = 2, dim: int = -1) -> None:
        super().__init__()
        self.group_size, self.dim = integer("group_size", group_size), _axis(dim)

    def forward(self, x: Tensor) -> Tensor:
        """The maximum of each group; of equal members the first gets the gradient."""
        return grouped(x, self.group_size, self.dim).max(self.dim % x.dim() + 1).values

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{self.group_size}, dim={self.dim}"


class Householder(nn.Module):
    """Each pair z is kept if vᵀz > 0 and else reflected to z − 2(vᵀz)v; v = (sin θ/2, −cos θ/2), θ learned.

    2→2 norm 1 and gradient-norm preserving; in the ∞-norm it can reach √2, so no bound is claimed there. At θ = π/2 it
    is MaxMin, largest first. Source: Singla, Singla & Feizi 2021.

    Args:
        pairs: How many pairs the feature axis has, each with its own angle.
        dim: The feature axis.

    >>> bool(torch.allclose(Householder(1)(torch.tensor([[1.0, 2.0]])), torch.tensor([[2.0, 1.0]])))
    True
    """

    def __init__(self, pairs: int, dim: int = -1) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.full((integer("pairs", pairs),), math.pi / 2))
        self.dim = _axis(dim)

    @property
    def pairs(self) -> int:
        """How many pairs."""
        return len(self.angle)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, 2·pairs, …) → the same."""
        pairs = grouped(x, 2, self.dim)
        axis = self.dim % x.dim()
        if pairs.shape[axis] != len(self.angle):
            raise TightlipError(f"Householder has {len(self.angle)} pairs, its input {pairs.shape[axis]}: match them")
        shape = [-1 if i == axis else 1 for i in range(x.dim())]
        first, second = (self.angle / 2).sin().reshape(shape), -(self.angle / 2).cos().reshape(shape)
        a, b = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
        below = 2.0 * (first * a + second * b).clamp(max=0.0)
        return torch.stack((a - below * first, b - below * second), axis + 1).flatten(axis, axis + 1)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"{len(self.angle)}, dim={self.dim}"


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "maxout": partial(Maxout, 2),
    "abs": Abs,
    "maxmin": partial(MaxMin, contiguous=False),
    "groupsort4": partial(GroupSort, 4, contiguous=False),
    "fullsort": FullSort,
}
"""By the names that configurations use, in the order of what they can express."""


@rule(GroupSort, options={"group_size": optional(SIZE), "dim": INTEGER, "contiguous": FLAG})
@rule(MaxMin, options={"dim": INTEGER, "contiguous": FLAG})
@rule(FullSort, options={"dim": INTEGER})
@rule(Maxout, options={"group_size": SIZE, "dim": INTEGER})
def _group_sort(module: GroupSort | Maxout) -> Gains:
    _refuse_batch_axis(module)
    if module.group_size is not None or isinstance(module, Maxout):
        stored_integer(module, "group_size")  # that it divides the features, only the forward can tell
    return Gains.constant(1.0, EXACT)


@rule(Abs, options={})
def _abs(module: Abs) -> Gains:
    return Gains.elementwise(-1.0, 1.0, EXACT)


@rule(Householder, options={"pairs": SIZE, "dim": AXIS})
def _householder(module: Householder) -> Gains:
    _refuse_batch_axis(module)
    angle = stored_numbers(module, "angle")
    if angle.dim() != 1:  # of two axes, one pair would become several
        raise TightlipError(f"Householder has angles of shape {tuple(module.angle.shape)}: restore one axis of them")
    turned = max(1.0, float(angle.abs().max()))  # an angle that is rounded turns by a share of itself
    return Gains({(2.0, 2.0): 1.0}, Roundoff(64, input=turned))


def _axis(dim: int) -> int:
    return integer("dim", dim, least=-64, most=64)


def _refuse_batch_axis(module: GroupSort | Maxout | Householder) -> None:
    dim = stored_integer(module, "dim")
    if dim == 0 or dim < -1:
        name = type(module).__name__
        raise TightlipError(f"{name}(dim={dim}) could mix the batch, not the features: use dim=1 or dim=-1")
