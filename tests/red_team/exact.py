"""What networks really compute: every layer again, in rationals (or in 120 digits where a function is not rational).

Nothing here is shared with the library: sums and sorting are Python's, pooling is written out window by window.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import torch
from red_team.elementwise import ELEMENTWISE, number
from torch import Tensor, nn

from tightlip import FullSort, GroupSort, Householder, MaxMin, Maxout, Normalize, Residual
from tightlip.constructions.interpolant import LatticeInterpolant

Values = list[Any]
"""The entries of one input in order, as `Fraction` or ``mpf``."""


def squared_norm(v: Sequence[Any], p: float) -> Any:
    """‖v‖_p², which is rational where v is."""
    sizes = [abs(a) for a in v]
    if p == 2:
        return sum(a * a for a in sizes)
    return (sum(sizes) if p == 1 else max(sizes)) ** 2


def run(module: nn.Module, v: Values, shape: tuple[int, ...] | None = None) -> Values:
    """The outputs of a module at one input, given flat; ``shape`` is (channels, …), without the batch."""
    return _run(module, list(v), shape or (len(v),))[0]


def composed(
    network: nn.Module, inputs: int, shape: tuple[int, ...] | None = None
) -> tuple[list[list[Fraction]], list[Fraction]]:
    """An affine network as a matrix, by its rows, and a bias."""
    bias = run(network, [Fraction(0)] * inputs, shape)
    units = [[Fraction(int(k == i)) for k in range(inputs)] for i in range(inputs)]
    columns = [[a - b for a, b in zip(run(network, unit, shape), bias, strict=True)] for unit in units]
    return [list(row) for row in zip(*columns, strict=True)], bias


def _run(module: nn.Module, v: Values, shape: tuple[int, ...]) -> tuple[Values, tuple[int, ...]]:
    if type(module) is nn.Sequential:
        for layer in module:
            v, shape = _run(layer, v, shape)
        return v, shape
    if "Pool" in type(module).__name__:
        return _pooled(module, v, shape)
    if type(module) in MOVES:
        return _moved(module, v, shape)
    if type(module) in ELEMENTWISE:
        return [ELEMENTWISE[type(module)](module, a) for a in v], shape
    found = _WHOLE[type(module)](module, v, shape)
    return found, shape if len(found) == len(v) and type(module) is not nn.Flatten else (len(found),)


def _halfway(module: Residual, v: Values, shape: tuple[int, ...]) -> Values:
    inner, after = _run(module.f, v, shape)
    assert after == shape
    return [(a + b) / 2 for a, b in zip(v, inner, strict=True)]


def _linear(module: nn.Linear, v: Values, _: Any) -> Values:
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


MOVES = (
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.CircularPad1d, nn.CircularPad2d),
    *(nn.PixelUnshuffle, nn.PixelShuffle, nn.ChannelShuffle, nn.Upsample, nn.Unflatten),
)
"""Layers that copy entries, and constants of their own."""


def _moved(module: nn.Module, v: Values, shape: tuple[int, ...]) -> tuple[Values, tuple[int, ...]]:
    """Where each output comes from, is read off two inputs of integers; what is the same in both is a constant."""
    count = torch.arange(len(v), dtype=torch.float64).reshape(1, *shape)
    once, again = module(count), module(count + len(v))
    found = [
        number(a, v[0]) if a == b else v[int(a)]
        for a, b in zip(once.flatten().tolist(), again.flatten().tolist(), strict=True)
    ]
    return found, tuple(once.shape[1:])


def _batch_normalized(module: nn.BatchNorm1d, v: Values, _: Any) -> Values:
    weight, bias = (
        (module.weight, module.bias) if module.affine else (torch.ones_like(module.running_var), torch.zeros(1))
    )
    bias = bias.expand_as(weight)
    columns = [column.tolist() for column in (module.running_mean, module.running_var, weight, bias)]
    each = len(v) // module.num_features
    rows = [[mpmath.mpf(x) for x in row] for row in zip(*columns, strict=True)]
    eps = mpmath.mpf(module.eps)
    return [
        (a - mean) / mpmath.sqrt(var + eps) * weight + bias
        for a, (mean, var, weight, bias) in ((a, rows[i // each]) for i, a in enumerate(v))
    ]


def _softmax(module: nn.Softmax | nn.Softmin, v: Values, _: Any) -> Values:
    sign = 1 if type(module) is nn.Softmax else -1
    powers = [mpmath.exp(sign * a) for a in v]
    return [power / sum(powers) for power in powers]


def _largest(module: Maxout, v: Values, _: Any) -> Values:
    return [max(v[i : i + module.group_size]) for i in range(0, len(v), module.group_size)]


def _sorted(module: GroupSort, v: Values, _: Any) -> Values:
    size = module.group_size or len(v)
    stride = 1 if module.contiguous else len(v) // size
    result: Values = [None] * len(v)
    for group in range(len(v) // size):
        first = group * size if module.contiguous else group
        places = [first + stride * k for k in range(size)]
        for place, value in zip(places, sorted(v[place] for place in places), strict=True):
            result[place] = value
    return result


def _sloped(module: nn.PReLU, v: Values, _: Any) -> Values:
    slopes = [number(w, v[0]) for w in module.weight.tolist()]
    return [a if a > 0 else slopes[i % len(slopes)] * a for i, a in enumerate(v)]


def _reflected(module: Householder, v: Values, _: Any) -> Values:
    found = []
    for angle, a, b in zip(module.angle.tolist(), v[::2], v[1::2], strict=True):
        s, c = mpmath.sin(mpmath.mpf(angle) / 2), -mpmath.cos(mpmath.mpf(angle) / 2)
        below = 2 * min(s * a + c * b, 0)
        found += [a - below * s, b - below * c]
    return found


def _interpolated(module: LatticeInterpolant, v: Values, _: Any) -> Values:
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


_WHOLE: dict[type, Callable[[Any, Values, tuple[int, ...]], Values]] = {
    nn.Flatten: lambda _, v, shape: v,
    nn.Linear: _linear,
    nn.PReLU: _sloped,
    nn.BatchNorm1d: _batch_normalized,
    nn.Softmax: _softmax,
    nn.Softmin: _softmax,
    **dict.fromkeys((GroupSort, MaxMin, FullSort), _sorted),
    Maxout: _largest,
    Householder: _reflected,
    Residual: _halfway,
    Normalize: _normalized,
    LatticeInterpolant: _interpolated,
}
