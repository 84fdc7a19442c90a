"""Sums whose terms may have different shapes are refused before anything runs; those of ordinary networks are not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tightlip import MaxMin, Residual, TightlipError, freeze, lipschitz, rule, save, trace
from tightlip.audit import Gains
from tightlip.graphs import Chunk, Slice
from tightlip.graphs.extents import Extents
from tightlip.graphs.shapes import after


class Forward(nn.Module):
    """A forward given as a function of the module, with layers by name."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


linear, conv = nn.Linear, nn.Conv2d

BROADCAST = {
    "one number to all": Forward(lambda m, x: 0.01 * x + m.a(x), a=linear(64, 1)),
    "one channel to all": Forward(lambda m, x: x - m.a(x), a=conv(3, 1, 1)),
    "one input to all": Forward(lambda m, x: x + m.a(x), a=linear(1, 4)),
    "a mean taken away": Forward(lambda m, x: x - x.mean(1, keepdim=True)),
    "a pooled image": Forward(lambda m, x: x + F.adaptive_avg_pool2d(x, 1)),
    "small images": Forward(lambda m, x: x + F.max_pool2d(x, 2)),
    "fewer axes": Forward(lambda m, x: m.a(x) + m.b(x.mean(1)), a=linear(8, 4), b=linear(8, 4)),
    "the transpose": Forward(lambda m, x: x + x.mT),
    "one feature": Forward(lambda m, x: m.a(x) + x[:, :1], a=linear(8, 8)),
    "pieces of unknown sizes": Forward(lambda m, x: x[:, :4] + x[:, 4:8]),
    "a value and advantages": Forward(lambda m, x: {"q": m.a(x) + m.b(x), "v": m.b(x)}, a=linear(8, 4), b=linear(8, 1)),
    "behind other layers": nn.Sequential(linear(4, 1), Forward(lambda m, x: x + m.a(x), a=linear(1, 9))),
    "an axis that may go": Forward(lambda m, x: x + x.squeeze(1)),
    "sequences where rows fit": Forward(lambda m, x: x.mean(1, keepdim=True) + m.a(x), a=linear(16, 1)),
    "one entry of rows": Forward(lambda m, x: m.a(x)[:, 0] - x[:, 0], a=linear(8, 1)),
    "six axes": Forward(lambda m, x: x.flatten(-2).narrow(5, 0, 1) + m.a(x.flatten(-2)), a=linear(4, 4)),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_a_sum_of_different_shapes_is_refused(name, tmp_path):
    with pytest.raises(TightlipError, match=r"adds values of .* torch would repeat one \(broadcast\)"):
        lipschitz(BROADCAST[name].eval(), 2, 2)


def test_nothing_is_written_of_such_a_sum(tmp_path):
    for ask in (trace, freeze, lambda network: save(freeze(network), tmp_path / "m")):
        with pytest.raises(TightlipError, match="broadcast"):
            ask(BROADCAST["one number to all"].eval())
    assert not list(tmp_path.iterdir())


class Block(nn.Module):
    def __init__(self, taken, made, stride):
        super().__init__()
        self.first, self.second = conv(taken, made, 3, stride, 1), conv(made, made, 3, 1, 1)
        self.norm = nn.BatchNorm2d(made)
        self.skip = conv(taken, made, 1, stride) if taken != made else None

    def forward(self, x):
        y = self.norm(self.second(F.relu(self.first(x))))
        return F.relu(y + (x if self.skip is None else self.skip(x)))


def u_net(m, x):
    a = F.relu(m.a(x))
    up = m.up(F.relu(m.b(F.max_pool2d(a, 2))))
    return m.out(F.relu(m.c(torch.cat([up, a], 1)))) + m.out(a + up)


def halves(m, x):
    a, b = x.unflatten(1, (8,)).chunk(2, 1)
    return a + m.a(b)


def tokens(m, x):
    x = m.a(x).flatten(2).transpose(1, 2)
    x = x + m.b(x.transpose(1, 2)).transpose(1, 2)
    return (x + m.c(x)).mean(1)


def rows(m, x):
    h = F.max_pool2d(F.relu(m.a(x)), 2).flatten(1)
    return h + m.b(h)


FITTING = {
    "a residual network": (
        nn.Sequential(conv(3, 4, 3, 1, 1), Block(4, 4, 1), Block(4, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (3, 8, 8),
    ),
    "a U-Net": (
        Forward(
            u_net,
            a=conv(1, 4, 3, 1, 1),
            b=conv(4, 4, 3, 1, 1),
            up=nn.ConvTranspose2d(4, 4, 2, 2),
            c=conv(8, 4, 3, 1, 1),
            out=conv(4, 2, 1),
        ),
        (1, 8, 8),
    ),
    "a mixer": (Forward(tokens, a=conv(1, 6, 2, 2), b=linear(9, 9), c=linear(6, 6)), (1, 6, 6)),
    "rows of an image": (Forward(rows, a=conv(1, 2, 5), b=linear(32, 32)), (1, 12, 12)),
    "convolutions without padding": (
        Forward(
            lambda m, x: x[:, :, 1:-1, 1:-1] + m.a(x) + F.pad(m.a(x), (1, 1, 1, 1))[..., 1:-1, 1:-1], a=conv(2, 2, 3)
        ),
        (2, 5, 5),
    ),
    "strides of two kinds": (Forward(lambda m, x: m.a(x) + F.avg_pool2d(x, 2), a=conv(2, 2, 2, 2)), (2, 6, 6)),
    "two that are one": (Forward(lambda m, x: m.a(x) + m.b(x), a=linear(8, 1), b=linear(8, 1)), (8,)),
    "layers that keep": (Forward(lambda m, x: x.tanh() + m.a(x) - x, a=nn.Softplus()), (3, 2)),
    "sorted": (Forward(lambda m, x: x + m.b(m.a(x)), a=linear(8, 8), b=MaxMin()), (8,)),
    "stated halves": (Forward(halves, a=linear(4, 4)), (8,)),
    "long strides": (
        Forward(lambda m, x: m.a(x) + m.b(x), a=nn.AvgPool1d(300), b=nn.Conv1d(1, 1, 300, 300)),
        (1, 700),
    ),
    "rows that are said to be rows": (
        Forward(lambda m, x: (lambda x: m.a(x)[:, 0] - x[:, 0])(x.permute(0, 1)), a=linear(8, 1)),
        (8,),
    ),
    "a block inside": (Forward(lambda m, x: m.a(x) + x, a=Residual(linear(8, 8))), (8,)),
}


@pytest.mark.parametrize("name", FITTING)
def test_ordinary_networks_pass_and_do_the_same(name, seed):
    network, shape = FITTING[name]
    network, x = network.eval(), torch.randn(2, *shape)
    frozen = freeze(network)
    torch.testing.assert_close(frozen(x), network(x), rtol=1e-4, atol=1e-5)
    assert lipschitz(network, 2, 2).constant == lipschitz(frozen, 2, 2).constant


class Halve(nn.Module):
    def forward(self, x):
        return x / 2


class First(nn.Module):
    def forward(self, x):
        return x[:, :1]


def test_an_index_is_looked_at_with_every_number_of_axes():
    """Of (batch, 3, 4) the halves would have two tokens and one; rows can be said to be rows."""

    def forward(m, x):
        a, b = torch.split(m.a(x), 2, dim=1)
        return a - b

    with pytest.raises(TightlipError, match=r"inputs with 3 axes it adds .*broadcast.* axes, as x\.flatten"):
        trace(Forward(forward, a=linear(4, 4)).eval())
    for rows in (lambda x: x.permute(0, 1), lambda x: x.flatten(1)):
        graph = trace(Forward(lambda m, x, rows=rows: forward(m, rows(x)), a=linear(4, 4)).eval())
        assert graph(torch.zeros(2, 4)).shape == (2, 2)


def frames(pool):
    """The first frame, and a little of each: shapes differ from two frames on."""
    return Forward(lambda m, x: (lambda y: y[:, :, :1] + 0.01 * y)(m.b(m.a(x))), a=pool, b=pool)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (nn.AvgPool1d(20), "broadcast"),
        (nn.MaxPool1d(64), "broadcast"),
        (nn.AvgPool1d(300), "broadcast"),
        (nn.Conv1d(1, 1, 10, stride=25, dilation=9), "broadcast"),
        (nn.AvgPool1d(2000), "no inputs with up to 1048576 entries"),
    ],
)
def test_long_strides_hide_no_sum(pool, words):
    with pytest.raises(TightlipError, match=words):
        lipschitz(frames(pool).eval(), 2, 2)


def test_a_sum_that_no_known_input_reaches_is_refused():
    network = Forward(
        lambda m, x: m.a(x) + m.a(x).roll(1, 1), a=nn.Sequential(linear(8, 4), conv(1, 4, 1), linear(7, 2))
    )
    with pytest.raises(TightlipError, match="no inputs with up to"):
        lipschitz(network.eval(), 2, 2)


def test_a_layer_with_a_rule_of_ones_own_is_tried():
    rule(Halve, First)(lambda module: Gains.constant(1.0))
    assert lipschitz(Forward(lambda m, x: x + m.a(x), a=Halve()).eval(), 2).constant == 2
    with pytest.raises(TightlipError, match="a shape that no rule tells"):
        lipschitz(Forward(lambda m, x: x + m.a(x), a=First()).eval(), 2)


LAYERS = [
    (nn.Conv1d(2, 3, 3, 2, 1, 2), 2),
    (nn.Conv1d(2, 3, 4, padding="same"), 2),
    (nn.ConvTranspose1d(2, 3, 3, 2, 1, 1, dilation=2), 2),
    (nn.MaxPool1d(3, 2, 1, ceil_mode=True), 2),
    (nn.AvgPool1d(4, 3, 1, ceil_mode=True), 2),
    (nn.AdaptiveAvgPool1d(3), 2),
    (nn.ConstantPad1d((2, 1), 0.0), 2),
    (nn.Upsample(scale_factor=3), 2),
    (Slice(2, 1, -2), 2),
    (Slice(2, -4, None), 2),
    (Chunk(3, 2, 1), 2),
    (Chunk(4, 2, -1), 2),
    (nn.Unflatten(2, (2, -1)), 2),
    (nn.Flatten(), 2),
]


@pytest.mark.parametrize("layer", [layer for layer, _ in LAYERS], ids=lambda layer: str(layer)[:40])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_sizes_are_those_of_torch(layer):
    """For all sizes of the last axis; those that torch refuses are left out."""
    extents, sizes = Extents(2, 24), range(1, 25)
    extents.demand(extents.input[0], 2)
    shape = after(extents, layer, extents.input)
    for n in sizes:
        try:
            made = tuple(layer(torch.zeros(1, 2, n)).shape[1:])
        except (RuntimeError, ValueError, TightlipError):
            made = None
        if made is None or 0 in made:
            assert not extents.left[1][n - 1] or 0 in [extents.at(extent, n) for extent in shape], n
        else:
            assert extents.left[1][n - 1]
            assert tuple(extents.at(extent, n) for extent in shape) == made
    assert np.any(extents.left[1])
