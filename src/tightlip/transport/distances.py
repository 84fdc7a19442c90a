"""Distances ‖x_i − y_j‖_p by differences, and least sums with prices, with a proven bound on their rounding.

A distance by differences errs by a share γ_{d+4} of itself (Higham, *Accuracy and Stability of Numerical Algorithms*,
§3.1), whatever the offset of the data. Matrix products are several times as fast, and err by a share of the squared
*size* of the data; here they only tell which pairs need no second look, and differences decide between the others.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from ..errors import TightlipError
from ..linalg.comparators import is_batched
from ..linalg.rounding import UNDERFLOW, UNIT_ROUNDOFF, gamma, norm_above

PIECE = 2**20
"""Most numbers of a temporary array."""

LOST = math.sqrt(UNDERFLOW)
"""More than underflow can take from a norm of numbers near 1."""

FARTHEST = 2.0**200
"""Larger coordinates are refused; their squares and sums must not overflow."""

FEW = 8
"""Up to so many dimensions differences are as fast as products."""

LEAST_ROWS = 40
"""Products with fewer rows take longer for each."""

GROUPED = range(5, 33)
"""Of how many numbers the least is taken before k are chosen: the root of m/k, but not fewer than pay, nor more."""

CLOSE_CALLS = 16
"""Pairs for each row that are looked at again, on average; beyond that all are."""


def distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], p: float) -> Float[Tensor, "n m"]:
    """‖x_i − y_j‖_p of all pairs, by differences: zero exactly where points are the same."""
    return torch.cdist(x, y, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def pair_distances(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"], i: Int[Tensor, " k"], j: Int[Tensor, " k"], p: float
) -> Float64[Tensor, " k"]:
    """‖x_i − y_j‖_p of these pairs, by differences."""
    size = max(1, PIECE // x.shape[1])
    pieces = zip(i.split(size), j.split(size), strict=True)
    found = [torch.linalg.vector_norm(x[a] - y[b], p, dim=1) for a, b in pieces]
    return torch.cat(found) if found else x.new_empty(0)


def distance_error(d: int) -> float:
    """The share of itself by which a distance in d dimensions can err; `LOST` comes on top."""
    return 2.0 * gamma(d + 4)


def smallest(values: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """The k least of each row, ascending, and where they are: what `torch.topk` finds, in a fifth of the time at best.

    The k groups with the least minima hold k numbers that are not above the k-th of these minima, and what is in no
    such group is not below it.
    """
    size = min(math.isqrt(values.shape[1] // k), GROUPED[-1])
    if size not in GROUPED:
        return values.topk(k, 1, largest=False)
    groups = values.shape[1] // size
    grouped = values[:, : groups * size].unflatten(1, (size, groups))
    chosen = grouped.amin(1).topk(k, 1, largest=False, sorted=False).indices
    places = (torch.arange(size, device=values.device)[:, None] * groups + chosen[:, None]).flatten(1)
    rest = torch.arange(groups * size, values.shape[1], device=values.device).expand(len(values), -1)
    places = torch.cat((places, rest), 1)
    least, found = values.gather(1, places).topk(k, 1, largest=False)
    return least, places.gather(1, found)


def length_below(vector: Float64[Tensor, " d"], error: Float64[Tensor, " d"], p: float) -> Fraction:
    """At most the p-norm of any vector that is within ``error`` of this one, entry by entry."""
    length = Fraction(float(torch.linalg.vector_norm(vector, p))) * (1 - Fraction(distance_error(len(vector))))
    return length - Fraction(float(norm_above(error, p, 0))) - Fraction(LOST)


def steepest(vector: Float64[Tensor, " d"], p: float) -> Float64[Tensor, " d"]:
    """The u with ⟨u, v⟩ = ‖v‖_p and dual norm 1; zero for v = 0."""
    if p == 1:
        return vector.sign()
    if p == 2:
        return torch.nn.functional.normalize(vector, dim=0)
    place = vector.abs().argmax(0, keepdim=True)
    return torch.zeros_like(vector).scatter(0, place, vector[place].sign())


def least_sums(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    prices: Float64[Tensor, " m"],
    p: float,
    block: int = PIECE,
) -> tuple[Float64[Tensor, " n"], float]:
    """min_j(‖x_i − y_j‖_p + p_j) for each x_i, and a bound on the error of each.

    **Theorem.** Each value v̂ is within 2γ_{d+8}·(max|v̂| + max|p|) + `LOST` of the true one v.

    *Proof.* A computed distance D̂ is within γ_{d+4}·D̂ of D, and the sum ŝ = fl(D̂ + p_j) within u|ŝ| of D̂ + p_j. So
    D + p_j ≥ (1 − γ)(D̂ + p_j) + γ·p_j ≥ ŝ − γ_{d+8}·(|ŝ| + |p_j|), which grows with ŝ and is least for the smallest
    one, but for γ·|p_j| ≤ γ·max|p|; the winner itself bounds v from above. Pairs that were passed over have D + p_j ≥ v̂
    by the lower bound of `_close_calls`. ∎

    Args:
        x: Float64, coordinates below 2²⁰⁰; scale them near 1, or `LOST` counts.
        y: Likewise.
        prices: Float64.
        p: 1, 2 or ∞.
        block: About how many numbers an array holds that is made on the way; at least 40 rows of m.

    Raises:
        TightlipError: for numbers that are too large, NaN or infinite.
    """
    largest = [float(values.abs().max()) if len(values) else 0.0 for values in (x, y, prices)]
    if not all(size <= FARTHEST for size in largest):
        raise TightlipError(f"coordinates and prices must be finite and below 2²⁰⁰, got {largest}: scale them")
    pieces = _by_products if p == 2 and x.shape[1] > FEW and len(y) > 64 else _by_differences
    values = torch.zeros(len(x), dtype=torch.float64)
    for part, found in pieces(x, y, prices, p, block):
        values[part] = found
    return values, 2.0 * gamma(x.shape[1] + 8) * (max(map(abs, values.tolist()), default=0.0) + largest[2]) + LOST


def nearest(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], prices: Float[Tensor, " m"], p: float
) -> Int64[Tensor, " n"]:
    """The j with the least ‖x_i − y_j‖_p + p_j for each x_i, shape (n,), as differences have it but for rounding.

    In more than a few dimensions products in float64 tell which sums are close, and differences decide, several times
    as fast. Of numbers that these cannot hold, differences decide alone. Memory is bounded.
    """
    products = p == 2 and x.shape[1] > FEW and len(x) > 0 and is_usual(x)
    if products and all(bool(values.abs().max() <= FARTHEST) for values in (x, y, prices)):
        wide = x.double(), y.double(), prices.double()
        parts = [_decided(x, *wide[1:], sums, slack) for _, x, sums, slack in _approximate(*wide, PIECE)]
    else:
        rows = x.split(max(1, PIECE // len(y)))
        parts = [distances(part, y, p).add_(prices).argmin(1) for part in rows]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long, device=x.device)


def is_usual(x: Tensor) -> bool:
    """Whether what is computed may depend on numbers: not in a compiled or batched function, and not on a GPU."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not is_batched(x)


