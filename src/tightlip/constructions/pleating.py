"""Pleats: in one dimension, networks of two units come as near as one likes to every 1-Lipschitz function.

A zigzag is a strip of paper that is pleated: seen along one axis it goes to and fro. Held a little open, with angle θ
between its pieces and that axis, it is a path in the plane which folding the plane along one line after another makes
out of a straight strip. `MaxMin` of two units is such a folding (`fold`), so orthogonal 2 × 2 weights do, and the last
weight looks along the axis. Derived here, proof in docs/theory/universality.md; no such network is a zigzag itself, but
for few (Prach and Lampert 2023).
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from ..arguments import number
from ..errors import TightlipError
from .affine import Affine, assemble, scale
from .interpolant import Array, checked

FINEST = 1e-12
"""The least error, in units of the zigzag's length: above rounding."""

WIDEST = 0.5
"""Radians between an axis and pleats that may be as open as they like."""

STRAIGHT = 1e-15
"""Radians at a corner that is gone, or the sine of one at which a point is no corner of a hull."""

LEFT = 1e-12
"""Radians of all corners together that do not count: so far, at most, a straight path is from the one that is left."""

MOST_FOLDS = 100
"""For each corner, before it is given up."""

Path = np.ndarray
"""Corners of a path in the plane, (corners, 2)."""


class Fold(NamedTuple):
    """The line through ``point`` along ``along``; what lies to its right is mirrored to its left."""

    point: Float[np.ndarray, "2"]
    along: Float[np.ndarray, "2"]


def zigzag_interpolant(
    points: Real[Array, "..."], values: Real[Array, "..."], error: float = 1e-6, K: float = 1.0
) -> nn.Sequential:
    """A network of 2-norm constant K through all samples, up to ``error``, on an interval: shape (…, 1) → (…, 1).

    Between two samples at distance h, whose values differ by v, it rises and falls with slopes just below ±K, so there
    it is within ``error`` + K·h − |v| of *every* K-Lipschitz function with these values. Each layer has two units of
    `MaxMin` and an orthogonal weight. There are as many as foldings were found: 3 to 12 for two corners and errors of
    0.1 to 1e-10, about 4 for each of 20 samples, 13 for each of 100, which take 15 seconds. Outside the interval
    nothing is promised but the constant. In float64. Derived here; proof in docs/theory/universality.md.

    Args:
        points: N numbers, a tensor or a numpy array, in any order and shape. Equal ones need equal values.
        values: As many.
        error: The largest difference to the zigzag, in units of ``values``; 1e-12 of its length at least.
        K: The constant; where it is not 1, ``values / K`` are interpolated and a `Scale` is last.

    Raises:
        TightlipError: if two samples differ by more than K times their distance (the message names the steepest pair);
            for shapes that do not fit, numbers that are not finite, or an ``error`` that float64 does not have.

    >>> from tightlip import lipschitz
    >>> f = zigzag_interpolant(torch.tensor([0.0, 2.0, 3.0, 5.0]), torch.tensor([0.0, 2.0, 1.0, 3.0]), error=1e-4)
    >>> f(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)).flatten().round(decimals=3).tolist()
    [0.0, 1.0, 2.0, 1.0, 2.0]
    >>> lipschitz(f, 2).constant <= 1 + 1e-9
    True
    """
    K, error = number("the Lipschitz constant K", K, above=0), number("error", error, above=0)
    x, y = (torch.as_tensor(each).flatten()[:, None] for each in (points, values))
    x, y = checked(x, y, 2.0, K)
    if K != 1.0:
        return nn.Sequential(zigzag_interpolant(x[:, 0], y[:, 0] / K, error / K), scale(K, y))
    order = x[:, 0].argsort()
    start, corners = _corners(x[order, 0].tolist(), y[order, 0].tolist())
    length = sum(map(abs, corners))
    if length == 0.0:
        return assemble([Affine(torch.zeros(1, 1, dtype=torch.float64), y[0])])
    if error < FINEST * length:
        raise TightlipError(f"error must be at least {FINEST:g} of the zigzag's length {length:g}, got {error:g}")
    heights = np.cumsum([0.0, *corners])
    opening = min(WIDEST, 2 * math.asin(math.sqrt(min(1.0, error / np.ptp(heights)))))
    folds, straight = unfold(pleats(np.array(corners) / length, opening))
    middle = (heights.max() + heights.min()) / 2
    return _network(folds, straight, length, float(x[order[0]]), start + (1 - math.cos(opening)) * middle)


def _corners(x: list[float], y: list[float]) -> tuple[float, list[float]]:
    """The first value, and the ways up (positive) and down (negative) of the zigzag, one after the other in turn."""
    ways: list[float] = []
    for (a, below), (b, above) in pairwise(zip(x, y, strict=True)):
        up, down = max(0.0, (b - a + above - below) / 2), max(0.0, (b - a - above + below) / 2)
        for way in (up, -down) if ways and ways[-1] > 0 else (-down, up):
            if way and ways and (ways[-1] > 0) == (way > 0):
                ways[-1] += way
            elif way:
                ways.append(way)
    return y[0], ways


