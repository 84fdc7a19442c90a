"""Proven bounds on the singular values of a symbol at all frequencies, from finitely many.

For a unit vector v, P(ω) = v*G(ω)v is a real trigonometric polynomial of degree n_a along axis a.

**Lemma** (M. Riesz, along a line). If |P − c| ≤ r everywhere and P(ω*) = c ± r, then for θ = Σ_a n_a|δ_a| ≤ π

    |P(ω* + δ) − P(ω*)| ≤ r(1 − cos θ).

*Proof.* Let δ_a = 2πk_a/N with integers k_a; other δ follow by continuity. s ↦ P(ω* + sk) is a polynomial in one
variable s of degree Σ n_a|k_a|, and δ is at s = 2π/N. There it is Riesz's lemma: a polynomial of degree n in [−1, 1]
that is 1 at 0 is at least cos ns for |ns| ≤ π. ∎

Let the cells with middles g and reach θ < π/2, together with their negatives, cover the torus; G(−ω) has the
eigenvalues of G(ω), since it is its conjugate. Let M = sup λ_max(G).

**Theorem 1** (centered). If all eigenvalues of all G(g) lie in [m − r, m + r], then those of all G(ω) lie in [m − ρ,
m + ρ] for ρ = r·sec θ. *Proof.* Let |v*G(ω*)v − m| be largest, R, over v and ω*. The lemma with c = m gives |v*G(g)v
− m| ≥ R cos θ in the middle of the cell of ω* (or of −ω*, with the conjugate of v). ∎

**Theorem 2** (by cells). Let ρ = B/2, or any ρ for which Theorem 1 holds. If for every cell, of whatever reach θ,

    λ_max(G(g)) ≤ B − ρ(1 − cos θ),

then M ≤ B. *Proof.* Let M = v*G(ω*)v. P lies between 0 and M, and between m − ρ and m + ρ; so with c half way between
its extremes the lemma holds for r ≤ M/2 and for r ≤ ρ, and λ_max(G(g)) ≥ P(g) ≥ M − r(1 − cos θ). For r ≤ ρ this is
all. For ρ = B/2 it says M(1 + cos θ)/2 ≤ B(1 + cos θ)/2. ∎

So cells in which nothing large is found are done with at once, and only those near the maximum are split. Theorem 1
is the choice for nearly orthonormal kernels: few cells are needed, and the excess is that of the kernel itself. B and
r come from estimates and grow until every cell is proven, so nothing rests on the estimates.
"""

import itertools
import math

import torch
from jaxtyping import Float64
from torch import Tensor

from .frequencies import Cells, covering
from .rounding import UNIT_ROUNDOFF, sqrt_up
from .spectral import operator_norm_bound
from .symbol import GramSymbol, gram_symbol

REACH = math.pi / 3.0
"""Reach of the first cells: 6 × 6 of them for a 3×3 kernel, and sec θ = 2."""

FINEST, COARSEST = 1.09e-3, 1.744e-2
"""How far a bound on M may stand above what is attained, in parts: the first, or four or sixteen times that.

Just enough for cells at the maximum with a reach of π/3 divided by 16, 8 or 4.
"""

WORK = 3e9
"""Cubes of matrix sizes (plus 16), summed over the cells of one level, above which a coarser tolerance is taken."""

STARTS = 3
"""Cells from whose middles a maximum is sought uphill."""


def largest_at_any_frequency(kernel: Float64[Tensor, "groups rows columns *places"]) -> float:
    """A proven upper bound on sup ‖K̂(ω)‖₂ over all frequencies and groups; the largest entry is between ½ and 1."""
    kernel = _along_axes(kernel)
    if kernel.dim() == 3:
        return max(operator_norm_bound(matrix, 2, 2) for matrix in kernel)
    gram = gram_symbol(kernel)
    cells = covering(gram.degrees, len(kernel), REACH)
    eigenvalues = gram.eigenvalues(cells).double() + gram.mean
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    spread = math.inf
    if 4.0 * (high - low) < high:
        middle, spread = _centered(gram, cells, low, high)
        if middle + spread <= high * (1.0 + FINEST):
            return sqrt_up((middle + spread) * (1.0 + 4.0 * UNIT_ROUNDOFF))
    likely = eigenvalues.amax(1).topk(min(STARTS, len(cells))).indices
    return sqrt_up(_by_cells(gram, cells, spread, _climbed(gram, cells.where(likely))))


