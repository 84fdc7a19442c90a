"""A proven 2-norm bound of matrices with elementwise functions between them, by one semidefinite matrix.

Let f(x) = W_L z_{L−1}, z_k = φ_k(W_k z_{k−1}), z₀ = x, where all slopes of φ_k lie in [α_k, β_k]. Of two inputs, with Δ
for differences and v_k = W_k·Δz_{k−1}, each unit has (Δz − α·v)(Δz − β·v) ≤ 0. So for any λ_k ≥ 0, one per unit,

    ‖Δx‖² − ‖Δf‖²/K²  ≥  ‖Δx‖² − ‖Δf‖²/K² + Σ_k Σ_units λ_k·(Δz_k − α_k·v_k)(Δz_k − β_k·v_k)  =  ΔzᵀMΔz,

and M ⪰ 0 proves ‖Δf‖ ≤ K·‖Δx‖. M is block tridiagonal, Λ_k = diag λ_k, Λ₀ = I:

    M_kk = Λ_k + α_{k+1}β_{k+1}·W_{k+1}ᵀΛ_{k+1}W_{k+1},    the last:    M_{L−1,L−1} = Λ_{L−1} − W_LᵀW_L/K²,
    M_{k−1,k} = −½(α_k + β_k)·W_kᵀΛ_k.

The λ may come from anywhere (`multipliers`); `proves` believes none. It measures each unit in a power of two, so that
its λ is in [½, 2), computes C near M, with ‖C − M‖₂ ≤ e, and asks for a Cholesky factor of C − s·I with

    s = e + γ_{n+1}/(1 − γ_{n+1})·trace(C) + what rounding takes from the diagonal.

Multipliers that couple units (off the diagonal of Λ) prove nothing: slopes of two units in [α, β] need not be alike.
Sources: Fazlyab et al. 2019 (LipSDP); Pauli et al. 2021 (why Λ is diagonal); Rump, "Verification of positive
definiteness" (BIT 2006). → docs/theory/audit.md
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .enclosure import Enclosure, Scales
from .rounding import UNDERFLOW, UNIT_ROUNDOFF, cholesky_error, gamma, round_up

Slopes = tuple[float, float]
"""The least and the largest slope of an elementwise function."""

LARGEST = 2.0**40
"""Of the entries of weights between well-chosen units, and of slopes; beyond, nothing is proven."""

LEAST = 2.0**-400
"""Of the size of an entry, so that its square is more than underflow can take."""


@dataclass(frozen=True)
class Alternation:
    """W_L φ_{L−1}(… φ₁(W₁ x)): matrices (out, in), each known up to its enclosure, and slopes between them."""

    weights: tuple[Enclosure, ...]
    slopes: tuple[Slopes, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """How many units each elementwise function acts on."""
        return tuple(len(weight.center) for weight in self.weights[:-1])

    @property
    def size(self) -> int:
        """Rows of M: inputs, and units."""
        return sum(weight.center.shape[1] for weight in self.weights)

    @property
    def unit(self) -> Fraction:
        """What K is divided by where each weight is divided by its 2^exponent, which is what multipliers speak of.

        A function with slopes in [α, β] keeps them when its input and its output are divided by one number.
        """
        return Fraction(2) ** sum(weight.exponent for weight in self.weights)


def proves(network: Alternation, multipliers: Sequence[Float64[Tensor, " units"]], constant: Fraction) -> bool:
    """Whether multipliers prove ‖f(x) − f(x')‖₂ ≤ constant·‖x − x'‖₂; False says only that they do not.

    Args:
        network: Its weights and slopes.
        multipliers: A number > 0 for each unit, of the network with each weight divided by its 2^exponent.
        constant: K, above 0.
    """
    square = (network.unit / constant) ** 2 if constant > 0 else Fraction(0)
    if not Fraction(UNDERFLOW) < square < 1 / Fraction(UNDERFLOW) or not _possible(network, multipliers):
        return False
    last = torch.full_like(network.weights[-1].center[:, 0], round_up(square))  # a larger 1/K² proves more
    layers = _in_units(network, [*multipliers, last])
    if layers is None:
        return False
    matrix, error = _matrix(layers)
    shift = error + cholesky_error(matrix) + 4.0 * UNIT_ROUNDOFF * float(matrix.diagonal().abs().max())
    matrix.diagonal().sub_(1.01 * shift + UNDERFLOW)
    factor, info = torch.linalg.cholesky_ex(matrix)
    return int(info) == 0 and bool(torch.isfinite(factor.diagonal()).all())


def _possible(network: Alternation, multipliers: Sequence[Tensor]) -> bool:
    fit = [tuple(m.shape) for m in multipliers] == [(width,) for width in network.widths]
    return (
        fit
        and all(bool((m >= UNDERFLOW).all() and (m <= 1.0 / UNDERFLOW).all()) for m in multipliers)
        and all(-LARGEST <= low <= high <= LARGEST for low, high in network.slopes)
    )


@dataclass(frozen=True)
class _Layer:
    """A weight between units in which its multipliers ``scaled`` are in [½, 2): |W − center| ≤ share·size.

    ``middle`` is ½(α + β), computed, and ``product`` αβ; of the last weight None and −1.
    """

    center: Float64[Tensor, "out in"]
    size: Float64[Tensor, "out in"]
    share: float
    scaled: Float64[Tensor, " out"]
    middle: float | None
    product: float

    def beside(self) -> tuple[Tensor, float]:
        """½(α + β)·WᵀΛ, the block above the diagonal but for its sign, and what it is off in the 2-norm."""
        assert self.middle is not None
        weighed = self.scaled * self.middle
        error = _together(self.share, 4 * UNIT_ROUNDOFF) * _norm(self.size, weighed.square())
        return (self.center * weighed.unsqueeze(1)).mT, error

    def gram(self) -> tuple[Tensor, float]:
        """αβ·WᵀΛW, and what it is off: |W|ᵀΛ|W| is positive semidefinite, so its trace is above its norm."""
        weighed = self.scaled * self.product
        share = _together(self.share, self.share, gamma(len(weighed) + 4))
        return self.center.mT @ (self.center * weighed.unsqueeze(1)), share * _norm(self.size, weighed.abs()) ** 2


def _norm(size: Float64[Tensor, "out in"], weights: Float64[Tensor, " out"]) -> float:
    """√(Σ wᵢ·sizeᵢⱼ²), up to rounding: the 1.01 of `proves` is above it."""
    return math.sqrt(float(weights @ size.square().sum(1)))


def _together(*shares: float) -> float:
    """Π (1 + εᵢ) − 1 for small shares, from above."""
    return 1.01 * sum(shares)


def _in_units(network: Alternation, multipliers: Sequence[Tensor]) -> list[_Layer] | None:
    """The layers between units of 2^−⌊e/2⌋ for λ = m·2^e: exact, since only exponents change."""
    slopes = [(0.5 * (low + high), low * high) for low, high in network.slopes]
    before, layers = np.zeros(network.weights[0].center.shape[1], dtype=np.int64), []
    for weight, numbers, (middle, product) in zip(network.weights, multipliers, [*slopes, (None, -1.0)], strict=True):
        exponents = np.frexp(numbers.numpy())[1].astype(np.int64) // 2
        moved = weight.scaled(_powers(exponents), (-1, 1)).scaled(_powers(-before), (1, -1))
        exponent = moved.exponent - weight.exponent
        if float(moved.size.max()) > math.ldexp(LARGEST, -max(exponent, -900)):
            return None
        center, size = (torch.from_numpy(np.ldexp(t.numpy(), max(exponent, -4000))) for t in (moved.center, moved.size))
        scaled = torch.from_numpy(np.ldexp(numbers.numpy(), -2 * exponents))
        layers.append(_Layer(center, size + LEAST, moved.share, scaled, middle, product))
        before = exponents
    return layers


def _powers(exponents: np.ndarray) -> Scales:
    return Scales(np.full(len(exponents), 0.5), exponents + 1, 0.0)


def _matrix(layers: Sequence[_Layer]) -> tuple[Float64[Tensor, "n n"], float]:
    """M between these units, computed, and above ‖computed − exact‖₂ but for a percent.

    Of the blocks on the diagonal the largest error counts, of those beside it at most twice the largest: every second
    pair of them is a block diagonal matrix of its own.
    """
    edges = [0, *itertools.accumulate(layer.center.shape[1] for layer in layers)]
    matrix = layers[0].center.new_zeros(edges[-1], edges[-1])
    on, off = [], [0.0]
    diagonal = [torch.ones_like(layers[0].center[0]), *(layer.scaled for layer in layers[:-1])]
    for k, layer in enumerate(layers):
        here, after = slice(edges[k], edges[k + 1]), slice(*edges[k + 1 : k + 3])
        block, error = layer.gram()
        matrix[here, here] = block + torch.diag(diagonal[k])
        on.append(error)
        if layer.middle is not None:
            block, error = layer.beside()
            matrix[here, after], matrix[after, here] = -block, -block.mT
            off.append(error)
    return matrix, max(on) + 2.0 * max(off)
