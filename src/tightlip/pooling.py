"""Rules for torch's pooling: a bound follows from how many windows an entry lies in.

Along one axis, with kernel k, stride s and dilation d, window i reads the entries i·s + j·d, 0 ≤ j < k. An entry lies
in several windows if i·s + j·d is the same for several j; these are s/gcd(s, d) apart, so it lies in at most

    m = ⌈k / (s / gcd(s, d))⌉

of them, and in at most M = ∏m over all axes, whatever the padding and the size of the input. If each output is a
maximum, or a mean with weights ≥ 0 that sum to at most 1, it moves by at most the largest |Δx| in its window, so

    ∞→∞: 1      1→1: M      2→2: √M      (Σᵢ |Δyᵢ|^p ≤ Σᵢ Σ_{a in window i} |Δx_a|^p ≤ M·‖Δx‖_p^p).

`AvgPool` with one divisor D is linear: A has equal entries 1/D, and every norm has its closed form (`_average`).
All of these pool the last axes alone: an unbatched-looking input (batch, …) is still pooled example by example.
Proofs: docs/theory/audit.md.
"""

import math
from fractions import Fraction
from typing import Any

from torch import nn

from .audit import EXACT, Gains, Roundoff, rule
from .errors import TightlipError
from .linalg.rounding import round_up, sqrt_up
from .options import COUNT, FLAG, INTEGER, SIZE, Kind, optional, several
from .stored import brief

MaxPool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
AvgPool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
AdaptiveMaxPool = nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d
AdaptiveAvgPool = nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d


def _windows(axes: int) -> dict[str, Kind]:
    """Options of windows over so many axes: a number, or one for each."""
    sizes = several(SIZE, axes)
    return {"kernel_size": sizes, "stride": optional(sizes), "padding": several(COUNT, axes), "ceil_mode": FLAG}


def _max_options(axes: int) -> dict[str, Kind]:
    return _windows(axes) | {"dilation": several(SIZE, axes), "return_indices": FLAG}


def _average_options(axes: int) -> dict[str, Kind]:
    return _windows(axes) | {"count_include_pad": FLAG} | ({"divisor_override": optional(INTEGER)} if axes > 1 else {})


def _outputs(axes: int) -> dict[str, Kind]:
    return {"output_size": several(optional(SIZE), axes)}


@rule(nn.MaxPool1d, options=_max_options(1))
@rule(nn.MaxPool2d, options=_max_options(2))
@rule(nn.MaxPool3d, options=_max_options(3))
def _max_pool(module: MaxPool) -> Gains:
    _refuse_indices(module)
    kernel, stride = _kernel_and_stride(module)
    _per_axis(module, "padding", least=0)
    dilation = _per_axis(module, "dilation")
    steps = [s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True)]
    return _convex(_uses(kernel, steps), EXACT)


@rule(nn.AvgPool1d, options=_average_options(1))
@rule(nn.AvgPool2d, options=_average_options(2))
@rule(nn.AvgPool3d, options=_average_options(3))
def _avg_pool(module: AvgPool) -> Gains:
    kernel, stride = _kernel_and_stride(module)
    uses, size = _uses(kernel, stride), math.prod(kernel)
    divisor = getattr(module, "divisor_override", None)
    padded = any(_per_axis(module, "padding", least=0))
    if divisor is None and (module.ceil_mode or (padded and not module.count_include_pad)):
        # the divisor is the number of entries in the window, which may be as small as 1
        return _convex(uses, _sum_roundoff(size, _root(Fraction(uses))))
    if divisor is not None and (type(divisor) is not int or not 0 < abs(divisor) < 2**31):
        raise TightlipError(
            f"an average cannot be divided by {brief(divisor)}: give divisor_override=None or an integer ≠ 0 below 2³¹"
        )
    return _average(kernel, stride, abs(size if divisor is None else divisor))


def _average(kernel: list[int], stride: list[int], divisor: int) -> Gains:
    """A has entries 1/D: at most M in a column and n = ∏ k in a row, hence 1→q and p→∞ (docs/theory/audit.md).

    2→2: (AAᵀ)_{ij}·D² counts the entries that windows i and j share, at most ∏ max(k − |i − j|·s, 0), so each row sum
    of AAᵀ, and with it ‖A‖₂², is at most ∏ Σ_t max(k − |t|·s, 0) / D²; long inputs come as near as one likes.
    """
    size, uses, share = math.prod(kernel), _uses(kernel, stride), Fraction(1, divisor)
    shared = math.prod(_shared(k, s) for k, s in zip(kernel, stride, strict=True))
    spread = _root(shared * share**2)
    table: dict[tuple[float, float], Fraction | float] = {
        (1.0, 1.0): uses * share,
        (1.0, 2.0): _root(uses * share**2),
        (1.0, math.inf): share,
        (2.0, 2.0): spread,
        (2.0, math.inf): _root(size * share**2),
        (math.inf, math.inf): size * share,
    }
    return Gains(table, _sum_roundoff(size, spread))