def smallest_at_any_frequency(kernel: Float64[Tensor, "groups rows columns *places"]) -> float:
    """A proven lower bound on the min(rows, columns) singular values of K̂(ω), over all frequencies and groups.

    By Theorem 1: close for nearly orthonormal kernels, 0 for most others. The largest entry is between ½ and 1.
    """
    kernel = _along_axes(kernel)
    gram = gram_symbol(kernel if kernel.dim() > 3 else kernel[..., None])
    cells = covering(gram.degrees, len(kernel), REACH)
    eigenvalues = gram.eigenvalues(cells).double() + gram.mean
    middle, spread = _centered(gram, cells, float(eigenvalues.min()), float(eigenvalues.max()))
    square = (middle - spread) * (1.0 - 4.0 * UNIT_ROUNDOFF)
    return math.nextafter(math.sqrt(square), 0.0) if square > 0.0 else 0.0


def _along_axes(kernel: Tensor) -> Tensor:
    """Without the axes that have one place: the symbol does not change along them."""
    return kernel.squeeze(tuple(axis for axis in range(3, kernel.dim()) if kernel.shape[axis] == 1))


def _centered(gram: GramSymbol, cells: Cells, low: float, high: float) -> tuple[float, float]:
    """The m and ρ of Theorem 1, from estimates of the range; ρ = ∞ if that is not far from zero."""
    middle = (low + high) / 2.0
    radius = (high - low) / 2.0 * 1.0001 + gram.slack(high)
    pending = cells
    while len(pending):
        if not 0.0 < radius < middle / 2.0:
            return middle, math.inf
        proven = gram.below(pending, middle + radius) & gram.above(pending, middle - radius)
        pending = pending.where(~proven)
        reached, radius = radius, radius * 1.05
    rounded = reached + gram.slack(2.0 * middle)
    return middle, rounded / math.cos(cells.reach(gram.degrees)) * (1.0 + 8.0 * UNIT_ROUNDOFF)


def _by_cells(gram: GramSymbol, cells: Cells, spread: float, attained: float) -> float:
    """B of Theorem 2, a little above ``attained`` or more if that cannot be proven."""
    attained = max(attained, 0.25)  # some entry of the kernel is ½ or more
    tolerance, growth = FINEST, FINEST / 8.0
    bound = attained * (1.0 + tolerance)
    while True:
        gap = 2.0 * math.sin(cells.reach(gram.degrees) / 2.0) ** 2  # 1 − cos θ
        level = (bound - min(bound / 2.0, spread) * gap) * (1.0 - 4.0 * UNIT_ROUNDOFF) - gram.slack(bound)
        cells = cells.where(~gram.below(cells, level))
        if not len(cells):
            return bound
        if level > attained * (1.0 + tolerance / 4.0):  # more is attained than was known
            attained = max(attained, _climbed(gram, cells.where(slice(STARTS))))
            bound = max(bound * (1.0 + growth), attained * (1.0 + tolerance))
            growth *= 2.0  # however wrong the estimates are
        elif tolerance < COARSEST and len(cells) * 2.0 ** len(cells.half) * (gram.size + 16) ** 3 > WORK:
            tolerance *= 4.0
            bound = max(bound, attained * (1.0 + tolerance))
        else:
            cells = cells.split()


def _climbed(gram: GramSymbol, cells: Cells) -> float:
    """An estimate of the largest eigenvalue, uphill from the middles of cells: v for fixed ω, then ω for fixed v."""
    return max(_uphill(gram, cell) for cell in cells.parts(1))


def _uphill(gram: GramSymbol, cell: Cells) -> float:
    sides = (-1.0, -0.5, 0.0, 0.5, 1.0)
    moves = torch.tensor(list(itertools.product(sides, repeat=len(cell.half))), dtype=torch.float64)
    step, found = cell.half, 0.0
    for _ in range(8):
        waves = gram.quadratic_form(int(cell.group), gram.top_eigenvector(cell))
        place, before = cell.middle, found
        for scale in range(8):
            places = place + moves * step / 2.0**scale
            phases = places @ cell.frame @ gram.lags.mT
            values = phases.cos() @ waves[0] + phases.sin() @ waves[1]
            found, place = float(values.max()), places[values.argmax()][None]
        cell = Cells(cell.group, place, cell.half, cell.frame)
        step = step / 2.0
        if found <= before * (1.0 + 1e-6):
            break
    return found
