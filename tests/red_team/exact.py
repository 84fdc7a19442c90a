"""What networks really compute: every layer again, in rationals (or in 120 digits where a function is not rational).

Nothing here is shared with the library: sums and sorting are Python's, pooling is written out window by window.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
from torch import Tensor, nn

from tightlip import Abs, GroupSort, Householder, Maxout, Normalize, Residual, Scale
from tightlip.constructions.interpolant import LatticeInterpolant

mpmath.mp.dps = 120

Values = list[Any]
"""The entries of one input in order, as `Fraction` or ``mpf``."""


def number(value: float, like: Any) -> Any:
    """A float, exactly."""
    return Fraction(value) if isinstance(like, Fraction) else mpmath.mpf(value)


def squared_norm(v: Sequence[Any], p: float) -> Any:
    """‖v‖_p², which is rational where v is."""
    sizes = [abs(a) for a in v]
    return {1.0: lambda: sum(sizes) ** 2, 2.0: lambda: sum(a * a for a in sizes), math.inf: lambda: max(sizes) ** 2}[
        p
    ]()


def run(module: nn.Module, v: Values, shape: tuple[int, ...] | None = None) -> Values:
    """The outputs of a module at one input, given flat; ``shape`` is (channels, …), without the batch."""
    return _run(module, list(v), shape or (len(v),))[0]


def _run(module: nn.Module, v: Values, shape: tuple[int, ...]) -> tuple[Values, tuple[int, ...]]:
    if type(module) is nn.Sequential:
        for layer in module:
            v, shape = _run(layer, v, shape)
        return v, shape
    if type(module) is Residual:
        inner, after = _run(module.f, v, shape)
        assert after == shape
        return [(a + b) / 2 for a, b in zip(v, inner, strict=True)], shape
    if type(module) is nn.Flatten:
        return v, (len(v),)
    if type(module) is nn.Linear:
        return _linear(module, v), (len(module.weight),)
    if type(module) is Normalize:
        return _normalized(module, v, shape), shape
    if type(module) is LatticeInterpolant:
        return _interpolated(module, v), (module.values.shape[1],)
    if isinstance(module, GroupSort | Maxout):
        return _sorted(module, v)
    if type(module) is Householder:
        return _reflected(module, v), shape
    if "Pool" in type(module).__name__:
        return _pooled(module, v, shape)
    return [_ELEMENTWISE[type(module)](module, a) for a in v], shape


def _linear(module: nn.Linear, v: Values) -> Values:
    biases = [0.0] * len(module.weight) if module.bias is None else module.bias.tolist()
    return [
        sum((number(w, v[0]) * a for w, a in zip(row, v, strict=True) if w), number(bias, v[0]))
        for row, bias in zip(module.weight.tolist(), biases, strict=True)
    ]


def _normalized(module: Normalize, v: Values, shape: tuple[int, ...]) -> Values:
    each = math.prod(shape[1:])

    def held(tensor: Tensor, i: int) -> Any:
        numbers = tensor.flatten().tolist()
        return number(numbers[i // each if len(numbers) > 1 else 0], v[0])

    return [(a - held(module.mean, i)) / held(module.std, i) for i, a in enumerate(v)]


def _sorted(module: GroupSort | Maxout, v: Values) -> tuple[Values, tuple[int, ...]]:
    size = module.group_size or len(v)
    if isinstance(module, Maxout):
        found = [max(v[i : i + size]) for i in range(0, len(v), size)]
        return found, (len(found),)
    stride = 1 if module.contiguous else len(v) // size
    result: Values = [None] * len(v)
    for group in range(len(v) // size):
        first = group * size if module.contiguous else group
        places = [first + stride * k for k in range(size)]
        for place, value in zip(places, sorted(v[place] for place in places), strict=True):
            result[place] = value
    return result, (len(v),)


def _reflected(module: Householder, v: Values) -> Values:
    found = []
    for angle, a, b in zip(module.angle.tolist(), v[::2], v[1::2], strict=True):
        s, c = mpmath.sin(mpmath.mpf(angle) / 2), -mpmath.cos(mpmath.mpf(angle) / 2)
        below = 2 * min(s * a + c * b, 0)
        found += [a - below * s, b - below * c]
    return found


def _interpolated(module: LatticeInterpolant, v: Values) -> Values:
    points = [[number(a, v[0]) for a in row] for row in module.points.tolist()]
    values = [[number(a, v[0]) for a in row] for row in module.values.tolist()]
    samples = range(len(points))
    return [max(_least(points, list(y), i, v, module.p) for i in samples) for y in zip(*values, strict=True)]


def _least(points: list[Values], y: Values, i: int, v: Values, p: float) -> Any:
    """min_j f_ij(v) over the j whose point is another one."""
    found = []
    for j, other in enumerate(points):
        d = [a - b for a, b in zip(points[i], other, strict=True)]
        if not any(d):
            continue
        shift = [a - b for a, b in zip(v, points[i], strict=True)]
        if p == 1:
            along = sum(((a > 0) - (a < 0)) * s for a, s in zip(d, shift, strict=True)) / sum(map(abs, d))
        elif p == 2:
            along = sum(a * s for a, s in zip(d, shift, strict=True)) / sum(a * a for a in d)
        else:
            k = max(range(len(d)), key=lambda k: abs(d[k]))
            along = shift[k] / d[k]
        found.append(y[i] + (y[i] - y[j]) * along)
    return min(found)


def _pooled(module: nn.Module, v: Values, shape: tuple[int, ...]) -> tuple[Values, tuple[int, ...]]:
    axes = int(type(module).__name__[-2])
    assert len(shape) == axes + 1
    windows = [_windows(module, axis, n) for axis, n in enumerate(shape[1:])]
    after = (shape[0], *map(len, windows))
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    found = []
    for channel in range(shape[0]):
        for combination in itertools.product(*windows):
            reads = itertools.product(*(places for places, _ in combination))
            entries = [
                v[channel * strides[0] + sum(i * s for i, s in zip(at, strides[1:], strict=True))] for at in reads
            ]
            found.append(_pool(module, entries, math.prod(size for _, size in combination)))
    return found, after


def _pool(module: nn.Module, entries: Values, size: int) -> Any:
    if "Max" in type(module).__name__:
        return max(entries)
    if "Adaptive" in type(module).__name__:
        return sum(entries) / len(entries)
    override = getattr(module, "divisor_override", None)
    return sum(entries) / (override or (size if module.count_include_pad else len(entries)))


def _windows(module: nn.Module, axis: int, n: int) -> list[tuple[list[int], int]]:
    """For each window along one axis: the entries that it reads, and its size with padding."""
    if "Adaptive" in type(module).__name__:
        count = _option(module.output_size, axis) or n
        bounds = [(i * n // count, -((i + 1) * n // -count)) for i in range(count)]
        return [(list(range(a, b)), b - a) for a, b in bounds]
    k, pad = _option(module.kernel_size, axis), _option(module.padding, axis)
    s, d = _option(module.stride, axis), _option(getattr(module, "dilation", 1), axis)
    over = n + 2 * pad - d * (k - 1) - 1
    count = (-(over // -s) if module.ceil_mode else over // s) + 1
    if module.ceil_mode and (count - 1) * s >= n + pad:
        count -= 1  # a window must not start in the padding at the end
    found = []
    for start in (i * s - pad for i in range(count)):
        reads = [start + j * d for j in range(k)]
        found.append(([place for place in reads if 0 <= place < n], min(start + k, n + pad) - start))
    return found


def _option(value: Any, axis: int) -> int:
    return value[axis] if isinstance(value, tuple | list) else value


def _clipped(module: Any, a: Any) -> Any:
    return max(min(a, number(module.max_val, a)), number(module.min_val, a))


def _leaky(module: Any, a: Any) -> Any:
    return a if a > 0 else number(module.negative_slope, a) * a


def _gelu(module: Any, a: Any) -> Any:
    if abs(a) > 60:  # either way within 1e-700 of ReLU, and beyond what mpmath's erfc takes
        return max(a, 0 * a)
    if module.approximate == "none":
        return a * mpmath.erfc(-a / mpmath.sqrt(2)) / 2
    return a * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (a + mpmath.mpf("0.044715") * a**3))) / 2


_ELEMENTWISE: dict[type, Callable[[Any, Any], Any]] = {
    nn.Identity: lambda _, a: a,
    nn.Dropout: lambda _, a: a,
    nn.ReLU: lambda _, a: max(a, 0 * a),
    Abs: lambda _, a: abs(a),
    nn.Hardtanh: _clipped,
    nn.ReLU6: _clipped,
    nn.LeakyReLU: _leaky,
    Scale: lambda module, a: number(float(module.scale), a) * a,
    nn.Tanh: lambda _, a: mpmath.tanh(a),
    nn.Sigmoid: lambda _, a: 1 / (1 + mpmath.exp(-a)),
    nn.Softsign: lambda _, a: a / (1 + abs(a)),
    nn.LogSigmoid: lambda _, a: -mpmath.log1p(mpmath.exp(-a)),
    nn.SiLU: lambda _, a: a / (1 + mpmath.exp(-a)),
    nn.ELU: lambda module, a: a if a > 0 else mpmath.mpf(module.alpha) * mpmath.expm1(a),
    nn.GELU: _gelu,
}
