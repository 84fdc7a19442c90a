"""Convolutions: bounds against the dense operator, how far they stray, what is refused, and the networks they make."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from sweeps import some
from torch import nn
from torch.nn import functional as F

from tightlip import TightlipError, certify, freeze, lipschitz, load, save
from tightlip.audit import audit, gains
from tightlip.norms import PAIRS
from tightlip.robustness.evaluation import evaluate, wide

LAYERS = {
    "plain": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "strided": (lambda: nn.Conv2d(3, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (3, 5, 4)),
    "groups": (lambda: nn.Conv2d(4, 4, 3, groups=2, padding=2), (4, 3, 3)),
    "circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 4, 3)),
    "reflect": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 4, 3)),
    "replicate": (lambda: nn.Conv2d(2, 2, 3, padding=(2, 1), padding_mode="replicate"), (2, 4, 3)),
    "same": (lambda: nn.Conv1d(2, 2, 4, padding="same", dilation=2), (2, 7)),
    "same, circular": (lambda: nn.Conv1d(2, 2, 4, padding="same", padding_mode="circular"), (2, 7)),
    "valid": (lambda: nn.Conv1d(3, 2, 3, padding="valid", bias=False), (3, 6)),
    "volumes": (lambda: nn.Conv3d(1, 2, 2, padding=1), (1, 3, 2, 2)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 3, 3)),
    "transposed, groups": (lambda: nn.ConvTranspose1d(4, 2, 3, stride=1, groups=2, dilation=2), (4, 4)),
    "transposed volumes": (lambda: nn.ConvTranspose3d(1, 1, 2, stride=2), (1, 2, 2, 2)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def dense(layer, shape):
    """Columns are what the layer without its bias makes of unit vectors."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    wide_layer = copy.deepcopy(layer).double()
    wide_layer.bias = None
    return wide_layer(basis).flatten(1).T.detach()


def exact_norm(matrix, p, q):
    if p == 1:
        return float(torch.linalg.vector_norm(matrix, q, 0).max())
    if q == math.inf:
        return float(torch.linalg.vector_norm(matrix, {2: 2, math.inf: 1}[p], 1).max())
    return float(torch.linalg.matrix_norm(matrix, 2))


@each_layer
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_bounds_are_those_of_the_dense_operator_or_above(name, size, seed):
    make, shape = LAYERS[name]
    layer = make()
    layer.weight.data.mul_(size)
    matrix = dense(layer, shape)
    table = gains(layer).table
    for p, q in PAIRS:
        if (p, q) in table:
            assert exact_norm(matrix, p, q) <= float(table[p, q]) * (1 + 1e-12)
    assert float(table[2, 2]) <= 4 * exact_norm(matrix, 2, 2)


@each_layer
def test_a_network_with_it_is_certified_saved_and_loaded(name, seed, tmp_path):
    make, shape = LAYERS[name]
    network, x = nn.Sequential(make(), nn.ReLU(), nn.Flatten()), torch.randn(4, *shape)
    frozen = freeze(network)
    save(frozen, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert torch.equal(loaded(x), network(x)) and str(loaded) == str(frozen)
    radius = certify(loaded, x).radius
    assert torch.equal(radius, certify(frozen, x).radius) and bool((radius >= 0).all()) and float(radius.max()) > 0


def halves(values, bits):
    """Parts below 2^bits and the rest, so that products of two parts are exact in float64."""
    high = torch.floor(values / 2**bits)
    return ((high, 2**bits), (values - high * 2**bits, 1))


def integers(tensor):
    """Floats without a fraction, as Python's own integers."""
    return np.vectorize(int, otypes=[object])(tensor.detach().double().numpy())


def exact(layer, x):
    """What the layer makes of integers, as Python's: it is linear in its weight and in its input."""
    part, total = copy.deepcopy(layer).double(), 0
    part.bias = None
    weight = part.weight.detach().clone()
    for (w, w_unit), (inputs, unit) in itertools.product(halves(weight, 12), halves(x, 18)):
        part.weight.data = w
        total = total + integers(part(inputs)) * (w_unit * unit)
    if layer.bias is not None:
        total = total + integers(layer.bias).reshape(-1, *[1] * (x.dim() - 2))
    return total


@each_layer
def test_evaluation_strays_by_no_more_than_it_says(name, seed):
    make, shape = LAYERS[name]
    network = nn.Sequential(make())
    for parameter in network.parameters():
        parameter.data = torch.randint(-(2**23), 2**23, parameter.shape).float()
    x = torch.randint(-(2**36), 2**36, (16, *shape)).double()
    y, error = evaluate(wide(network, audit(network)), x)
    strayed = integers(y) - exact(network[0], x)
    distance = torch.tensor((strayed.astype(float) ** 2).reshape(len(x), -1).sum(1) ** 0.5)
    assert float(distance.max()) > 0  # some sums are rounded
    assert bool((distance <= error).all())
    assert bool((error <= 1e-13 * torch.linalg.vector_norm(y.flatten(1), dim=1)).all())


def test_an_image_without_a_batch_is_refused_by_certify():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Flatten())
    with pytest.raises(TightlipError, match=r"Conv2d takes \(batch, channels, height, width\)"):
        certify(network.eval(), torch.randn(3, 4, 4))


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", (1.0, 1.0)), ("stride", "1"), ("dilation", (1,)), ("groups", 1.0), ("groups", 3), ("padding", (1, -1))],
)
def test_options_that_no_convolution_can_have_are_refused(name, value):
    layer = nn.Conv2d(2, 2, 3)
    setattr(layer, name, value)
    with pytest.raises(TightlipError, match=f"{name} .*(restore|crop)|{name}.*must be"):
        lipschitz(layer, 2)


