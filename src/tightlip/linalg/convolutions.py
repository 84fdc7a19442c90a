"""Proven upper bounds on operator norms of a convolution, for images of any size.

Everything is read from the polyphase kernel P (`geometry.polyphase`), of which the operator C on ℤᵈ is the
convolution of stride 1:

* Rows: an output reads every tap of its row once, so ‖C‖_{p→∞} is the largest p*-norm of a row of P.
* Columns: an input is read through the taps of its own residue class, so ‖C‖_{1→q} is the largest q-norm of a column
  of P, over rows and places.
* ‖C‖_{2→2} is the supremum of the symbol (`symbol_bounds`).

On an image the operator is R·C·E: E pads, R leaves outputs out. With zeros around, that is a part of C. With other
padding ‖E‖_{1→1} and ‖E‖_{2→2}² are the multiplicity of a pixel and ‖E‖_{∞→∞} = 1 (`pixel_multiplicity`), so that p→q
takes the factor of p→p. A circular convolution is also a part of the one without its stride, around the circle, for
which the p→p bounds of ℤ hold, with the multiplicity of rows instead (`row_multiplicity`); the smaller bound counts.
Around a small circle several taps meet in one pixel, so other pairs are not stated there. A transposed convolution is
the adjoint of the convolution with its weight: p→q of the one is q*→p* of the other.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from jaxtyping import Float, Float64
from torch import Tensor

from ..norms import PAIRS, dual
from .geometry import Geometry, grouped, pixel_multiplicity, polyphase, row_multiplicity
from .rounding import norm_above, normalize_exactly, round_up, scaled_up, sqrt_up
from .symbol_bounds import largest_at_any_frequency, smallest_at_any_frequency


def convolution_norm_bounds(
    weight: Float[Tensor, "out in *taps"], geometry: Geometry, pairs: Sequence[tuple[float, float]] = PAIRS
) -> dict[tuple[float, float], float]:
    """Proven upper bounds on ‖·‖_{p→q} of a convolution, from the stored entries, for images of every size.

    ``weight`` is laid out as torch's layers keep it; the bias plays no part. Pairs with p < q are left out for circular
    padding: ‖·‖_{p→p} and ‖·‖_{q→q} bound them.

    Raises:
        TightlipError: if the weights are not finite, or not of the shape that the geometry says.
    """
    stated = [(p, q) for p, q in pairs if p == q or not geometry.wraps]
    normalized, exponent = normalize_exactly(weight)
    kernel = grouped(normalized, geometry)
    if not kernel.any():
        return dict.fromkeys(stated, 0.0)
    parts = _containing(kernel, geometry)
    bounds = {}
    for p, q in stated:
        pair = (dual(q), dual(p)) if geometry.transposed else (p, q)
        bound = min(_repeated(_bound(phases, *pair), p, times) for phases, times in parts)
        bounds[p, q] = scaled_up(bound, exponent)
    return bounds


def smallest_singular_value_bound(
    weight: Float[Tensor, "out in *taps"], dilation: Sequence[int], groups: int = 1, stride: Sequence[int] | None = None
) -> float:
    """A proven lower bound on the singular values of a circular convolution, for images of every size.

    There are min(out, in·∏ strides) of them per output pixel and group: ‖Kx‖ ≥ σ‖x‖ where out is the larger, else
    ‖Kᵀy‖ ≥ σ‖y‖. The stride, 1 by default, must divide the image, and the output be as large as the image over the
    stride. Close for nearly orthonormal kernels; 0 where nothing is proven.

    Raises:
        TightlipError: if the weights are not finite, or not of this shape.
    """
    stride = (1,) * len(dilation) if stride is None else stride
    geometry = Geometry(stride, dilation, ((0, 0),) * len(dilation), groups)
    normalized, exponent = normalize_exactly(weight)
    phases = polyphase(grouped(normalized, geometry), stride, dilation)
    return -scaled_up(-smallest_at_any_frequency(phases), exponent) if phases.any() else 0.0


def _containing(kernel: Float64[Tensor, "groups rows columns *taps"], geometry: Geometry) -> list[tuple[Tensor, int]]:
    """Polyphase kernels of operators that contain the one on any image, each repeated so often."""
    taps = kernel.shape[3:]
    parts = [(polyphase(kernel, geometry.stride, geometry.dilation), pixel_multiplicity(geometry, taps))]
    if geometry.wraps:
        parts.append((polyphase(kernel, (1,) * len(taps), geometry.dilation), row_multiplicity(geometry, taps)))
    return parts if max(geometry.stride) > 1 else [min(parts, key=lambda part: part[1])]


def _repeated(bound: float, p: float, times: int) -> float:
    factor = {1.0: float(times), 2.0: sqrt_up(float(times)), math.inf: 1.0}[p]
    return bound if times == 1 else round_up(Fraction(bound) * Fraction(factor))


def _bound(phases: Float64[Tensor, "groups rows columns *places"], p: float, q: float) -> float:
    if p == q == 2:
        return largest_at_any_frequency(phases)
    vectors = phases.movedim(2, 1).flatten(2) if p == 1 else phases.flatten(2)
    return float(norm_above(vectors, q if p == 1 else dual(p), -1).max())
