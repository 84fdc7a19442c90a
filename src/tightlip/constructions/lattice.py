"""max(f, g) and min(f, g) of two networks as one network of the same class (paper §6, Theorem 3, Figure 3).

The class: linear layers with GroupSort(2) between them; the first weight has rows of dual norm ≤ 1, which is its p→∞
norm, and all others have rows of L1 norm ≤ 1, their ∞→∞ norm. Stacking two such first layers, and putting later
ones on a diagonal, changes no row's norm. (It would change singular values, which is why networks bounded in the
2→2 norm are refused.) After the last layers one more GroupSort(2) orders [f, g], and a row [0, 1] or [1, 0] chooses.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

from ..activations import GroupSort, MaxMin
from ..audit import chain, refuse_altered
from ..constraints import constraint_of
from ..errors import TightlipError
from ..layers import Scale
from ..linalg.spectral import operator_norm_bound
from ..norms import as_norm, norm_name
from .affine import Affine, assemble, pick, scale

SLACK = 1e-9
"""By how much a weight's norm may exceed 1: the rounding of weights that were meant to have norm 1."""


class Member(NamedTuple):
    """A network of the class: affine maps with MaxMin of neighbors between them, and the constant K after them."""

    maps: list[Affine]
    K: float


def maximum(f: nn.Module, g: nn.Module, p: float) -> nn.Sequential:
    """The map x ↦ max(f(x), g(x)), entry by entry, as one plain network. Source: paper §6, Theorem 3, Figure 3.

    Both are networks of the class above: a linear layer, or linear layers with `MaxMin` or ``GroupSort(2)`` of either
    layout between them; then possibly one `Scale`. Depths may differ. The weights are copied, so the result can
    itself be combined, or trained. Its constant from the p-norm to the ∞-norm is the larger of the two K.

    Args:
        f: A network from shape (…, n) to (…, m).
        g: A network between the same shapes, of the same dtype.
        p: The norm of the inputs: 1, 2 or ``math.inf``.

    Raises:
        TightlipError: if a layer is of another kind, or its weight exceeds norm 1; if shapes or dtypes differ.

    >>> f, g = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(f.weight, 1.0), nn.init.constant_(g.weight, -1.0)
    >>> maximum(f, g, p=2)(torch.tensor([[-3.0]]))
    tensor([[3.]], grad_fn=...)
    """
    return _extremum(f, g, p, keep=1)


def minimum(f: nn.Module, g: nn.Module, p: float) -> nn.Sequential:
    """The map x ↦ min(f(x), g(x)), entry by entry; see `maximum`."""
    return _extremum(f, g, p, keep=0)


def _extremum(f: nn.Module, g: nn.Module, p: float, keep: int) -> nn.Sequential:
    one, other = _member(f, as_norm(p)), _member(g, as_norm(p))
    _refuse_mismatch(one.maps, other.maps)
    K = max(one.K, other.K)
    depth = max(len(one.maps), len(other.maps))
    pairs = zip(*(_extended(_shrunk(maps, k / K), depth) for maps, k in (one, other)), strict=True)
    stacked = [_stacked(a, b, first=number == 0) for number, (a, b) in enumerate(pairs)]
    outputs = len(one.maps[-1].weight)
    beside = [row for i in range(outputs) for row in (i, outputs + i)]  # f₁ g₁ f₂ g₂ …
    choice = pick(range(keep, 2 * outputs, 2), 2 * outputs, like=stacked[0].weight)
    network = assemble([*stacked[:-1], stacked[-1].rows(beside), choice])
    return network if K == 1.0 else network.append(scale(K, stacked[0].weight))


