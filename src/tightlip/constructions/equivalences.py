"""Activations written as one another, with the norms in which the weights that it takes have norm 1.

    |x|           from MaxMin       2
    MaxMin        from |x|          2          for bounded inputs
    MaxMin        from FullSort     1, 2, ∞    for bounded inputs
    FullSort      from MaxMin       1, 2, ∞    an odd number for bounded inputs
    ReLU, CReLU   from MaxMin       1, 2, ∞
    leaky ReLU    from MaxMin       ∞          for slope a; √(1 + a²) in 2, 1 + a in 1
    Maxout        from GroupSort    1, 2, ∞

Sources: paper §4.1, Appendices A.2 and A.3. Proofs: docs/theory/constructions.md.
"""

import math

import torch
from torch import Tensor, nn

from ..activations import Abs, FullSort, GroupSort
from ..arguments import integer, number
from ..errors import TightlipError
from .affine import Affine, assemble, linear, pick


def abs_from_max_min(n: int) -> nn.Sequential:
    """|x| = E MaxMin(Eᵀx), E = I ⊗ (−1, 1)/√2: shape (…, n) → the same, 2-norm 1. Source: paper §4.1, Appendix A.3.

    The rows of E are orthonormal. In the ∞-norm E has norm √2: `maximum` of x and −x is the way there.

    Raises:
        TightlipError: unless n is an integer ≥ 1.

    >>> abs_from_max_min(2)(torch.tensor([-3.0, 2.0], dtype=torch.float64)).round(decimals=6)
    tensor([3., 2.], dtype=torch.float64, grad_fn=...)
    """
    _refuse_width(n)
    matrix = _blocks(n, [[-1.0, 1.0]]) * math.sqrt(0.5)
    return assemble([Affine(matrix.mT), Affine(matrix)])


