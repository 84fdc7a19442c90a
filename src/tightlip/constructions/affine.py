"""Affine maps with given entries, and the plain networks made of them.

A construction is a list of affine maps with one kind of activation between them; `assemble` makes it an ordinary
``nn.Sequential`` of ``nn.Linear`` and activations. `pick` is the map of rows that are unit vectors or zero: it selects,
repeats and reorders, with norm 1 in the ∞-norm, and in every p-norm where no entry is repeated.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..activations import MaxMin
from ..layers import Scale


class Affine(NamedTuple):
    """The map x ↦ Wx + b; None is no bias."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None = None

    def rows(self, index: Sequence[int]) -> "Affine":
        """The map whose outputs are those with these numbers, in this order."""
        chosen = torch.as_tensor(index, device=self.weight.device)
        return Affine(self.weight[chosen], None if self.bias is None else self.bias[chosen])


def pick(index: Sequence[int], width: int, like: Tensor | None = None) -> Affine:
    """The map x ↦ (x[i] for i in index), where −1 gives 0; in the dtype of ``like``, by default float64.

    >>> pick([1, -1, 0], 2).weight
    tensor([[0., 1.],
            [0., 0.],
            [1., 0.]], dtype=torch.float64)
    """
    weight = torch.zeros(len(index), width, dtype=torch.float64) if like is None else like.new_zeros(len(index), width)
    kept = [(row, i) for row, i in enumerate(index) if i >= 0]
    weight[[row for row, _ in kept], [i for _, i in kept]] = 1.0
    return Affine(weight)


def assemble(maps: Sequence[Affine], activation: Callable[[], nn.Module] = MaxMin) -> nn.Sequential:
    """The plain network of these maps, with a new activation between each two."""
    layers: list[nn.Module] = []
    for affine in maps:
        layers += [*([activation()] if layers else []), linear(affine)]
    return nn.Sequential(*layers)


@torch.no_grad()
def linear(affine: Affine) -> nn.Linear:
    """The ``nn.Linear`` of an affine map, with a copy of its entries."""
    weight, bias = affine
    rows, columns = weight.shape
    layer = skip_init(nn.Linear, columns, rows, bias is not None, device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def scale(K: float, like: Tensor) -> Scale:
    """``Scale(K)`` in the dtype of ``like`` and on its device."""
    layer = Scale(1.0)
    layer.scale = torch.tensor(K, dtype=like.dtype, device=like.device)
    return layer
