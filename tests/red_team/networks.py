"""Random and adversarial networks, each from its seed alone: ordinary ones, and numbers chosen to hurt."""

import math
import random

import torch
from torch import Tensor, nn

from tightlip import Abs, FullSort, GroupSort, Householder, MaxMin, Maxout, Normalize, Residual, Scale

DTYPES = (torch.float32, torch.float32, torch.float64, torch.float64, torch.float16, torch.bfloat16)
SCALES = (1e-40, 1e-20, 1e-4, 0.1, 1.0, 1.0, 1.0, 10.0, 1e4, 1e20)
FAR = (5e-324, 1e-320, 1e-308, 1e-200, 1e-162, 1e-154, 1e-100, 1.0, 1e100, 1e154, 1e200, 1e300)


class Draw(random.Random):
    """Python's generator with torch's beside it, both from one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Gaussian numbers in float64."""
        return torch.randn(*shape, dtype=torch.float64, generator=self.torch)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """A matrix in float64 of one of the kinds below, times a scale."""
        kind = self.choice(
            (_plain, _plain, _orthonormal, _rank_one, _sparse, _far_entries, _far_rows, _alike, _opposite)
        )
        return kind(self, rows, columns)


def _plain(draw: Draw, rows: int, columns: int) -> Tensor:
    return draw.normal(rows, columns) * draw.choice(SCALES) / columns**0.5


def _orthonormal(draw: Draw, rows: int, columns: int) -> Tensor:
    square = torch.linalg.qr(draw.normal(max(rows, columns), max(rows, columns))).Q
    return square[:rows, :columns] + draw.choice((0.0, 1e-12, 1e-7, 1e-3)) * draw.normal(rows, columns)


def _rank_one(draw: Draw, rows: int, columns: int) -> Tensor:
    return torch.outer(draw.normal(rows), draw.normal(columns)) + draw.choice((0.0, 1e-9)) * draw.normal(rows, columns)


def _sparse(draw: Draw, rows: int, columns: int) -> Tensor:
    kept = torch.rand(rows, columns, generator=draw.torch) < 0.3
    return torch.where(kept, draw.normal(rows, columns).round(), torch.zeros((), dtype=torch.float64))


def _far_entries(draw: Draw, rows: int, columns: int) -> Tensor:
    """Entries whose squares over- and underflow beside each other."""
    size = torch.tensor([draw.choice(FAR) for _ in range(rows * columns)], dtype=torch.float64)
    return size.reshape(rows, columns) * draw.normal(rows, columns).sign()


def _far_rows(draw: Draw, rows: int, columns: int) -> Tensor:
    size = torch.tensor([draw.choice(FAR[3:-2]) for _ in range(rows)], dtype=torch.float64)
    return size[:, None] * draw.normal(rows, columns)


def _alike(draw: Draw, rows: int, columns: int) -> Tensor:
    """Rows that differ by rounding, or by less than can be squared."""
    row = draw.normal(columns).repeat(rows, 1)
    return row + draw.choice((1e-16, 1e-12, 1e-162, 1e-200)) * draw.normal(rows, columns)


def _opposite(draw: Draw, rows: int, columns: int) -> Tensor:
    row = draw.normal(columns)
    return torch.stack([row if i % 2 else -row for i in range(rows)])


def linear(draw: Draw, inputs: int, outputs: int, tame: bool = False) -> nn.Linear:
    """A linear layer of some dtype, whose numbers that dtype holds; biases are none, small, or swallow the signal."""
    layer = nn.Linear(inputs, outputs, bias=draw.random() < 0.6)
    dtype = draw.choice(DTYPES)
    weight = _plain(draw, outputs, inputs).clamp(-9, 9) if tame else draw.matrix(outputs, inputs)
    layer.weight.data = _held(weight, dtype)
    if layer.bias is not None:
        size = draw.choice((0.0, 1.0, 1.0, 1e-30, 1e8) if tame else (0.0, 1.0, 1e-40, 1e8, 2.0**60))
        layer.bias.data = _held(size * draw.normal(outputs), dtype)
    return layer.requires_grad_(False)


def _held(values: Tensor, dtype: torch.dtype) -> Tensor:
    """In this dtype, without infinities; float16 and bfloat16 as float32, since one matrix product has one dtype."""
    most = torch.finfo(dtype).max / 2
    narrow = values.clamp(-most, most).to(dtype)
    return narrow.float() if dtype in (torch.float16, torch.bfloat16) else narrow


def swallowing(draw: Draw, width: int) -> list[nn.Module]:
    """Two layers that are the identity in exact arithmetic; in between a bias leaves only multiples of its last bit."""
    size = draw.choice((1e6, 1e8, 2.0**40, 2.0**60))
    layers: list[nn.Module] = []
    for sign in (1.0, -1.0):
        layer = nn.Linear(width, width, dtype=torch.float64)
        layer.weight.data, layer.bias.data = (
            torch.eye(width, dtype=torch.float64),
            torch.full((width,), sign * size).double(),
        )
        layers.append(layer.requires_grad_(False))
    return layers