def _member(network: nn.Module, p: float) -> Member:
    """The network as affine maps with MaxMin of neighbors between them, or a sentence why it is not of the class."""
    maps: list[Affine] = []
    order: list[int] | None = None  # in which the next map finds its inputs
    K, expected = 1.0, ["nn.Linear"]
    for name, layer in chain(network):
        if _kind(layer) not in expected:
            place = f" at {name!r}" if name else ""
            raise TightlipError(
                f"{layer}{place} stands where networks of this class have {' or '.join(expected) or 'ended'}: use "
                "nn.Linear with MaxMin or GroupSort(2) between them, frozen, and at most one Scale, which is last"
            )
        refuse_altered(layer, name)
        if isinstance(layer, nn.Linear):
            maps.append(_affine(layer, order, name, p if not maps else math.inf))
            expected = ["MaxMin", "Scale"]
        elif isinstance(layer, GroupSort):
            order, expected = _neighbors(layer, len(maps[-1].weight), name), ["nn.Linear"]
            maps[-1] = maps[-1].rows(order)
        else:
            K, expected = float(layer.scale), []  # type: ignore[arg-type]
    if expected == ["nn.Linear"]:
        raise TightlipError("networks of this class end in nn.Linear, or in Scale after it: add a last linear layer")
    if not 0 < K < math.inf:
        raise TightlipError(f"the constant in Scale must be a finite number > 0, got {K}")
    return Member(maps, K)


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, GroupSort) and type(layer) in (GroupSort, MaxMin):
        return "MaxMin" if layer.group_size == 2 and layer.dim == -1 else "another GroupSort"
    return {nn.Linear: "nn.Linear", Scale: "Scale"}.get(type(layer), "another layer")


def _affine(layer: nn.Linear, order: list[int] | None, name: str, p: float) -> Affine:
    if constraint_of(layer) is not None:
        raise TightlipError(f"layer {name!r} is held by a constraint: freeze(network) first")
    bound = operator_norm_bound(layer.weight, p, math.inf)
    if bound > 1.0 + SLACK:
        raise TightlipError(
            f"the weight of layer {name!r} has norm {bound:.9g} from {norm_name(p)} to inf, and stacking keeps rows of "
            "norm 1 only: hold the first layer on RowDualBall(p) and the others on RowL1Ball(), then freeze"
        )
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    return Affine(weight if order is None else weight[:, order], bias)


def _neighbors(layer: GroupSort, width: int, name: str) -> list[int]:
    """The order of features in which the members of each pair are neighbors."""
    if width % 2:
        raise TightlipError(f"{width} features before {name!r} do not divide into pairs: choose an even width")
    if layer.contiguous:
        return list(range(width))
    return [i for pair in range(width // 2) for i in (pair, pair + width // 2)]


def _refuse_mismatch(f: list[Affine], g: list[Affine]) -> None:
    shapes = [(maps[0].weight.shape[1], maps[-1].weight.shape[0], maps[0].weight.dtype) for maps in (f, g)]
    if shapes[0] != shapes[1]:
        described = " and ".join(f"{n} → {m} in {dtype}" for n, m, dtype in shapes)
        raise TightlipError(f"networks {described} have no maximum or minimum: give both the same shape and dtype")


def _shrunk(maps: list[Affine], ratio: float) -> list[Affine]:
    """``ratio``·f, ratio ≤ 1, by the last map."""
    if ratio == 1.0:
        return maps
    weight, bias = maps[-1]
    return [*maps[:-1], Affine(ratio * weight, None if bias is None else ratio * bias)]


def _extended(maps: list[Affine], depth: int) -> list[Affine]:
    """The same function with more layers: outputs are repeated, sorted in vain, and picked."""
    while len(maps) < depth:
        outputs = len(maps[-1].weight)
        repeated = maps[-1].rows([row for i in range(outputs) for row in (i, i)])
        maps = [*maps[:-1], repeated, pick(range(0, 2 * outputs, 2), 2 * outputs, like=repeated.weight)]
    return maps


def _stacked(f: Affine, g: Affine, first: bool) -> Affine:
    """Both maps, of the same inputs if they are the first, else each of its own."""
    weights = f.weight, g.weight
    biases = [torch.zeros_like(m.weight[:, 0]) if m.bias is None else m.bias for m in (f, g)]
    bias = None if f.bias is None and g.bias is None else torch.cat(biases)
    return Affine(torch.cat(weights) if first else torch.block_diag(*weights), bias)
