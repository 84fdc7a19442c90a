"""`wasserstein1` of two small samples against linear programming: whatever the points, the truth is in the interval."""

import math

import numpy as np
import torch
from red_team.tally import Tally
from scipy.optimize import linprog
from scipy.sparse import eye, kron, vstack

from tightlip import wasserstein1
from tightlip.norms import NORMS
from tightlip.transport.rounding import GAP

LARGEST = 498
"""Scales are powers of two up to 2^±498, near 1e±150, so that a program for the points as they are has the truth."""

CLOSE = 1e-9
"""What is left of the largest cost where no pair improves any more; offsets take digits."""


def solved(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: float) -> tuple[float, float]:
    """W1 of points near 1 in size with these weights, by HiGHS, and the largest cost."""
    n, m = len(x), len(y)
    costs = np.linalg.norm(x[:, None] - y[None], p, axis=2)
    rows, columns = kron(eye(n), np.ones((1, m))), kron(np.ones((1, n)), eye(m))
    marginals = vstack((rows, columns)).tocsr()
    masses = 1e4 * np.concatenate((a / math.fsum(a), b / math.fsum(b)))  # its tolerances are absolute
    options = {"A_eq": marginals[:-1], "b_eq": masses[:-1], "method": "highs"}
    result = linprog(costs.ravel(), **options)
    if result.status != 0:  # its presolve trips over tiny masses
        result = linprog(costs.ravel(), **options, options={"presolve": False})
    assert result.status == 0
    return result.fun / 1e4, float(costs.max())


def drawn(draws: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Points and weights with what makes such problems hard; a third of them of one size, where all points count."""
    n, m = draws.integers(1, (most if draws.random() < 0.3 else 12) + 1, 2)
    d, even = int(draws.choice([1, 2, 3, 7])), draws.random() < 0.4
    n = m if even else n
    x, y = draws.standard_normal((n, d)), draws.standard_normal((m, d)) + 0.5
    a, b = (None, None) if even or draws.random() < 0.2 else (draws.random(n) + 1e-3, draws.random(m) + 1e-3)
    kind = draws.integers(7)
    if kind == 0:  # ties, of integers
        x, y = np.round(x).astype(np.int64), np.round(2 * y).astype(np.int32)
    if kind == 1:  # duplicates in both samples
        x[n // 2 :], y[: m // 2] = x[0], x[0]
    if kind == 2 and a is not None:  # points without weight
        a, b = a * (draws.random(n) < 0.6), b * (draws.random(m) < 0.6)
        a[0] = b[-1] = 1.0
    if kind == 3 and a is not None:
        a, b = 10.0 ** draws.uniform(-12, 0, n), draws.integers(1, 4, m)
    if kind == 4:  # the same points, in another order
        x = y[draws.permutation(m)] if n == m else y[draws.integers(0, m, n)]
    if kind == 5:
        x, y = x + 1e6, y + 1e6
    if kind == 6:
        x, y = x.astype(np.float32), y.astype(np.float16)
    return x, y, a, b


def distances(seed: int, tally: Tally, most: int = 60) -> None:
    """A small problem at some scale, norm and tolerance: the interval, its critic, its pairs and its history."""
    draws = np.random.default_rng(seed)
    x, y, a, b = drawn(draws, most)
    p, tolerance = float(draws.choice(NORMS)), float(draws.choice([1e-2, 1e-3, 1e-6, 0.0]))
    weights = [np.ones(len(z)) if w is None else w for z, w in ((x, a), (y, b))]
    truth, largest = solved(x.astype(float), y.astype(float), *weights, p)
    exponent = draws.choice([0, -LARGEST, LARGEST, draws.integers(-LARGEST, LARGEST + 1)])
    scale = 1.0 if x.dtype.kind == "i" or x.dtype == np.float32 else 2.0 ** int(exponent)
    told = (f"{len(x)} against {len(y)}, p={p:g}, tolerance {tolerance}, scale {scale:g}:",)
    points = (x, y) if scale == 1.0 else (x * scale, y * scale)
    found = wasserstein1(*points, p=p, weights=(a, b), tolerance=tolerance, seed=seed, progress=False)
    lower, upper, slack = found.lower / scale, found.upper / scale, 1e-9 * largest + 1e-12  # of HiGHS
    tally.expect("interval", 0 <= lower <= truth + slack and truth - slack <= upper, *told, lower, truth, upper)
    tally.expect("gap", found.gap <= tolerance or found.reason != GAP, *told, found.gap, found.reason)
    tally.expect("close", upper - lower <= tolerance * upper + CLOSE * (largest + 1), *told, lower, upper, found.reason)
    proven = attained(found.critic, *points, *weights) / scale
    tally.expect("critic", proven >= lower - CLOSE * (largest + 1), *told, "the critic attains", proven, "of", lower)
    tally.expect("pairs", _covers(found.pairs, *weights), *told, found.pairs)
    tally.expect("history", _closes(found.history) and found.history[-1][1:] == (found.lower, found.upper), *told)


def attained(critic: torch.nn.Module, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Σ a·f(x) − Σ b·f(y), for weights of any sum."""
    values = [critic(torch.from_numpy(np.asarray(z, dtype=np.float64)))[:, 0].numpy() for z in (x, y)]
    return float(values[0] @ (a / a.sum()) - values[1] @ (b / b.sum()))


def _covers(pairs: torch.Tensor | None, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether every point with some weight is in a pair, and no point is that is not there."""
    if pairs is None:
        return False
    sides = zip(pairs.T.numpy(), (a / a.sum(), b / b.sum()), strict=True)
    return all(set(np.flatnonzero(w > 1e-9)) <= set(side) <= set(range(len(w))) for side, w in sides)


def _closes(history: list[tuple[float, float, float]]) -> bool:
    """Whether time goes on, and no bound goes back."""
    seconds, lower, upper = np.array(history).T
    return all((np.diff(values) >= 0).all() for values in (seconds, lower, -upper))