@rule(nn.AdaptiveMaxPool1d, options=_outputs(1) | {"return_indices": FLAG})
@rule(nn.AdaptiveMaxPool2d, options=_outputs(2) | {"return_indices": FLAG})
@rule(nn.AdaptiveMaxPool3d, options=_outputs(3) | {"return_indices": FLAG})
def _adaptive_max_pool(module: AdaptiveMaxPool) -> Gains:
    _refuse_indices(module)
    return _convex(_adaptive_uses(module), EXACT)


@rule(nn.AdaptiveAvgPool1d, options=_outputs(1))
@rule(nn.AdaptiveAvgPool2d, options=_outputs(2))
@rule(nn.AdaptiveAvgPool3d, options=_outputs(3))
def _adaptive_avg_pool(module: AdaptiveAvgPool) -> Gains:
    uses = _adaptive_uses(module)
    # a mean of n errs by γ_{n+2}·mean|x| ≤ γ_{n+2}/√n·‖x in its window‖₂, and n is that of all inputs at most
    return _convex(uses, Roundoff(None, input=float(_root(Fraction(uses)))))


def _adaptive_uses(module: AdaptiveMaxPool | AdaptiveAvgPool) -> int:
    """An entry lies in at most all ∏ output_size windows, in all if it is alone; None leaves an axis as it is."""
    return math.prod(_per_axis(module, "output_size", absent=1))


def _convex(uses: int, roundoff: Roundoff) -> Gains:
    """Each output is a maximum or a mean, and each entry lies in at most M = ``uses`` windows."""
    often = Fraction(uses)
    return Gains({(math.inf, math.inf): Fraction(1), (1.0, 1.0): often, (2.0, 2.0): _root(often)}, roundoff)


def _shared(kernel: int, stride: int) -> int:
    """Σ_t max(k − |t|·s, 0): the terms are positive for |t| ≤ m = ⌊(k − 1)/s⌋."""
    most = (kernel - 1) // stride
    return kernel + 2 * most * kernel - stride * most * (most + 1)


def _sum_roundoff(size: int, spread: Fraction | float) -> Roundoff:
    """A sum of n terms and its division err by at most γ_{n+2}·(A|x|), whatever the order, and ‖A|x|‖₂ ≤ ‖A‖₂·‖x‖₂.

    What lies beyond the input is not added: n is at most the number of its entries, and no input has 2⁴⁰ (8 TiB).
    """
    return Roundoff(min(size, 2**40) + 2, input=1.01 * float(spread))


def _uses(kernel: list[int], steps: list[int]) -> int:
    return math.prod(-(-k // step) for k, step in zip(kernel, steps, strict=True))


def _root(square: Fraction) -> Fraction | float:
    """√square, exactly where it is a fraction, else rounded up."""
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    return root if root * root == square else sqrt_up(round_up(square))


def _kernel_and_stride(module: MaxPool | AvgPool) -> tuple[list[int], list[int]]:
    kernel = _per_axis(module, "kernel_size")
    return kernel, kernel if module.stride is None else _per_axis(module, "stride")


def _per_axis(module: nn.Module, option: str, absent: int | None = None, least: int = 1) -> list[int]:
    """An option as one number ≥ ``least`` per pooled axis; ``absent`` stands in for None."""
    kind, value = type(module).__name__, getattr(module, option)
    axes = int(kind[-2])  # MaxPool2d
    values = list(value) if isinstance(value, tuple | list) else [value]
    values = [absent if v is None else v for v in values * (axes if len(values) == 1 else 1)]
    if len(values) != axes or not all(type(v) is int and least <= v < 2**31 for v in values):
        wanted = f"an integer ≥ {least}, or {axes} of them, below 2³¹"
        raise TightlipError(f"{kind} has {option}={brief(value)}: give {wanted}")
    return values


def _refuse_indices(module: Any) -> None:
    if module.return_indices:
        raise TightlipError(
            "pooling with return_indices=True returns a pair, not a tensor: make it return_indices=False"
        )
