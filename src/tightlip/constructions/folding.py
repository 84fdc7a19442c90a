"""Folding: a rigid map, the absolute value and another rigid map fold space along a hyperplane (paper §4.1, Figure 2).

Each weight is orthonormal, so these networks have 2-norm constant 1, and gradient norm 1 almost everywhere.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..activations import Abs
from ..arguments import number, vector
from ..errors import TightlipError
from .affine import Affine, assemble


def fold(normal: Sequence[float], offset: float, reach: float) -> nn.Sequential:
    """The map x ↦ x − 2·min(⟨n, x⟩ − offset, 0)·n, for ‖x‖₂ ≤ reach, n being the unit vector along ``normal``.

    The side to which ``normal`` points stays, the other is mirrored onto it. Shape (…, len(normal)) → the same.
    A rotation makes n the first axis; biases keep the other coordinates positive under the absolute value.
    Source: paper §4.1, Figure 2.

    Raises:
        TightlipError: unless ``normal`` is a finite vector ≠ 0, ``offset`` finite and ``reach`` a finite number > 0.

    >>> fold([1.0, 0.0], 0.0, reach=9.0)(torch.tensor([[-2.0, 1.0]], dtype=torch.float64)).round(decimals=6)
    tensor([[2., 1.]], dtype=torch.float64, grad_fn=...)
    """
    direction, offset = vector("normal", normal), number("offset", offset)
    reach = number("reach, a bound on every ‖x‖₂,", reach, above=0)
    length = torch.linalg.vector_norm(direction)
    if not 0 < length < math.inf:
        raise TightlipError(f"normal must be a vector other than zero, got {normal!r}")
    rotation = _first_row(direction / length)
    shift = torch.full_like(direction, reach)
    shift[0] = -offset
    return assemble([Affine(rotation, shift), Affine(rotation.mT, -(rotation.mT @ shift))], Abs)


def square_pyramids(first: Sequence[float], second: Sequence[float], height: float = 1.0) -> nn.Sequential:
    """Two square pyramids in the plane, with apexes over ``first`` and ``second``: shape (…, 2) → (…, 1).

    With axes u along second − first and v across it,

        f(x) = height − min(D(x − first), D(x − second)),    D(z) = max(|⟨u, z⟩|, |⟨v, z⟩|),

    so faces have slope 1 and go on downwards for ever. Three foldings: the line halfway between the apexes; then the
    axes of the one pyramid that is left; then the diagonal, for a = |⟨u, z⟩| and b = |⟨v, z⟩| have
    max(a, b) = ((a + b)/√2 + |(a − b)/√2|)/√2. Then f is linear. Source: paper §4.1, Figure 2.

    Raises:
        TightlipError: unless the apexes are two different points of the plane, and ``height`` is finite.

    >>> square_pyramids([-2.0, 0.0], [2.0, 0.0])(torch.tensor([[2.0, 0.0]], dtype=torch.float64)).round(decimals=6)
    tensor([[1.]], dtype=torch.float64, grad_fn=...)
    """
    one, other, height = vector("first", first), vector("second", second), number("height", height)
    if one.shape != (2,) or other.shape != (2,):
        raise TightlipError(f"first and second must be points of the plane, [x, y], got {first!r} and {second!r}")
    distance = torch.linalg.vector_norm(other - one)
    if not 0 < distance < math.inf:
        raise TightlipError(f"first and second must be two different points, got {first!r} and {second!r}")
    rotation, root = _first_row((other - one) / distance), math.sqrt(0.5)
    zero = torch.zeros(1, dtype=torch.float64)
    maps = [
        Affine(rotation, -(rotation @ ((one + other) / 2))),
        Affine(torch.eye(2, dtype=torch.float64), torch.cat((-distance[None] / 2, zero))),
        Affine(torch.tensor([[root, root], [root, -root]], dtype=torch.float64)),
        Affine(torch.tensor([[-root, -root]], dtype=torch.float64), zero + height),
    ]
    return assemble(maps, Abs)


def _first_row(unit: Tensor) -> Tensor:
    """An orthogonal matrix with this first row: up to sign, the reflection that takes the first axis to it."""
    sign = -1.0 if unit[0] < 0 else 1.0
    between = unit.clone()
    between[0] += sign  # never near zero
    mirror = torch.eye(len(unit), dtype=torch.float64) - torch.outer(between, between) * (2.0 / (between @ between))
    return -sign * mirror