def pleats(ways: Float[np.ndarray, " n"], opening: float) -> Path:
    """The path whose pieces go up or down by cos(``opening``) of their length, and all to the side by the sine."""
    pieces = np.stack([np.cos(opening) * ways, np.sin(opening) * np.abs(ways)], axis=1)
    return np.concatenate([np.zeros((1, 2)), pieces.cumsum(axis=0)])


def unfold(path: Path) -> tuple[list[Fold], Path]:
    """The foldings that make a straight path this one, in their order, and that straight path.

    Backwards: a line that touches the path at a corner only, with all of it on one side, may have been the last fold,
    and what lies behind the corner was on the other side. Of all such lines that one is taken which opens its corner
    most. There always is one, and corners only open.

    Raises:
        TightlipError: where corners are left after a hundred folds for each.
    """
    folds: list[Fold] = []
    for _ in range(MOST_FOLDS * len(path)):
        best = max((_opened(path, *corner) for corner in _exposed(path)), default=None, key=lambda found: found[0])
        if best is None or not best[0] > STRAIGHT:
            break
        _, corner, along = best
        folds.append(Fold(path[corner], along))
        path = _mirrored(path, corner, along)
    if (left := np.abs(_turns(path)).sum()) > LEFT:
        raise TightlipError(f"corners of {left:g} radians were left after {len(folds)} folds: take fewer samples")
    return folds[::-1], path


def _turns(path: Path) -> Float[np.ndarray, " corners"]:
    """By how many radians the path turns at each corner but the first and the last."""
    pieces = np.diff(path, axis=0)
    cross = pieces[:-1, 0] * pieces[1:, 1] - pieces[:-1, 1] * pieces[1:, 0]
    return np.arctan2(cross, (pieces[:-1] * pieces[1:]).sum(axis=1))


def _exposed(path: Path) -> list[tuple[int, int, int]]:
    """The corners of the convex hull, anticlockwise, that are no end of the path: the one before, itself, the next."""
    order = np.lexsort(path.T[::-1])
    halves = []
    for swept in (order.tolist(), order[::-1].tolist()):
        chain: list[int] = []
        for corner in swept:
            while len(chain) > 1 and not _left(path, chain[-2], chain[-1], corner):
                chain.pop()
            chain.append(corner)
        halves.append(chain[:-1])
    hull = halves[0] + halves[1]
    around = zip([hull[-1], *hull[:-1]], hull, [*hull[1:], hull[0]], strict=True)
    return [trio for trio in around if 0 < trio[1] < len(path) - 1]


def _left(path: Path, first: int, second: int, third: int) -> bool:
    """Whether the way from the first over the second to the third is a turn to the left."""
    (a, b), (c, d) = path[second] - path[first], path[third] - path[second]
    return bool(a * d - b * c > STRAIGHT * math.hypot(a, b) * math.hypot(c, d))


def _opened(path: Path, before: int, corner: int, after: int) -> tuple[float, int, Float[np.ndarray, "2"]]:
    """By how many radians a fold at an exposed corner opens it at best, the corner, and the direction of that fold.

    Lines that touch the hull there run between its two edges, and have the path to their left.
    """
    here = path[corner]
    low = _angle(here - path[before])
    room = (_angle(path[after] - here) - low) % (2 * math.pi)
    back, on = _angle(path[corner - 1] - here), _angle(path[corner + 1] - here)
    within = (on - back + math.pi) % (2 * math.pi) - math.pi  # from the piece before to the piece behind
    ideal = (back + within / 2 - math.pi / 2 - low + math.pi) % (2 * math.pi) - math.pi
    along = low + min(max(ideal, 0.0), room)
    a, b = ((piece - along) % (2 * math.pi) for piece in (back, on))
    opened = math.pi - abs(math.pi - a - b) - abs(within)
    return opened, corner, np.array([math.cos(along), math.sin(along)])


def _angle(vector: Float[np.ndarray, "2"]) -> float:
    return math.atan2(vector[1], vector[0])


def _mirrored(path: Path, corner: int, along: Float[np.ndarray, "2"]) -> Path:
    """What lies behind a corner, on the other side of the line through it."""
    arms = path[corner + 1 :] - path[corner]
    return np.concatenate([path[: corner + 1], path[corner] + 2 * np.outer(arms @ along, along) - arms])


def _network(folds: list[Fold], straight: Path, length: float, first: float, lifted: float) -> nn.Sequential:
    """The straight path, in units of ``length``, then all folds, then the axis."""
    piece = straight[-1] - straight[0]
    turn = torch.as_tensor(piece / np.linalg.norm(piece))[:, None]
    place = length * torch.as_tensor(straight[0]) - turn[:, 0] * first
    maps: list[Affine] = []
    for point, along in folds:
        rotation, middle = _rotation(along), length * torch.as_tensor(point)
        maps.append(Affine(rotation @ turn, rotation @ (place - middle)))
        turn, place = rotation.mT, middle
    return assemble([*maps, Affine(turn[:1], place[:1] + lifted)])


def _rotation(along: Float[np.ndarray, "2"]) -> Tensor:
    """Takes what lies to the left of a line with this direction to where entries ascend, as `MaxMin` leaves them."""
    (c, s), root = along, math.sqrt(0.5)
    return root * torch.tensor([[c + s, s - c], [c - s, s + c]], dtype=torch.float64)
