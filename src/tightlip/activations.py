"""Gradient-norm-preserving activations: sort the features within groups (paper §4.1).

The Jacobian of GroupSort is a permutation matrix, so it keeps every p-norm of a gradient and of a difference. Groups
are named by their *size*; `contiguous=True` groups neighbors (0 1 | 2 3 | …) as the paper draws it, `False` groups
features n/k apart (0, n/k, …), a fixed permutation of the other and the fast layout before a dense layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .audit import EXACT, Gains, rule
from .errors import TightlipError


class _SortPair(torch.autograd.Function):
    """(a, b) ↦ (min, max), whose Jacobian is a permutation also at ties."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.minimum(a, b), torch.maximum(a, b), a > b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(output[2])

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (swapped,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = gradients[0], gradients[1]
        return torch.where(swapped, high, low), torch.where(swapped, low, high)


def group_sort(x: Tensor, group_size: int | None, dim: int = -1, contiguous: bool = True) -> Tensor:
    """Sort ascending within groups of ``group_size`` features along ``dim``; None sorts all of them.

    Args:
        x: Any shape.
        group_size: Members per group, ≥ 1; must divide the size of ``dim``.
        dim: The feature axis: -1 for dense layers, 1 for NCHW images.
        contiguous: Whether a group is made of neighbors or of features n/k apart.

    Raises:
        TightlipError: if the axis does not exist or is not divisible.

    >>> group_sort(torch.tensor([3.0, 1.0, 2.0, 5.0]), 2)
    tensor([1., 3., 2., 5.])
    """
    if not -x.dim() <= dim < x.dim():
        raise TightlipError(f"GroupSort over axis {dim} needs more than the {x.dim()} axes of its input")
    features = x.shape[dim]
    size = features if group_size is None else group_size
    if size < 1 or features % size:
        raise TightlipError(
            f"{features} features do not divide into groups of {size}: choose a width that is a multiple of {size}"
        )
    shape = (features // size, size) if contiguous else (size, features // size)
    grouped = x.unflatten(dim, shape)
    axis = dim % x.dim() + (1 if contiguous else 0)
    if size == 2:
        low, high, _ = _SortPair.apply(grouped.select(axis, 0), grouped.select(axis, 1))
        ordered = torch.stack((low, high), axis)
    else:
        ordered = grouped.sort(dim=axis).values
    return ordered.flatten(dim % x.dim(), dim % x.dim() + 1)


class GroupSort(nn.Module):
    """Sort each group of ``group_size`` features ascending; 1-Lipschitz in every norm. Source: paper §4.1.

    See `group_sort` for shapes and errors.

    >>> GroupSort(3)(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """

    def __init__(self, group_size: int | None, dim: int = -1, contiguous: bool = True) -> None:
        super().__init__()
        if group_size is not None and (not isinstance(group_size, int) or group_size < 1):
            raise TightlipError(f"group_size={group_size!r} is no group: give an integer ≥ 1, or use FullSort")
        self.group_size, self.dim, self.contiguous = group_size, dim, contiguous

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, features, …) → the same."""
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


class FullSort(GroupSort):
    """Sort all features ascending. Source: paper §4.1.

    >>> FullSort()(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__(None, dim)


@rule(GroupSort, MaxMin, FullSort)
def _group_sort(module: GroupSort) -> Gains:
    if module.dim == 0 or module.dim < -1:
        raise TightlipError(f"GroupSort(dim={module.dim}) could sort the batch, not the features: use dim=1 or dim=-1")
    return Gains.constant(1.0, EXACT)
