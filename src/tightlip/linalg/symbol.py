"""The Gram symbol of a convolution: a Hermitian matrix at each frequency, definite where a factorization proves it.

For taps K_t the symbol is K̂(ω) = Σ_t K_t e^{i⟨ω,t⟩}. A convolution on ℤᵈ has the norm sup_ω ‖K̂(ω)‖, and on an image
with zeros around it is a part of that one. The squares of the singular values are the eigenvalues of

    G(ω) = K̂(ω)*K̂(ω) = Σ_τ G_τ e^{i⟨ω,τ⟩},    G_τ = Σ_t K_tᵀK_{t+τ} = G_{−τ}ᵀ

(or K̂K̂*, if that is smaller): a polynomial whose few coefficients are computed once. At one frequency it is the sum
of cos⟨ω,τ⟩(G_τ + G_τᵀ) and i·sin⟨ω,τ⟩(G_τ − G_τᵀ) over one of each pair ±τ.

**Rounding.** An entry of a coefficient is a sum of T·rows products, for T taps; then it is added to its transpose and
to L such terms, times a cosine that is off by at most phase = (6·Σ_a π n_a + 8)·u. So an entry of G(ω) is off by at
most (γ_{T·rows+L+8} + phase) times that of AᵀA, A = Σ_t|K_t|, in its real and in its imaginary part, and G(ω) in norm
by at most 2(γ + phase)·‖A‖₂², where ‖A‖₂² ≤ min(‖A‖_F², ‖A‖₁‖A‖_∞).

**Definiteness.** Let the Cholesky factorization of a Hermitian n×n matrix H succeed in floating point, with the
factor R. The real and the imaginary part of each entry of R*R − H are what is lost in a real sum of at most 2n
products of parts of entries of R, so H + Δ = R*R with |Δ_ij| ≤ 4γ_{2n+8} Σ_k |R_ki||R_kj|: √2 would do for products
of complex numbers as they are usually formed, 4 is enough for those that save one of the four real products. Hence
‖Δ‖ ≤ 4γ·‖R‖_F² ≤ 4γ/(1 − 4γ)·trace H, and no eigenvalue of H is below minus that. (For real matrices this is Theorem
10.5 of Higham, with γ_{n+1}; a real matrix [[X, −Y], [Y, X]] with the same eigenvalues would do as well, at twice the
work.)

The kernel is scaled until its largest entry is near 1. Then sup ‖G(ω)‖ ≥ ¼, and underflow takes nothing that counts.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex128, Float32, Float64, Int64
from torch import Tensor

from .frequencies import Cells
from .rounding import UNDERFLOW, UNIT_ROUNDOFF, gamma

ENTRIES = 2**19
"""Complex numbers in the matrices that are factored in one call: few enough for the cache."""


@dataclass(frozen=True)
class GramSymbol:
    """G(ω) of each group, by its coefficients; ``even`` and ``odd`` hold the matrices of cosines and sines, flat."""

    even: Float64[Tensor, "groups lags squares"]
    odd: Float64[Tensor, "groups lags squares"]
    lags: Float64[Tensor, "lags axes"]
    degrees: tuple[int, ...]
    error: float
    """How far a computed G(ω) may be from the true one, in norm."""

    @property
    def size(self) -> int:
        """Rows of G(ω)."""
        return math.isqrt(self.even.shape[-1])

    @property
    def mean(self) -> float:
        """About the mean of all eigenvalues, over all groups and frequencies."""
        return float(self.even[:, 0, :: self.size + 1].mean())

    def at(self, cells: Cells) -> Complex128[Tensor, "cells n n"]:
        """G in the middles of the cells, to within `error`."""
        return self._shifted(cells, 0.0, 1.0)

    def eigenvalues(self, cells: Cells) -> Float32[Tensor, "cells n"]:
        """Estimates of the eigenvalues of G − mean·I in the middles of the cells; nothing proven rests on them."""
        mean = self.mean
        return torch.cat(
            [torch.linalg.eigvalsh(self._shifted(part, -mean, 1.0).to(torch.complex64)) for part in self._parts(cells)]
        )

    def top_eigenvector(self, cell: Cells) -> Complex128[Tensor, " n"]:
        """About the eigenvector of the largest eigenvalue of G in the middle of one cell."""
        return (
            torch.linalg.eigh(self._shifted(cell, -self.mean, 1.0).to(torch.complex64))
            .eigenvectors[0, :, -1]
            .to(torch.complex128)
        )

    def quadratic_form(
        self, group: int, v: Complex128[Tensor, " n"]
    ) -> tuple[Float64[Tensor, " lags"], Float64[Tensor, " lags"]]:
        """Coefficients of the cosines and of the sines of v*G(ω)v."""
        even, odd = (table[group].unflatten(1, (self.size, -1)) for table in (self.even, self.odd))
        x, y = v.real, v.imag
        return (even @ x) @ x + (even @ y) @ y, -2.0 * (odd @ y) @ x

    def below(self, cells: Cells, level: float) -> Bool[Tensor, " cells"]:
        """Whether every eigenvalue of G in the middle of a cell is proven to be ≤ level + slack(level)."""
        return torch.cat([_definite(self._shifted(part, level, -1.0)) for part in self._parts(cells)])

    def above(self, cells: Cells, level: float) -> Bool[Tensor, " cells"]:
        """Whether every one is ≥ level − slack(h), where the same cells are `below` some h ≥ level ≥ 0."""
        return torch.cat([_definite(self._shifted(part, -level, 1.0)) for part in self._parts(cells)])

    def slack(self, level: float) -> float:
        """What rounding may hide: in G, in the shift and in the factorization.

        A matrix that passes has a positive diagonal, so no entry of it is more than level + error: level − G_ii for
        `below`, less than G_ii for `above`.
        """
        loss = 4.0 * gamma(2 * self.size + 8)
        trace = self.size * (level + self.error)
        return 1.01 * (self.error + 4.0 * UNIT_ROUNDOFF * level + loss / (1.0 - loss) * trace) + UNDERFLOW

    def _parts(self, cells: Cells) -> list[Cells]:
        return cells.parts(max(ENTRIES // max(self.size**2, len(self.lags)), 1))

    def _shifted(self, cells: Cells, shift: float, sign: float) -> Complex128[Tensor, "cells n n"]:
        """shift·I + sign·G in the middles of the cells."""
        frequencies, place = torch.unique_consecutive(cells.frequencies, dim=0, return_inverse=True)
        phases = frequencies @ self.lags.mT
        waves = phases.cos().mul_(sign), phases.sin().mul_(sign)
        result = torch.empty(len(cells), self.size, self.size, dtype=torch.complex128)
        parts = torch.view_as_real(result).flatten(1, 2).unbind(-1)
        for group, rows in self._rows(cells):
            for part, wave, table in zip(parts, waves, (self.even, self.odd), strict=True):
                part[rows] = wave[place[rows]] @ table[group]
        parts[0][:, :: self.size + 1] += shift
        return result

    def _rows(self, cells: Cells) -> list[tuple[int, Int64[Tensor, " rows"] | slice]]:
        """The groups that the cells belong to, and where."""
        if len(self.even) == 1:
            return [(0, slice(None))]
        order = cells.group.argsort(stable=True)
        counts = torch.bincount(cells.group, minlength=len(self.even)).tolist()
        return [(group, rows) for group, rows in enumerate(order.split(counts)) if len(rows)]


def gram_symbol(kernel: Float64[Tensor, "groups rows columns *places"]) -> GramSymbol:
    """The Gram symbol of a stride-1 convolution with finite entries of size ≤ 1, on the smaller side."""
    if kernel.shape[1] < kernel.shape[2]:
        kernel = kernel.transpose(1, 2)
    degrees = tuple(k - 1 for k in kernel.shape[3:])
    kernel = kernel.movedim(2, -1)  # groups, rows, places, columns
    lags = list(_half_of_the_lags(degrees))
    even, odd = [], []
    for lag in lags:
        product = _correlation(kernel, lag)
        even.append((product + product.mT if any(lag) else product).flatten(1))
        odd.append((product - product.mT).flatten(1))
    table = torch.tensor(lags, dtype=torch.float64)
    return GramSymbol(torch.stack(even, 1), torch.stack(odd, 1), table, degrees, _error(kernel, degrees, len(lags)))


def _error(kernel: Float64[Tensor, "groups rows *rest"], degrees: tuple[int, ...], lags: int) -> float:
    total = kernel.abs().flatten(2, -2).sum(2)  # groups, rows, columns
    squares = torch.minimum(total.square().sum((1, 2)), total.sum(1).amax(1) * total.sum(2).amax(1))
    products = kernel[0, ..., 0].numel()
    phase = (6.0 * math.pi * sum(degrees) + 8.0) * UNIT_ROUNDOFF
    return 2.02 * (gamma(products + lags + 8) + phase) * float(squares.amax()) + UNDERFLOW


def _half_of_the_lags(degrees: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Zero, then one of each pair ±τ with |τ_a| ≤ n_a."""
    zero = (0,) * len(degrees)
    yield zero
    yield from (lag for lag in itertools.product(*(range(-n, n + 1) for n in degrees)) if lag > zero)


def _correlation(kernel: Float64[Tensor, "groups rows *rest"], lag: tuple[int, ...]) -> Float64[Tensor, "groups n n"]:
    """Σ_t K_tᵀK_{t+τ} of each group; the columns are the last axis."""
    early, late = kernel, kernel
    for axis, step in enumerate(lag, start=2):
        length = kernel.shape[axis] - abs(step)
        early = early.narrow(axis, max(-step, 0), length)
        late = late.narrow(axis, max(step, 0), length)
    return early.flatten(1, -2).mT @ late.flatten(1, -2)


def _definite(hermitian: Complex128[Tensor, "cells n n"]) -> Bool[Tensor, " cells"]:
    return torch.linalg.cholesky_ex(hermitian).info == 0