def test_other_weights_and_biases_are_refused():
    for name, tensor in (
        ("weight", torch.ones(2, 2, 3)),
        ("weight", torch.ones(2, 2, 3, 3) * math.nan),
        ("weight", torch.ones(0, 2, 3, 3)),
        ("bias", torch.ones(1)),
        ("bias", torch.ones(2) * math.inf),
    ):
        layer = nn.Conv2d(2, 2, 3)
        layer._parameters[name] = nn.Parameter(tensor)
        with pytest.raises(TightlipError, match=f"{name}|NaN"):
            lipschitz(layer, 2)


def test_padding_that_was_altered_after_the_layer_was_made_is_the_one_that_counts():
    layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="replicate")
    before = lipschitz(layer, 2, 2).constant
    layer._reversed_padding_repeated_twice = [9, 9]
    assert lipschitz(layer, 2, 2).constant > 2 * before
    layer._reversed_padding_repeated_twice = [9]
    with pytest.raises(TightlipError, match="damaged padding"):
        lipschitz(layer, 2)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.a, self.b, self.c = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        x = x.view(x.size(0), -1)
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.first, self.one = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.second, self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential()
        if stride != 1 or channels != out:
            self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        out = self.relu(self.one(self.first(x)))
        out = self.two(self.second(out))
        out += self.down(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        first = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        blocks = [
            Block(a if not number else b, b, 1 + (a != b) * (not number))
            for a, b in itertools.pairwise(widths)
            for number in range(depth)
        ]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(8 * width, 10)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.down(x))
        y = self.up(torch.relu(self.deep(x)))
        return self.last(torch.cat([x, y], dim=1))


def vgg():
    layers = []
    for a, b in itertools.pairwise([3, 4, 8]):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 10))


NETWORKS = {
    "LeNet": (LeNet, (1, 28, 28)),
    "VGG": (vgg, (3, 16, 16)),
    "ResNet": (ResNet, (3, 16, 16)),
    "U-Net": (UNet, (1, 8, 8)),
    "the blocks of ResNet-18": (lambda: ResNet(depth=2), (3, 16, 16)),
}


@pytest.mark.parametrize("name", some([*NETWORKS][:-1], [*NETWORKS][-1:]))
def test_plain_networks_are_audited_certified_and_saved_as_they_are(name, tmp_path, seed):
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(2, *shape)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    frozen = freeze(network)
    torch.testing.assert_close(frozen(x.clone()), network(x.clone()))
    bound = lipschitz(frozen, 2, 2).constant
    vector = torch.randn_like(x)
    for _ in range(20):  # power iterations on the Jacobian: its largest singular value from below
        y, pull = torch.func.vjp(frozen, x.clone())
        _, moved = torch.func.jvp(frozen, (x.clone(),), (vector / torch.linalg.vector_norm(vector),))
        (vector,) = pull(moved)
    assert float(torch.linalg.vector_norm(moved.flatten(1), dim=1).max()) <= bound
    save(frozen, tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")(x.clone()), frozen(x.clone()))
    if y.dim() == 2:
        assert bool((certify(frozen, x).radius >= 0).all())