def hidden_differences(draw: Draw) -> tuple[nn.Sequential, int]:
    """Rows of the last layer that differ where entries are tiny, behind layers that are as steep there."""
    width = draw.randint(2, 5)
    tiny = (
        10.0 ** -torch.tensor([float(draw.choice((0, 0, 20, 80, 140, 162, 200, 250))) for _ in range(width)]).double()
    )
    before = torch.diag(tiny.rsqrt())
    last = draw.normal(1, width).repeat(draw.randint(2, 4), 1)
    last[1:, draw.randrange(width)] *= 1 + draw.choice((2.0**-40, 1.0))
    layers = [nn.Linear(width, len(matrix), bias=False) for matrix in (before, before, last)]
    for layer, matrix in zip(layers, (before, before, last * tiny), strict=True):
        layer.weight.data = matrix
    layers[-1].bias = nn.Parameter(draw.normal(len(last)))
    return nn.Sequential(*layers).requires_grad_(False), width


def affine_network(draw: Draw) -> tuple[nn.Sequential, int]:
    """A network of affine layers only, and its number of inputs."""
    if draw.random() < 0.1:
        return hidden_differences(draw)
    width = inputs = draw.randint(1, 7)
    layers: list[nn.Module] = [nn.Flatten()] if draw.random() < 0.3 else []
    for _ in range(draw.randint(0, 3)):
        choice = draw.randrange(6)
        if choice == 0:
            layers.append(_scale(draw))
        elif choice == 1:
            layers.append(_normalize(draw, width))
        elif choice == 2:
            layers.append(Residual(linear(draw, width, width), nn.Identity()))
        elif choice == 3:
            layers += swallowing(draw, width)
        else:
            after = draw.randint(1, 7)
            layers.append(linear(draw, width, after, tame=draw.random() < 0.6))
            width = after
    layers.append(linear(draw, width, draw.randint(1, 5), tame=draw.random() < 0.6))
    layers += draw.choice(([], [], [_scale(draw)], [nn.Identity()], [Residual(nn.Identity())]))
    return nn.Sequential(*layers), inputs


def nested_network(draw: Draw, smooth: bool) -> tuple[nn.Sequential, int]:
    """Linear layers, activations and nests of them; ``smooth`` has functions that are not rational."""
    width = inputs = draw.randint(1, 6)
    layers: list[nn.Module] = [_normalize(draw, width)] if draw.random() < 0.3 else []
    for _ in range(draw.randint(1, 3)):
        after = draw.randint(1, 8)
        layers.append(linear(draw, width, after, tame=draw.random() < 0.85))
        width = after
        activation, width = _activation(draw, width, smooth)
        layers.append(activation)
        if draw.random() < 0.4:
            layers.append(_residual(draw, width, smooth))
        if draw.random() < 0.1:
            layers += swallowing(draw, width)
    layers.append(linear(draw, width, draw.randint(1, 4), tame=True))
    if draw.random() < 0.3:
        layers.append(_scale(draw))
    if draw.random() < 0.3:
        cut = draw.randint(0, len(layers))
        layers = [nn.Sequential(*layers[:cut]), *layers[cut:]]
    return nn.Sequential(*layers), inputs


def _residual(draw: Draw, width: int, smooth: bool) -> Residual:
    inner: list[nn.Module] = [linear(draw, width, width, tame=True)]
    activation, after = _activation(draw, width, smooth)
    if after == width:
        inner.append(activation)
    if draw.random() < 0.3:
        inner.append(Residual(linear(draw, width, width, tame=True), nn.ReLU()))
    return Residual(*inner)


