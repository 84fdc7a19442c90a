"""The functions of one number that activations are, in rationals or in 120 digits."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
from torch import nn

from tightlip import Abs, Scale

mpmath.mp.dps = 120


def number(value: float, like: Any) -> Any:
    """A float, exactly."""
    return Fraction(value) if isinstance(like, Fraction) else mpmath.mpf(value)


def _clipped(module: Any, a: Any) -> Any:
    return max(min(a, number(module.max_val, a)), number(module.min_val, a))


def _softplus(module: Any, a: Any) -> Any:
    beta = mpmath.mpf(module.beta)
    return max(a, 0) + mpmath.log1p(mpmath.exp(-abs(beta * a))) / beta


def _rrelu(module: Any, a: Any) -> Any:
    return a if a > 0 else a * (number(module.lower, a) + number(module.upper, a)) / 2


def _shrunk(module: Any, a: Any) -> Any:
    size = max(abs(a) - number(module.lambd, a), 0 * a)
    return size if a > 0 else -size


def _selu(_: Any, a: Any) -> Any:
    scale, alpha = (mpmath.mpf(s) for s in ("1.0507009873554804934193349852946", "1.6732632423543772848170429916717"))
    return scale * (a if a > 0 else alpha * mpmath.expm1(a))


def _gate(a: Any) -> Any:
    """min(max(a + 3, 0), 6)."""
    return min(max(a + 3, 0 * a), 6 + 0 * a)


def _leaky(module: Any, a: Any) -> Any:
    return a if a > 0 else number(module.negative_slope, a) * a


def _gelu(module: Any, a: Any) -> Any:
    if abs(a) > 60:  # either way within 1e-700 of ReLU, and beyond what mpmath's erfc takes
        return max(a, 0 * a)
    if module.approximate == "none":
        return a * mpmath.erfc(-a / mpmath.sqrt(2)) / 2
    return a * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (a + mpmath.mpf("0.044715") * a**3))) / 2


ELEMENTWISE: dict[type, Callable[[Any, Any], Any]] = {
    nn.Identity: lambda _, a: a,
    nn.Dropout: lambda _, a: a,
    nn.ReLU: lambda _, a: max(a, 0 * a),
    Abs: lambda _, a: abs(a),
    nn.Hardtanh: _clipped,
    nn.ReLU6: _clipped,
    nn.LeakyReLU: _leaky,
    Scale: lambda module, a: number(float(module.scale), a) * a,
    nn.Hardsigmoid: lambda _, a: _gate(a) / 6,
    nn.Hardswish: lambda _, a: a * _gate(a) / 6,
    nn.Softshrink: _shrunk,
    nn.RReLU: _rrelu,
    nn.Threshold: lambda module, a: max(a, number(module.threshold, a)),
    nn.Softplus: _softplus,
    nn.SELU: _selu,
    nn.CELU: lambda m, a: a if a > 0 else mpmath.mpf(m.alpha) * mpmath.expm1(a / mpmath.mpf(m.alpha)),
    nn.Mish: lambda _, a: a * mpmath.tanh(max(a, 0) + mpmath.log1p(mpmath.exp(-abs(a)))),
    nn.Tanhshrink: lambda _, a: a - mpmath.tanh(a),
    nn.Tanh: lambda _, a: mpmath.tanh(a),
    nn.Sigmoid: lambda _, a: 1 / (1 + mpmath.exp(-a)),
    nn.Softsign: lambda _, a: a / (1 + abs(a)),
    nn.LogSigmoid: lambda _, a: -mpmath.log1p(mpmath.exp(-a)),
    nn.SiLU: lambda _, a: a / (1 + mpmath.exp(-a)),
    nn.ELU: lambda module, a: a if a > 0 else mpmath.mpf(module.alpha) * mpmath.expm1(a),
    nn.GELU: _gelu,
}
