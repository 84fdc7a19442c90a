import math
from functools import partial

import pytest
import torch
from slopes import largest_slope
from torch import nn

from tightlip import (
    GroupSort,
    MaxMin,
    Orthonormal,
    RowL1Ball,
    Scale,
    Shift,
    TightlipError,
    certify,
    convnet,
    freeze,
    gradient_norm,
    hold,
    lipschitz,
    load,
    mixer,
    save,
)
from tightlip.constraints import constraint_of

SMALL = {"channels": (8, 16), "hidden": (24,)}
MAKERS = {
    "convnet": partial(convnet, (1, 8, 8), 4, **SMALL),
    "convnet with 3×3 kernels": partial(convnet, (1, 8, 8), 4, depth=1, **SMALL),
    "mixer": partial(mixer, (1, 8, 8), 4, depth=2, **SMALL),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@each
def test_it_is_a_plain_sequential_of_held_layers_and_one_scale_which_is_last(make):
    network = make(K=2.0)
    assert type(network) is nn.Sequential
    assert {type(layer) for layer in network} <= {nn.Conv2d, nn.Linear, nn.Flatten, MaxMin, Scale, Shift}
    assert type(network[-1]) is Scale and float(network[-1].scale) == 2.0
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert layers and all(isinstance(constraint_of(layer), Orthonormal) for layer in layers)
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 4)


@each
@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
def test_the_constant_is_neither_ignored_nor_exceeded(make, K):
    network = freeze(make(K=K))
    bound = lipschitz(network, 2, 2).constant
    assert 0.9999 * K <= bound <= K
    assert 0.3 * K <= largest_slope(network.double(), (1, 8, 8), 2, 2, points=4) <= bound


@each
def test_it_is_trained_certified_saved_and_loaded(make, tmp_path):
    network = make()
    x, y = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    hold(network, optimizer)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(network(x), y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    frozen = freeze(network)
    assert lipschitz(frozen, 2, 2).constant <= 1
    certificate = certify(frozen, x, y)
    assert float(certificate.radius.max()) > 0
    save(frozen, tmp_path / "n.safetensors")
    assert torch.equal(load(tmp_path / "n.safetensors")(x), frozen(x))


def test_six_circular_layers_keep_the_norm_of_gradients_after_training():
    network = convnet((8, 8, 8), 1, channels=(32,), patch=2, depth=6, hidden=(), padding_mode="circular")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    hold(network, optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(8, 8, 8, 8)).square().mean().backward()
        optimizer.step()
    x = torch.randn(5, 8, 8, 8, dtype=torch.float64)
    norms = gradient_norm(freeze(network).double(), x)
    assert torch.allclose(norms, torch.ones(5, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("side", [7, 9, 11])
@each
def test_sides_that_are_not_whole_patches_lose_no_pixel(make, side):
    name = make.func
    network = freeze(name((1, side, side), 3, channels=(8, 32), depth=1, hidden=())).double()
    x = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert bool((gradient != 0).all())


@each
def test_other_sets_norms_activations_and_ways(make):
    network = freeze(make(constraint=RowL1Ball(), K=3.0, bias=False))
    assert lipschitz(network, math.inf, math.inf).constant <= 3.0
    network = freeze(make(activation=partial(GroupSort, 4, dim=1)))
    assert lipschitz(network, 2, 2).constant <= 1
    network = make(constraint=RowL1Ball(), hold="forward")
    assert lipschitz(network, math.inf, math.inf).constant <= 1 + 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": (28, 28)}, "image must be channels, height and width"),
        ({"image": (1, 0, 4)}, "image must be"),
        ({"classes": 0}, "classes must be"),
        ({"classes": True}, "classes must be"),
        ({"channels": (8, -1)}, "channels must be integers ≥ 1"),
        ({"hidden": (0,)}, "hidden must be integers ≥ 1"),
        ({"depth": -1}, "depth must be"),
        ({"activation": MaxMin(1)}, "activation must make a new layer"),
        ({"channels": (7,)}, "7 features do not divide"),
        ({"K": 0.0}, "K must be"),
    ],
)
@pytest.mark.parametrize("make", [convnet, mixer])
def test_impossible_options_are_refused_in_a_sentence(make, options, words):
    with pytest.raises(TightlipError, match=words):
        make(**{"image": (1, 8, 8), "classes": 3, "channels": (8,), "hidden": ()} | options)


def test_even_kernels_and_impossible_patches_are_refused():
    with pytest.raises(TightlipError, match="one odd integer"):
        convnet((1, 8, 8), 3, kernel=4)
    with pytest.raises(TightlipError, match="patch must be one integer"):
        mixer((1, 8, 8), 3, patch=0)
    with pytest.raises(TightlipError, match="part must be"):
        mixer((1, 8, 8), 3, part=2)
    with pytest.raises(TightlipError, match="give fewer stages, a smaller kernel"):
        convnet((3, 4, 4), 2, channels=(6, 6), patch=2, hidden=(), kernel=5, padding_mode="circular", depth=2)
    with pytest.raises(TightlipError, match="reads pixels again"):
        convnet((1, 8, 8), 3, depth=1, padding_mode="reflect")