def _by_differences(
    x: Tensor, y: Tensor, prices: Tensor, p: float, block: int
) -> Iterator[tuple[slice, Float64[Tensor, " b"]]]:
    size = max(1, block // len(y))
    for first in range(0, len(x), size):
        part = slice(first, first + size)
        yield part, distances(x[part], y, p).add_(prices).amin(1)


def _by_products(
    x: Tensor, y: Tensor, prices: Tensor, p: float, block: int
) -> Iterator[tuple[slice, Float64[Tensor, " b"]]]:
    """The pair that looks best is measured, then every pair whose lower bound is not above it."""
    for part, rows, sums, slack in _approximate(x, y, prices, block):
        yield part, _measured(rows, y, prices, sums, slack)


def _approximate(
    x: Tensor, y: Tensor, prices: Tensor, block: int
) -> Iterator[tuple[slice, Tensor, Float64[Tensor, "b m"], Float64[Tensor, "b 1"]]]:
    """Rows of x, part by part, with what `_close_calls` says of them; the same memory for all parts."""
    center = y.mean(0)
    y_moved = y - center
    y_squares = y_moved.square().sum(1)
    radius, highest = float(y_squares.max().sqrt()), float(prices.abs().max())
    size = max(LEAST_ROWS, block // len(y))
    buffer = torch.empty(min(size, len(x)), len(y), dtype=torch.float64)
    for first in range(0, len(x), size):
        part = slice(first, first + size)
        sums, slack = _close_calls(x[part] - center, y_moved, y_squares, radius, prices, highest, buffer)
        yield part, x[part], sums, slack


def _close_calls(
    x: Tensor, y: Tensor, y_squares: Tensor, radius: float, prices: Tensor, highest: float, buffer: Tensor
) -> tuple[Float64[Tensor, "b m"], Float64[Tensor, "b 1"]]:
    """Sums Ŝ and slack with ‖x − y_j‖₂ + p_j ≥ Ŝ_j − slack.

    Let R = ‖x‖ + max‖y‖ of the moved points. Moving them rounds by u·R at most; the computed ‖x‖² + ‖y‖² − 2⟨x, y⟩ is
    within γ_{d+8}·R² of the square of the distance between them, which is at most R. So with E = γ_{d+16}·R² what is
    left after E is taken away is not above the square of the true distance, its own rounding included. The root, the
    sum and the prices round by less than 4u·(R + max|p|).
    """
    x_squares = x.square().sum(1, keepdim=True)
    reach = (x_squares.sqrt() + radius) * (1.0 + gamma(x.shape[1] + 8))
    taken = gamma(x.shape[1] + 24) * reach.square() + UNDERFLOW
    sums = torch.addmm(y_squares, x, y.mT, alpha=-2, out=buffer[: len(x)])
    sums.add_(x_squares - taken).clamp_(min=0).sqrt_().add_(prices)
    return sums, 8.0 * UNIT_ROUNDOFF * (reach + highest) + LOST


def _measured(x: Tensor, y: Tensor, prices: Tensor, sums: Tensor, slack: Tensor) -> Float64[Tensor, " b"]:
    """The least sum by differences of each row, whose other sums are known from below."""
    looked = _second_looks(x, y, prices, sums, slack)
    if looked is None:
        return distances(x, y, 2.0).add_(prices).amin(1)
    i, _, found = looked
    return found.new_full((len(x),), torch.inf).scatter_reduce(0, i, found, "amin")


def _decided(x: Tensor, y: Tensor, prices: Tensor, sums: Tensor, slack: Tensor) -> Int64[Tensor, " b"]:
    """Which sum that is."""
    looked = _second_looks(x, y, prices, sums, slack)
    if looked is None:
        return distances(x, y, 2.0).add_(prices).argmin(1)
    i, j, found = looked
    least = found == found.new_full((len(x),), torch.inf).scatter_reduce(0, i, found, "amin")[i]
    return torch.empty(len(x), dtype=torch.long).index_put_((i[least],), j[least])


def _second_looks(
    x: Tensor, y: Tensor, prices: Tensor, sums: Tensor, slack: Tensor
) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"], Float64[Tensor, " k"]] | None:
    """Rows, columns and sums by differences of the pairs that may be the least, each row's best by products among them.

    None where there are too many.
    """
    best = smallest(sums, 1)[1][:, 0]
    value = pair_distances(x, y, torch.arange(len(x)), best, 2.0) + prices[best]
    i, j = (sums <= value[:, None] + slack).nonzero(as_tuple=True)
    if len(i) > CLOSE_CALLS * len(x):
        return None
    i, j = torch.cat((torch.arange(len(x)), i)), torch.cat((best, j))
    return i, j, torch.cat((value, pair_distances(x, y, i[len(x) :], j[len(x) :], 2.0) + prices[j[len(x) :]]))
