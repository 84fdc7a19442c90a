"""Bounds and certificates against the exact truth: no bound may be below it, no radius above it.

A family makes one network from a seed, and tells the tally what the library says of it and what is true. Comparisons
are of squares and in rationals, so that nothing here rounds.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import torch
from red_team.checkers import checkers
from red_team.deaths import blackouts, failures, kills, writers
from red_team.distances import distances
from red_team.elementwise import number
from red_team.exact import Values, composed, run, squared_norm
from red_team.machines import machines
from red_team.networks import Draw, affine_network, nested_network, pooled_network
from red_team.points import MOST, points, steepest, towards
from red_team.tally import Tally
from torch import Tensor, nn

from tightlip import Certificate, certify, lipschitz
from tightlip.audit import audit, bound_of
from tightlip.constructions import lattice_interpolant
from tightlip.constructions.interpolant import LatticeInterpolant
from tightlip.linalg.spectral import operator_norm_bounds
from tightlip.norms import NORMS, PAIRS, dual
from tightlip.robustness.pairs import pair_sensitivity

HAIR = Fraction(1, 10**90)
"""Functions that are not rational are known to 120 digits, and compared to 90."""


def matrices(seed: int, tally: Tally) -> None:
    """The six norms of one stored matrix: closed forms exactly, 2→2 from below by a Rayleigh quotient."""
    draw = Draw(seed)
    most = 40 if draw.random() < 0.02 else 9
    weight = draw.matrix(draw.randint(1, most), draw.randint(1, most))
    if draw.random() < 0.5:
        weight = weight.clamp(-6e4, 6e4).to(draw.choice((torch.float32, torch.float16, torch.bfloat16)))
    rows = [[Fraction(w) for w in row] for row in weight.tolist()]
    lost = (max(abs(w) for row in rows for w in row) * Fraction(2) ** -400) ** 2 + Fraction(2) ** -2140
    for (p, q), bound in operator_norm_bounds(weight).items():
        square, told = _operator_norm_squared(rows, p, q), (f"‖W‖ {p}→{q}, {weight.tolist()}, is at least √",)
        if math.isinf(bound):
            tally.expect("overflow", square > Fraction(2) ** 2040, *told, square)
            continue
        tally.expect("norm", Fraction(bound) ** 2 >= square, *told, square, "and bounded by", bound)
        if (p, q) != (2.0, 2.0):
            tight = Fraction(bound) ** 2 <= square * (1 + Fraction(1, 10**9)) + lost
            tally.expect("tight", tight, *told, square, "and bounded by", bound)


def _operator_norm_squared(rows: Sequence[Values], p: float, q: float) -> Fraction:
    """‖A‖² from p to q; for 2→2 what one vector attains."""
    if p == 1:
        return max(squared_norm(column, q) for column in zip(*rows, strict=True))
    if q == math.inf:
        return max(squared_norm(row, dual(p)) for row in rows)
    largest = max(abs(a) for row in rows for a in row) or Fraction(1)
    matrix = torch.tensor([[float(a / largest) for a in row] for row in rows], dtype=torch.float64)
    v = [Fraction(a) for a in torch.linalg.svd(matrix).Vh[0].tolist()]
    image = [sum(a * b for a, b in zip(row, v, strict=True)) for row in rows]
    return squared_norm(image, 2.0) / squared_norm(v, 2.0)


def affine(seed: int, tally: Tally) -> None:
    """Affine classifiers, composed exactly: norms, steepness of pairs, margins, and radii against true distances."""
    draw = Draw(seed)
    network, inputs = affine_network(draw)
    rows, bias = composed(network, inputs)
    for p, q in PAIRS:
        bound = tally.asked(lambda p=p, q=q: lipschitz(network, p, q))
        if bound is not None:
            square = _operator_norm_squared(rows, p, q)
            tally.expect("bound", Fraction(bound.constant) ** 2 >= square, bound, "is at least √", square)
    p = draw.choice(NORMS)
    audited = audit(network)
    bound = tally.asked(lambda: bound_of(audited, p))
    if bound is None:
        return
    table = pair_sensitivity(audited, p, bound.sensitivity, len(rows))
    if len(rows) == 1:  # one logit is the pair of its halves
        rows, bias = [[-a / 2 for a in rows[0]], [a / 2 for a in rows[0]]], [-bias[0] / 2, bias[0] / 2]
    gaps = [[squared_norm([a - b for a, b in zip(one, other, strict=True)], dual(p)) for other in rows] for one in rows]
    for t, i in _pairs(len(rows)):
        steep = float(table[t, i])
        holds = math.isinf(steep) or Fraction(steep) ** 2 >= gaps[t][i]
        tally.expect("pair", holds, f"S[{t}, {i}] = {steep} in {p} is at least √", gaps[t][i])
    x = points(draw, network, (inputs,), 4)
    certificate = tally.asked(lambda: certify(network, x, p=p, progress=False))
    for point, radius, margin, t in [] if certificate is None else _certified(certificate, x):
        logits = [sum((w * a for w, a in zip(row, point, strict=True)), b) for row, b in zip(rows, bias, strict=True)]
        for i in set(range(len(rows))) - {t}:
            lead = logits[t] - logits[i]
            told = f"p={p}, class {t} against {i}, margin {margin}, radius {radius}, lead"
            tally.expect("margin", not margin > -math.inf or Fraction(margin) <= lead, told, lead)
            within = gaps[t][i] == 0 or (radius < math.inf and Fraction(radius) ** 2 * gaps[t][i] <= lead**2)
            tally.expect("radius", radius == 0 or (lead > 0 and within), told, lead)


def nests(seed: int, tally: Tally) -> None:
    """Sorting, clipping and residual nests: slopes between points, margins, and steps of the radius, in rationals."""
    draw = Draw(seed)
    network, inputs = nested_network(draw, smooth=False)
    _judge(draw, tally, network, (inputs,), Fraction(0))


def smooth(seed: int, tally: Tally) -> None:
    """The same with functions that are not rational, to 120 digits."""
    draw = Draw(seed)
    network, inputs = nested_network(draw, smooth=True)
    _judge(draw, tally, network, (inputs,), mpmath.mpf(0), hair=HAIR)


def pools(seed: int, tally: Tally) -> None:
    """Pooling of every kind over one to three axes, alone or before a classifier."""
    draw = Draw(seed)
    network, shape = pooled_network(draw)
    _judge(draw, tally, network, shape, Fraction(0))


def interpolants(seed: int, tally: Tally) -> None:
    """Functions through data: above the slopes of the data, and of the function between other points."""
    draw = Draw(seed)
    p, d, n, m = draw.choice(NORMS), draw.randint(1, 4), draw.randint(2, 7), draw.randint(1, 2)
    x = _samples(draw, n, d) * draw.choice((1.0, 1.0, 1e-100, 1e100, 1e-30))
    K = draw.choice((1.0, 3.0, 1e-20, 1e20))
    distance = torch.cdist(x, x[: max(1, n // 2)], p=p)
    y = torch.stack([(distance + draw.random() * distance.max()).amin(1) * K * 0.999 for _ in range(m)], 1)
    dense = draw.random() < 0.5
    h = tally.asked(lambda: lattice_interpolant(x, y, p, K, dense=dense))
    if h is None:
        return
    met = Fraction(float(y.abs().max())) / 2**40  # values are met up to their rounding
    for r, q in PAIRS:
        bound = tally.asked(lambda r=r, q=q: lipschitz(h, r, q))
        for i, j in [] if bound is None else _pairs(n):
            rise = max(abs(a) for a in _difference(y[i], y[j])) - met
            allowed = Fraction(bound.constant) ** 2 * squared_norm(_difference(x[i], x[j]), r)
            tally.expect("data", rise <= 0 or rise**2 <= allowed, bound, i, j, rise, "where it may by √", allowed)
    _judge(draw, tally, h, (d,), Fraction(0), scale=float(x.abs().max()))


def _samples(draw: Draw, n: int, d: int) -> Tensor:
    """Samples anywhere, on a grid, nearly the same, or apart in one coordinate by a number that may be flushed."""
    x, kind = draw.normal(n, d), draw.randrange(5)
    if kind == 0:
        x = x.round()
    elif kind == 1:
        x[1] = x[0] * (1 + 2.0**-45)
    elif kind == 2:
        x[:, -1] = x[:, -1].sign() * draw.choice((1e-310, 1e-120, 5e-324))
    return x


def _judge(
    draw: Draw,
    tally: Tally,
    network: nn.Module,
    shape: tuple[int, ...],
    zero: Any,
    hair: Fraction = Fraction(0),
    scale: float = 1.0,
) -> None:
    """Slopes of every proven pair, and the certificate in one norm, against exact values."""

    def exactly(point: Tensor) -> tuple[Values, Values]:
        values = [number(a, zero) for a in point.double().clamp(-MOST, MOST).flatten().tolist()]
        return values, run(network, values, shape)

    wide = copy.deepcopy(network).double()
    x = points(draw, network, shape, 2, scale)
    proven = set()
    for p, q in PAIRS:
        bound = tally.asked(lambda p=p, q=q: lipschitz(network, p, q))
        for point in [] if bound is None else x:
            proven.add(p)
            step = steepest(draw, wide, point, p, q) * draw.choice((1e-9, 1e-3, -1.0)) * scale
            (start, value), (end, other) = exactly(point), exactly(point.double() + step)
            rise = squared_norm([a - b for a, b in zip(value, other, strict=True)], q)
            run_ = squared_norm([a - b for a, b in zip(start, end, strict=True)], p)
            allowed = number(bound.constant, zero) ** 2 * run_
            told = bound, "rises by √", rise, "where it may by √", allowed
            tally.expect("slope", rise <= allowed * (1 + hair) + hair, *told)
    p = draw.choice(NORMS)
    if p in proven and not any(isinstance(module, LatticeInterpolant) for module in network.modules()):
        _certified_steps(draw, tally, network, x, exactly, p, hair)


def _certified_steps(
    draw: Draw, tally: Tally, network: nn.Module, x: Tensor, exactly: Callable[[Tensor], Any], p: float, hair: Fraction
) -> None:
    """Margins against exact leads, and no step within the radius takes the lead away."""
    certificate = tally.asked(lambda: certify(nn.Sequential(network, nn.Flatten()), x, p=p, progress=False))
    wide = copy.deepcopy(network).double()
    for (_, radius, margin, t), point in [] if certificate is None else zip(_certified(certificate, x), x, strict=True):
        start, value = exactly(point)
        lead = _lead(value, t)
        below = not margin > -math.inf or number(margin, start[0]) <= lead * (1 + hair) + hair
        tally.expect("margin", below, f"p={p}, {margin} of", lead)
        if not 0 < radius < MOST:
            continue
        for _ in range(2):
            end, other = exactly(point.double() + radius * towards(draw, wide, point, t, p))
            if squared_norm([a - b for a, b in zip(start, end, strict=True)], p) <= number(radius, start[0]) ** 2:
                tally.expect("radius", _lead(other, t) > 0, f"p={p}, radius {radius}, lead after it", _lead(other, t))


def _lead(logits: Values, t: int) -> Any:
    """y_t − max y_i; of one logit z, ±z."""
    if len(logits) == 1:
        return logits[0] if t else -logits[0]
    return logits[t] - max(value for i, value in enumerate(logits) if i != t)


def _certified(certificate: Certificate, x: Tensor) -> Iterator[tuple[Values, float, float, int]]:
    flat = [[Fraction(a) for a in row] for row in x.flatten(1).tolist()]
    columns = (certificate.radius, certificate.margin, certificate.prediction)
    return zip(flat, *(column.tolist() for column in columns), strict=True)


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(n) for j in range(n) if i != j)


def _difference(a: Tensor, b: Tensor) -> Values:
    return [Fraction(s) - Fraction(t) for s, t in zip(a.tolist(), b.tolist(), strict=True)]


FAMILIES: dict[str, tuple[Callable[[int, Tally], None], int]] = {
    "matrices": (matrices, 2500),
    "affine": (affine, 3000),
    "nests": (nests, 2000),
    "smooth": (smooth, 500),
    "pools": (pools, 1500),
    "interpolants": (interpolants, 500),
    "distances": (distances, 1000),
    "machines": (machines, 1000),
    "checkers": (checkers, 500),
    "kills": (kills, 51),
    "failures": (failures, 48),
    "blackouts": (blackouts, 24),
    "writers": (writers, 12),
}
"""Each family, and how many networks, pairs of samples, or commands are its in the long form."""
