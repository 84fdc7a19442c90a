"""Tall and flat kernels: isometries by their patches, and pairs of layers where nothing else is held."""

import math

import pytest
import torch
from torch import nn

from tightlip import Orthonormal, RowL1Ball, SpectralBall, TightlipError, constrain, freeze, hold, lifted, lipschitz

TALL = {
    "LeNet": lambda: nn.Conv2d(1, 6, 5, padding=2),
    "VGG": lambda: nn.Conv2d(3, 64, 3, padding=1),
    "ResNet": lambda: nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
    "DCGAN": lambda: nn.Conv2d(1, 64, 4, stride=2, padding=1),
    "strided": lambda: nn.Conv2d(3, 64, 3, stride=2, padding=1),
    "series": lambda: nn.Conv1d(1, 32, 5),
    "groups": lambda: nn.Conv2d(2, 24, 3, groups=2, padding=1),
    "dilated": lambda: nn.Conv2d(1, 16, 3, dilation=2, padding=2),
}
FLAT = {"to colors": lambda: nn.Conv2d(32, 3, 3, padding=1), "in groups": lambda: nn.Conv2d(64, 4, 3, 2, groups=2)}
PAIRS = {"LeNet", "ResNet", "strided", *FLAT}
each_tall = pytest.mark.parametrize("name", TALL)
each = pytest.mark.parametrize("name", TALL | FLAT)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@each
def test_a_layer_that_cannot_be_held_becomes_a_pair_of_its_shape(name):
    layer = (TALL | FLAT)[name]()
    shape = (2, layer.in_channels, 12, 12)[: 1 + layer.weight.dim() - 1]
    expected = layer(torch.randn(shape)).shape
    made = lifted(layer)
    assert made(torch.randn(shape)).shape == expected
    assert isinstance(made, nn.Sequential) == (name in PAIRS)
    assert (made is layer) == (name not in PAIRS)
    biases = [part.bias is not None for part in (made if name in PAIRS else [made])]
    assert any(biases) == (layer.bias is not None) and sum(biases) <= 1


@each
def test_its_norm_is_one(name):
    frozen = freeze(nn.Sequential(lifted((TALL | FLAT)[name]())))
    assert 1 - 1e-5 <= lipschitz(frozen, 2, 2).constant <= 1.0


@each_tall
def test_away_from_the_edges_it_is_an_isometry(name):
    made = freeze(nn.Sequential(lifted(TALL[name]()))).double()
    inner = [layer for layer in made.modules() if not list(layer.children())]
    for layer in inner:
        layer.bias = None
    axes = inner[-1].weight.dim() - 2
    image = torch.zeros(1, inner[0].in_channels, *[40] * axes, dtype=torch.float64)
    image[(slice(None), slice(None), *[slice(12, 26)] * axes)] = torch.randn(1).item()
    image *= torch.randn(image.shape, dtype=torch.float64)
    assert float(made(image).norm() / image.norm()) == pytest.approx(1, abs=1e-6)


@each
def test_it_stays_on_its_set_in_training(name):
    layer = (TALL | FLAT)[name]()
    made = nn.Sequential(lifted(layer))
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    hold(made, optimizer)
    x = torch.randn((4, layer.in_channels, 9, 9)[: layer.weight.dim()])
    first = None
    for _ in range(8):
        loss = made(x).square().mean()
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(made(x).detach().square().mean()) < first
    bound = lipschitz(made, 2, 2).constant
    assert 1 - 1e-5 <= bound <= 1 + 5e-6


def test_the_square_kernel_is_lifted_isometrically():
    point, kernel = lifted(nn.Conv2d(1, 6, 5))
    assert (point.kernel_size, point.out_channels, kernel.in_channels, kernel.out_channels) == ((1, 1), 6, 6, 6)
    kernel, point = lifted(nn.Conv2d(32, 3, 3, padding=1, dilation=2, padding_mode="circular"))
    assert (kernel.dilation, kernel.padding, kernel.padding_mode) == ((2, 2), (1, 1), "circular")
    assert (point.dilation, point.padding, point.kernel_size) == ((1, 1), (0, 0), (1, 1))


def test_a_tall_kernel_with_a_channel_for_every_tap_is_constrained_as_it_is():
    layer = constrain(nn.Conv2d(3, 64, 3, padding=1), Orthonormal())
    gram = layer.weight.detach().flatten(1).T @ layer.weight.detach().flatten(1)
    torch.testing.assert_close(9 * gram, torch.eye(27))
    assert not isinstance(layer, nn.Sequential)


@pytest.mark.parametrize("layer", [lambda: nn.Linear(3, 7), lambda: nn.Conv2d(4, 4, 3), lambda: nn.Conv2d(2, 40, 1)])
@pytest.mark.parametrize("constraint", [None, SpectralBall(), RowL1Ball()])
def test_what_can_be_held_stays_one_layer(layer, constraint):
    layer = layer()
    assert lifted(layer, constraint) is layer


def test_constrain_says_what_to_do():
    with pytest.raises(TightlipError, match=r"use tightlip\.lifted\(layer\)"):
        constrain(nn.Conv2d(1, 6, 5), Orthonormal())


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("outputs", [6, 64])
def test_padding_that_repeats_pixels_is_refused(mode, outputs):
    with pytest.raises(TightlipError, match="reads pixels again"):
        lifted(nn.Conv2d(1, outputs, 5, padding=2, padding_mode=mode))


def test_a_kernel_is_drawn_by_its_set():
    """A product of random factors, and not what is found of a Gaussian kernel."""
    layer = lifted(nn.Conv2d(16, 16, 3))
    other = lifted(nn.Conv2d(16, 16, 3))
    assert not torch.equal(layer.weight, other.weight)
    energy = layer.weight.detach().square().sum((0, 1)).flatten()
    assert math.isclose(float(energy.sum()), 16, rel_tol=1e-5)
    assert energy.argmax() == 4  # products of moves of half the channels are largest in the middle
