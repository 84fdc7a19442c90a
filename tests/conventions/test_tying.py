"""One weight in several places: W and Wᵀ, a layer used twice, a Parameter of two layers."""

import copy

import pytest
import torch
from conventions.cells import CHARTS, FORWARD, STEP, adam, inputs, refused, train
from torch import nn
from torch.nn import functional as F

from tightlip import Orthonormal, RowL1Ball, constrain, freeze, hold


class Autoencoder(nn.Module):
    """x ↦ Wᵀ relu(W x + b): the weight is used by a call, and outside of it, by the transposed convolution of one."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        layer, h = self.encoder, F.relu(self.encoder(x))
        if isinstance(layer, nn.Linear):
            return F.linear(h, layer.weight.t())
        function = F.conv_transpose1d if isinstance(layer, nn.Conv1d) else F.conv_transpose2d
        return function(h, layer.weight, None, layer.stride, layer.padding, 0, layer.groups)


def reconstruction(network, x):
    return (network(x) - x).square().mean()


def plain_of(layer):
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features)
    else:
        options = ("stride", "padding", "dilation", "groups", "padding_mode")
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size
        plain = type(layer)(*sizes, **{name: getattr(layer, name) for name in options})
    plain.load_state_dict(layer.state_dict())
    return plain


@pytest.mark.cells(way="step")
def test_the_gradient_of_a_tied_autoencoder_is_plain_torchs(cell):
    network = Autoencoder(cell.layer())
    plain = Autoencoder(plain_of(network.encoder))
    x = inputs(network)
    for each in (network, plain):
        reconstruction(each, x).backward()
    assert torch.equal(network.encoder.weight.grad, plain.encoder.weight.grad)
    assert network.encoder.weight.grad.any()


def test_a_tied_autoencoder_trains(cell):
    network = Autoencoder(cell.layer())
    optimizer = hold(network, adam(network.parameters()))
    x = inputs(network, count=64)
    first = reconstruction(network, x).item()
    for _ in range(2 * cell.rounds + 6):
        optimizer.zero_grad()
        last = reconstruction(network, x)
        last.backward()
        optimizer.step()
        cell.assert_member(network)
    assert last.item() < first


@pytest.mark.parametrize("blocks", [None, 1, 8])
def test_the_skew_gradient_of_a_tied_autoencoder_is_the_one_without_blocks(blocks):
    readings = []
    for number in (blocks, 0):
        torch.manual_seed(0)
        encoder = constrain(nn.Linear(64, 64, bias=False), Orthonormal(blocks=number))
        x = torch.randn(256, 64)
        (F.linear(F.relu(encoder(x)), encoder.weight.t()) - x).square().mean().backward()
        product = encoder.weight.grad @ encoder.weight.mT
        readings.append((product - product.mT) / 2)
    torch.testing.assert_close(*readings)
    assert readings[0].norm() > 0.01


@pytest.mark.cells(shape="square")
def test_a_layer_that_is_used_twice_trains_and_its_gradients_add_up(cell):
    layer = cell.layer()
    network = nn.Sequential(layer, nn.ReLU(), layer, cell.flat(), cell.head())
    optimizer = hold(network, adam(network.parameters()))
    train(network, optimizer, 2)
    if cell.way == "step":
        plain = plain_of(layer)
        reference = nn.Sequential(plain, nn.ReLU(), plain, *copy.deepcopy(network[3:]))
        optimizer.zero_grad()
        for each in (network, reference):
            reconstruction_to_three(each, inputs(network)).backward()
        assert torch.equal(layer.weight.grad, plain.weight.grad)
    before = cell.leaf(layer).detach().clone()
    for _ in range(cell.rounds):
        train(network, optimizer, 1)
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(layer))


def reconstruction_to_three(network, x):
    return (network(x) - x.flatten(1)[:, :3]).square().mean()


def twins(cell):
    """Two layers, one weight: shared first, constrained afterwards."""
    first, second = cell.square(), cell.square()
    second.weight = first.weight
    constrain(first, cell.constraint, cell.way)
    constrain(second, cell.constraint, cell.way)
    return first, second


@pytest.mark.cells(shape="square")
def test_one_parameter_of_two_layers_stays_one_and_stays_on_its_set(cell):
    if cell.name in CHARTS:  # their parameter is no weight: each layer gets one of its own, and the other's stays
        weight = nn.Parameter(cell.layer().weight.detach().clone())
        first, second = cell.square(), cell.square()
        first.weight = second.weight = weight
        before = weight.detach().clone()
        constrain(first, cell.constraint, cell.way)
        torch.testing.assert_close(second.weight.detach(), before, atol=1e-5, rtol=0)
        return
    first, second = twins(cell)
    network = nn.Sequential(first, nn.ReLU(), second, cell.flat(), cell.head())
    assert cell.leaf(first) is cell.leaf(second)
    optimizer = hold(network, adam(network.parameters()))
    assert sum(p is cell.leaf(first) for group in optimizer.param_groups for p in group["params"]) == 1
    before = cell.leaf(first).detach().clone()
    for _ in range(cell.rounds + 1):
        train(network, optimizer, 1)
        cell.assert_member(network)
        assert cell.leaf(first) is cell.leaf(second) and torch.equal(first.weight, second.weight)
    assert not torch.equal(before, cell.leaf(first))


@pytest.mark.cells(way="step", shape="square")
def test_a_shared_weight_moves_as_far_as_one_of_its_own(cell):
    """Twice per step would be twice as far."""
    first, second = twins(cell)
    alone = cell.square()
    constrain(alone, cell.constraint, "step")
    alone.load_state_dict(first.state_dict())
    gradient = torch.randn_like(alone.weight)
    for network in (nn.Sequential(first, second), nn.Sequential(alone)):
        optimizer = hold(network, torch.optim.SGD([network[0].weight], 0.01))
        network[0].weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(first.weight, alone.weight, atol=1e-6, rtol=0)


@pytest.mark.cells(way="step", shape="square")
def test_a_weight_tied_after_constrain(cell):
    first, second = cell.layer(), cell.square()
    second.weight = first.weight
    network = nn.Sequential(first, nn.ReLU(), second, cell.flat(), cell.head())
    optimizer = hold(network, adam(network.parameters()))
    for _ in range(cell.rounds + 1):
        train(network, optimizer, 1)
        cell.assert_member(network)
    assert first.weight is second.weight


def test_one_parameter_on_two_sets_is_refused():
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    constrain(first, Orthonormal())
    with refused("weight"):
        constrain(second, RowL1Ball())
        network = nn.Sequential(first, second)
        train(network, hold(network, adam(network.parameters())), 2)


@pytest.mark.cells(shape="square", names=set(STEP | FORWARD) - CHARTS)
def test_a_copy_of_tied_layers_is_tied_and_freeze_keeps_the_function(cell):
    first, second = twins(cell)
    network = nn.Sequential(first, nn.ReLU(), second)
    twin = copy.deepcopy(network)
    assert cell.leaf(twin[0]) is cell.leaf(twin[2]) and cell.leaf(twin[0]) is not cell.leaf(first)
    x = inputs(network)
    torch.testing.assert_close(freeze(network)(x), network(x), atol=1e-5, rtol=0)