def _activation(draw: Draw, width: int, smooth: bool) -> tuple[nn.Module, int]:
    divisors = [k for k in range(1, width + 1) if width % k == 0]
    size = draw.choice(divisors)
    choices: list[nn.Module] = [nn.ReLU(), Abs(), FullSort(), nn.Identity(), nn.Dropout().eval(), nn.ReLU6()]
    choices += [GroupSort(size), GroupSort(size, contiguous=False), nn.Hardtanh(-draw.random(), 1 + draw.random())]
    choices += [nn.LeakyReLU(draw.choice((0.01, 0.3, -2.0, 1e-310, 5.0)))]
    if width % 2 == 0:
        choices += [MaxMin(), MaxMin(contiguous=False)]
    choices += [nn.Hardsigmoid(), nn.Hardswish(), nn.Softshrink(draw.choice((0.0, 0.5))), nn.RReLU(-2.0, 0.3).eval()]
    choices += [nn.Threshold(-0.5, -0.5), _slopes(draw, width)]
    if smooth:
        choices = [nn.Tanh(), nn.Sigmoid(), nn.Softsign(), nn.LogSigmoid(), nn.SiLU(), nn.GELU(), nn.GELU("tanh")]
        choices += [nn.ELU(draw.choice((0.5, 1.0, -2.0))), nn.Softplus(draw.choice((0.01, 1.0, 30.0))), nn.SELU()]
        choices += [nn.CELU(draw.choice((0.1, 1.0, 7.0))), nn.Mish(), nn.Tanhshrink(), nn.Softmax(1), nn.Softmin(-1)]
        choices += [_batch_norm(draw, width)] * 2
        if width % 2 == 0:
            choices.append(_householder(draw, width // 2))
    if not smooth and size > 1 and draw.random() < 0.1:
        return Maxout(size), width // size
    return draw.choice(choices), width


def _householder(draw: Draw, pairs: int) -> Householder:
    layer = Householder(pairs).requires_grad_(False)
    layer.angle.data = (draw.normal(pairs) * draw.choice((1.0, 1e-30, 1e6))).float()
    return layer


def _slopes(draw: Draw, width: int) -> nn.PReLU:
    layer = nn.PReLU(draw.choice((1, width))).requires_grad_(False)
    layer.weight.data = (draw.normal(len(layer.weight)) * draw.choice((0.1, 1.0, 1e-40))).float()
    return layer


def _batch_norm(draw: Draw, width: int) -> nn.BatchNorm1d:
    layer = (
        nn.BatchNorm1d(width, eps=draw.choice((1e-5, 1e-12)), affine=draw.random() < 0.7).eval().requires_grad_(False)
    )
    layer.running_mean = (draw.normal(width) * draw.choice((1.0, 1e8))).float()
    layer.running_var = (draw.normal(width).square() * draw.choice((1.0, 1e-6, 1e6))).float()
    if layer.affine:
        layer.weight.data, layer.bias.data = draw.normal(width).float(), (draw.normal(width) * 1e3).float()
    return layer.eval().requires_grad_(False)


def _scale(draw: Draw) -> Scale:
    layer = Scale(draw.choice((0.1, 1.0, 8.0, 1e-30, 1e20)))
    if draw.random() < 0.3:
        layer.scale = -layer.scale.double()
    return layer


def _normalize(draw: Draw, width: int) -> Normalize:
    if draw.random() < 0.5:
        return Normalize(draw.choice((0.0, 0.5, 1e6)), draw.choice((0.25, 3.0, 1e-30)))
    return Normalize([draw.gauss(0, 1) for _ in range(width)], [math.exp(draw.gauss(0, 2)) for _ in range(width)])


def pooled_network(draw: Draw) -> tuple[nn.Sequential, tuple[int, ...]]:
    """One pooling layer of any kind, perhaps another one and a linear classifier; and the shape of its inputs."""
    axes = draw.randint(1, 3)
    shape = (draw.randint(1, 2), *(draw.randint(3, 7 if axes < 3 else 4) for _ in range(axes)))
    layers: list[nn.Module] = [_pool(draw, axes)]
    if draw.random() < 0.2:
        layers.append(nn.ReLU())
    if axes < 3 and draw.random() < 0.5:
        layers.insert(0, _move(draw, axes, shape[0]))
    with torch.no_grad():
        after = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape
    if draw.random() < 0.5:
        layers += [nn.Flatten(), linear(draw, math.prod(after), draw.randint(1, 3), tame=True)]
    return nn.Sequential(*layers), shape


def _move(draw: Draw, axes: int, channels: int) -> nn.Module:
    kinds = ("ZeroPad", "ConstantPad", "ReplicationPad", "ReflectionPad", "CircularPad", "Upsample", "ChannelShuffle")
    kind = draw.choice(kinds)
    if kind == "Upsample":
        return nn.Upsample(scale_factor=draw.randint(1, 2), mode=draw.choice(("nearest", "nearest-exact")))
    if kind == "ChannelShuffle":
        return nn.ChannelShuffle(channels) if axes == 2 else nn.Identity()
    sides = tuple(draw.randint(0, 1) for _ in range(2 * axes))
    extra = (draw.choice((0.5, -1e8)),) if kind == "ConstantPad" else ()
    return getattr(nn, f"{kind}{axes}d")(sides, *extra)


def _pool(draw: Draw, axes: int) -> nn.Module:
    def each(low: int, high: int) -> int | tuple[int, ...]:
        return draw.randint(low, high) if draw.random() < 0.5 else tuple(draw.randint(low, high) for _ in range(axes))

    kind = draw.choice(("Max", "Avg", "AdaptiveMax", "AdaptiveAvg"))
    cls = getattr(nn, f"{kind}Pool{axes}d")
    if kind.startswith("Adaptive"):
        return cls(each(1, 3))
    kernel, stride, padding = (each(low, high) for low, high in ((1, 3), (1, 4), (0, 1)))
    if axes == 1:
        kernel, stride, padding = (value if isinstance(value, int) else value[0] for value in (kernel, stride, padding))
    sizes = kernel if isinstance(kernel, tuple) else (kernel,) * axes
    pads = padding if isinstance(padding, tuple) else (padding,) * axes
    padding = min(*pads, *(k // 2 for k in sizes))
    ceil = draw.random() < 0.4
    if kind == "Max":
        dilation = 2 if draw.random() < 0.2 and max(sizes) < 3 else 1
        return cls(kernel, stride, padding, dilation, ceil_mode=ceil)
    options = {"ceil_mode": ceil, "count_include_pad": draw.random() < 0.5}
    if axes > 1 and draw.random() < 0.3:
        options["divisor_override"] = draw.choice((1, 2, 5, -3))
    return cls(kernel, stride, padding, **options)