def max_min_from_abs(n: int, reach: float) -> nn.Sequential:
    """MaxMin by absolute values, for |x| ≤ reach entrywise: (…, n) → the same, 2-norm 1. Source: Appendix A.3.

    A pair becomes s = (a + b)/√2 and t = (a − b)/√2, a rotation; then (min, max) = (s ∓ |t|)/√2. A bias keeps s
    positive under the absolute value and is taken off again.

    Raises:
        TightlipError: unless n is even and ``reach`` a finite number > 0.
    """
    _refuse_width(n, even="MaxMin")
    _refuse_reach(reach)
    into = _blocks(n // 2, [[1.0, 1.0], [1.0, -1.0]]) * math.sqrt(0.5)
    back = _blocks(n // 2, [[1.0, -1.0], [1.0, 1.0]]) * math.sqrt(0.5)
    shift = torch.tensor([2.0 * reach, 0.0], dtype=torch.float64).repeat(n // 2)  # |s| ≤ √2·reach
    return assemble([Affine(into, shift), Affine(back, -(back @ shift))], Abs)


def max_min_from_full_sort(n: int, reach: float) -> nn.Sequential:
    """MaxMin(x) = FullSort(x + b) − b, for |x| ≤ reach entrywise: (…, n) → the same, norm 1 in every p-norm.

    b is constant on each pair, and consecutive pairs are further apart than 2·reach, so that they never mix.
    Source: paper §4.1, Appendix A.3.

    Raises:
        TightlipError: unless n is even and ``reach`` a finite number > 0.
    """
    _refuse_width(n, even="MaxMin")
    _refuse_reach(reach)
    shift = (3.0 * reach * (torch.arange(n // 2, dtype=torch.float64) - n // 4)).repeat_interleave(2)
    identity = pick(range(n), n).weight
    return assemble([Affine(identity, shift), Affine(identity, -shift)], FullSort)


def full_sort_from_max_min(n: int, reach: float | None = None) -> nn.Sequential:
    """FullSort by n layers of MaxMin between permutations: (…, n) → the same, norm 1 in every p-norm.

    Odd-even transposition: wires (0, 1)(2, 3)… are compared in even rounds, (1, 2)(3, 4)… in odd ones, where the two
    ends are compared with each other. For odd n a constant wire ``reach``, the largest of all, makes the number even.
    Source: paper §4.1 (BubbleSort), Appendix A.3.

    Raises:
        TightlipError: unless n is even, or ``reach`` a bound on |x|.

    >>> full_sort_from_max_min(4)(torch.tensor([3.0, 1.0, 4.0, 2.0], dtype=torch.float64))
    tensor([1., 2., 3., 4.], dtype=torch.float64, grad_fn=...)
    """
    _refuse_width(n)
    if n % 2 and reach is None:
        raise TightlipError(
            f"MaxMin sorts pairs, and n={n} is odd: give reach, a bound on the absolute values to be sorted"
        )
    _refuse_reach(1.0 if reach is None else reach)
    wires = n + n % 2
    place = [i if i < n else -1 for i in range(wires)]  # of each wire among the entries there are; −1: not there yet
    maps, width = [], n
    for round_ in range(wires):
        order = _compared(wires, round_)
        maps.append(pick([place[wire] for wire in order], width))
        place, width = [order.index(wire) for wire in range(wires)], wires
    if n % 2 and reach is not None:
        maps[0] = Affine(maps[0].weight, reach * pick([n], wires).weight[0])
    return assemble([*maps, pick(place[:n], wires)])


def _compared(wires: int, number: int) -> list[int]:
    """The wires in the order in which neighbors are compared in this round; the smaller goes to the first of each."""
    if number % 2 == 0:
        return list(range(wires))
    return [0, wires - 1, *range(1, wires - 1)]


def relu_from_max_min(n: int) -> nn.Sequential:
    """max(x, 0): shape (…, n) → the same, norm 1 in every p-norm. Source: Appendix A.2.

    Raises:
        TightlipError: unless n is an integer ≥ 1.

    >>> relu_from_max_min(2)(torch.tensor([-3.0, 2.0], dtype=torch.float64))
    tensor([0., 2.], dtype=torch.float64, grad_fn=...)
    """
    _refuse_width(n)
    return assemble([_beside_zero(n), pick(range(1, 2 * n, 2), 2 * n)])


def leaky_relu_from_max_min(n: int, slope: float) -> nn.Sequential:
    """max(x, a·x), 0 ≤ a ≤ 1: shape (…, n) → the same. The first matrix has norm 1 in ∞, √(1 + a²) in 2, 1 + a in 1.

    So it respects the constraint in the ∞-norm only. Source: Appendix A.2.

    Raises:
        TightlipError: unless n is an integer ≥ 1 and 0 ≤ a ≤ 1.
    """
    _refuse_width(n)
    slope = number("slope", slope, least=0, most=1)
    return assemble([Affine(_blocks(n, [[slope], [1.0]])), pick(range(1, 2 * n, 2), 2 * n)])


def crelu_from_max_min(n: int) -> nn.Sequential:
    """(max(x, 0), max(−x, 0)): shape (…, n) → (…, 2n), norm 1 in every p-norm. Source: Appendix A.2; Shang et al. 2016.

    Raises:
        TightlipError: unless n is an integer ≥ 1.

    >>> crelu_from_max_min(1)(torch.tensor([-3.0], dtype=torch.float64))
    tensor([0., 3.], dtype=torch.float64, grad_fn=...)
    """
    _refuse_width(n)
    signs = torch.ones(2 * n, 1, dtype=torch.float64)
    signs[n:] = -1.0  # max(−x, 0) = −min(x, 0)
    return assemble([_beside_zero(n), Affine(signs * pick([*range(1, 2 * n, 2), *range(0, 2 * n, 2)], 2 * n).weight)])


def maxout_from_group_sort(n: int, group_size: int) -> nn.Sequential:
    """The largest of each group of neighbors: shape (…, n) → (…, n / group_size), norm 1 in every p-norm.

    Source: Appendix A.2; Goodfellow et al. 2013.

    Raises:
        TightlipError: unless n is a multiple of ``group_size`` ≥ 1.
    """
    _refuse_width(n)
    sort = GroupSort(group_size)
    if n % group_size:
        raise TightlipError(
            f"{n} features do not divide into groups of {group_size}: choose a multiple of {group_size}"
        )
    return nn.Sequential(sort, linear(pick(range(group_size - 1, n, group_size), n)))


def _beside_zero(n: int) -> Affine:
    """The map x ↦ (0, x₁, 0, x₂, …)."""
    return pick([i for wire in range(n) for i in (-1, wire)], n)


def _blocks(count: int, block: list[list[float]]) -> Tensor:
    return torch.kron(torch.eye(count, dtype=torch.float64), torch.tensor(block, dtype=torch.float64))


def _refuse_width(n: int, even: str | None = None) -> None:
    integer("n", n)
    if even and n % 2:
        raise TightlipError(f"{even} sorts pairs, so n must be even, got {n}")


def _refuse_reach(reach: float) -> None:
    number("reach, a bound on every |x|,", reach, above=0)
