"""What a page shows of a distance: the potential, the points that it separates, and the pairs that moved farthest."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.channels import is_image
from ..data.points import Points
from ..linalg.rounding import normalize_exactly
from ..records import Counts, Lengths, Line, Move, Plane, Shown
from ..transport.interval import Interval
from ..transport.potential import Funnels

Vector = NDArray[np.float64]

LINE, GRID, BINS = 400, 41, 40
"""Places on a line, on each side of a grid, and bins."""

DOTS = 300
"""Points of each sample that are drawn in a plane."""

TILES, MOVES = 6, 8
"""How many points are shown of each sample, and how many pairs."""

FEW = 8
"""So many coordinates of a point are shown in a table: those in which the samples differ most."""

MIDDLE = 0.001
"""The share that is left out at either end of what is drawn."""

WORK, LEAST, MOST = 2e9, 200, 2000
"""The potential is looked at on so many points of each sample: fewer, where it takes many numbers."""


def portrait(found: Interval, a: Points, b: Points, p: float, seed: int) -> dict[str, Any]:
    """Fields of a `DistanceRow`: all that is drawn, from the interval and the points."""
    generator = torch.Generator().manual_seed(seed)
    some = [_some(points, _count(found.critic, points), generator) for points in (a, b)]
    parts = [points.flat(index) for points, index in zip((a, b), some, strict=True)]
    values = [_potential(found.critic, part) for part in parts]
    shown = _coordinates(a, parts)
    names = [a.columns[place] if a.columns else f"[{place}]" if a.size > 1 else "value" for place in shown]
    drawn: dict[str, Any] = {"columns": () if is_image(a.shape) else tuple(names), "looked_at": max(map(len, some))}
    drawn |= _moved(found, a, b, p, shown)
    if a.size == 1:
        return drawn | {"line": _line(found.critic, parts)}
    if a.size == 2:
        return drawn | {"plane": _plane(found.critic, parts)}
    first, second = (np.argsort(-part, kind="stable") for part in values)
    apart, close = (first[:TILES], second[::-1][:TILES]), (first[::-1][:TILES], second[:TILES])

    def tiles(chosen: tuple[NDArray[Any], NDArray[Any]]) -> tuple[Shown, ...]:
        return tuple(
            Shown(side + 1, points.called(int(index[row])), float(value[row]), part[row][shown].numpy())
            for side, (points, index, part, value, rows) in enumerate(
                zip((a, b), some, parts, values, chosen, strict=True)
            )
            for row in rows.tolist()
        )

    return drawn | {"apart": tiles(apart), "close": tiles(close)}


def _count(critic: nn.Module, points: Points) -> int:
    numbers = critic.points.numel() if isinstance(critic, Funnels) else 1
    return min(len(points), max(LEAST, min(MOST, int(WORK / numbers))))


def _some(points: Points, count: int, generator: torch.Generator) -> NDArray[Any]:
    return torch.randperm(len(points), generator=generator)[:count].sort().values.numpy()


@torch.no_grad()
def _potential(critic: nn.Module, rows: Tensor) -> Vector:
    """The critic at points (n, d), as numbers in float64."""
    weight = next((w for w in itertools.chain(critic.parameters(), critic.buffers()) if w.is_floating_point()), rows)
    return critic(rows.to(weight.device, weight.dtype)).flatten().double().cpu().numpy()


def _coordinates(a: Points, parts: list[Tensor]) -> list[int]:
    """Which coordinates are shown: all of an image, a few of a long row."""
    if is_image(a.shape) or a.size <= FEW:
        return list(range(a.size))
    spread = torch.cat(parts).std(0, correction=0)
    differ = (parts[0].mean(0) - parts[1].mean(0)).abs() / torch.where(spread > 0, spread, 1.0)
    return sorted(differ.argsort(descending=True, stable=True)[:FEW].tolist())


def _moved(found: Interval, a: Points, b: Points, p: float, shown: list[int]) -> dict[str, Any]:
    """The pairs that moved farthest, and how far all of them did, where all count the same."""
    if found.pairs is None or not len(found.pairs):
        return {}
    i, j = found.pairs.numpy().T
    lengths = _lengths(a, b, i, j, p)
    farthest = np.argsort(-lengths, kind="stable")[:MOVES]
    moves = tuple(
        Move(
            a.called(int(i[row])),
            b.called(int(j[row])),
            float(lengths[row]),
            a.flat(i[row : row + 1])[0][shown].numpy(),
            b.flat(j[row : row + 1])[0][shown].numpy(),
        )
        for row in farthest.tolist()
    )
    alike = len(a) == len(b) == len(i) and lengths.max() > 0
    edges = np.linspace(0, lengths.max(), BINS + 1)
    return {"moves": moves, "lengths": Lengths(edges, _shares(lengths, edges)) if alike else None}


def _lengths(a: Points, b: Points, i: NDArray[Any], j: NDArray[Any], p: float) -> Vector:
    size = max(1, 2**20 // a.size)
    pieces = [slice(first, first + size) for first in range(0, len(i), size)]
    return np.concatenate([_sizes(a.flat(i[part]) - b.flat(j[part]), p) for part in pieces])


def _sizes(moves: Tensor, p: float) -> Vector:
    """The norms of rows (k, d), in a unit in which no square over- or underflows."""
    scaled, exponent = normalize_exactly(moves)
    return np.ldexp(torch.linalg.vector_norm(scaled, p, dim=1).numpy(), exponent)


def _shares(values: Vector, edges: Vector) -> Vector:
    return np.histogram(values, edges)[0] / len(values)


def _ends(values: Vector) -> tuple[float, float]:
    """Where nearly all of them are, and a little beyond."""
    low, high = np.quantile(values, [MIDDLE, 1 - MIDDLE])
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return float(low - margin), float(high + margin)


def _line(critic: nn.Module, parts: list[Tensor]) -> Line:
    first, second = (part[:, 0].numpy() for part in parts)
    low, high = _ends(np.concatenate((first, second)))
    at, edges = np.linspace(low, high, LINE), np.linspace(low, high, BINS + 1)
    counts = Counts(edges, _shares(first, edges), _shares(second, edges))
    return Line(at, _raised(_potential(critic, torch.from_numpy(at)[:, None])), counts)


def _plane(critic: nn.Module, parts: list[Tensor]) -> Plane:
    both = torch.cat(parts).numpy()
    x, y = (np.linspace(*_ends(both[:, axis]), GRID) for axis in (0, 1))
    grid = torch.cartesian_prod(torch.from_numpy(x), torch.from_numpy(y))
    z = _raised(_potential(critic, grid)).reshape(GRID, GRID)
    first, second = (part[:DOTS].numpy() for part in parts)
    return Plane(x, y, z, first[:, 0], first[:, 1], second[:, 0], second[:, 1])


def _raised(values: Vector) -> Vector:
    """A potential counts up to a constant: its least value is 0."""
    return np.asarray(values - values.min(), dtype=np.float64) if math.isfinite(values.min()) else values
