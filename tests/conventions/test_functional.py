"""A weight used outside of its layer: F.linear, `functional_call`, the transforms of `torch.func`."""

import pytest
import torch
from conventions.cells import adam, goal, inputs, loss, refused, train, values
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vjp, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from tightlip import constrain, freeze, hold

deprecated = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, for jvp


class Doubled(nn.Module):
    """Someone else's parametrization."""

    def forward(self, weight):
        return 2 * weight


def doubled(layer):
    return parametrize.register_parametrization(layer, "weight", Doubled())


def parameters(network):
    return {name: p.detach() for name, p in network.named_parameters()}


def by_hand(network, x):
    """The same function, without calling a layer."""
    h = network[1](affine(network[0], x))
    h = network[3](affine(network[2], h))
    return F.linear(h, network[4].weight, network[4].bias)


def affine(layer, x):
    """What the layer does, by a function of torch."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, layer.weight, layer.bias)
    function = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    padding = layer.padding
    if layer.padding_mode == "circular":
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, "circular"), 0
    return function(x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def test_a_network_written_with_f_linear_trains(cell):
    network, optimizer = cell.held()
    x, before = inputs(network), cell.leaf(network[0]).detach().clone()
    optimizer.zero_grad()
    loss(network, x).backward()
    gradients = [p.grad.clone() for p in network.parameters()]
    for _ in range(cell.rounds):
        optimizer.zero_grad()
        (by_hand(network, x) - goal(x)).square().mean().backward()
        if gradients:
            for p, expected in zip(network.parameters(), gradients, strict=True):
                torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-5)
            gradients = []
        optimizer.step()
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


def test_functional_call_is_the_call(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    x = inputs(network)
    torch.testing.assert_close(functional_call(network, parameters(network), (x,)), network(x))
    other = cell.network(7)
    torch.testing.assert_close(functional_call(network, values(other), (x,)), other(x))
    train(network, optimizer, 2)
    cell.assert_member(network)


def test_functional_call_carries_gradients_to_the_parameters(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    x = inputs(network)
    optimizer.zero_grad()
    loss(network, x).backward()
    expected = [p.grad.clone() for p in network.parameters()]
    optimizer.zero_grad()
    outputs = functional_call(network, dict(network.named_parameters()), (x,))
    (outputs - goal(x)).square().mean().backward()
    for p, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_per_sample_gradients_are_those_of_a_loop(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    state, x = parameters(network), inputs(network, count=3)

    def single(state, x):
        return functional_call(network, state, (x[None],)).square().sum()

    found = vmap(grad(single), (None, 0))(state, x)
    assert found.keys() == state.keys()
    for number in range(3):
        optimizer.zero_grad()
        network(x[number][None]).square().sum().backward()
        for name, p in network.named_parameters():
            torch.testing.assert_close(found[name][number], p.grad, atol=1e-5, rtol=1e-4)
    train(network, optimizer, 1)
    cell.assert_member(network)


def test_training_on_mean_per_sample_gradients_is_training(cell):
    """As differentially private training does: gradients are made by vmap and written to ``.grad``."""
    network, optimizer = cell.held()
    before = cell.leaf(network[0]).detach().clone()

    def single(state, x):
        return functional_call(network, state, (x[None],)).square().sum()

    for number in range(cell.rounds):
        found = vmap(grad(single), (None, 0))(parameters(network), inputs(network, number))
        for name, p in network.named_parameters():
            p.grad = found[name].mean(0)
        optimizer.step()
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


@deprecated
def test_derivatives_by_the_input(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    x, direction = inputs(network, count=1)[0], inputs(network, 1, count=1)[0]
    reference = freeze(network) if cell.constraint.projects else None
    jacobian = jacrev(network)(x)
    assert jacobian.shape == (3, *x.shape)
    expected = torch.autograd.functional.jacobian(network, x)
    torch.testing.assert_close(jacobian, expected)
    expected = expected.flatten(1)
    value, change = jvp(network, (x,), (direction,))
    torch.testing.assert_close(change, expected @ direction.flatten(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(value, network(x))
    torch.testing.assert_close(vjp(network, x)[1](torch.ones(3))[0].flatten(), expected.sum(0))
    second = hessian(lambda x: network(x).square().sum())(x)
    second = second.reshape(x.numel(), x.numel())
    torch.testing.assert_close(second, 2 * expected.mT @ expected, atol=1e-4, rtol=1e-3)  # piecewise linear
    if reference is not None:
        torch.testing.assert_close(jacrev(reference)(x), jacobian, atol=1e-5, rtol=1e-4)


@deprecated
@pytest.mark.cells(way="step")
def test_derivatives_by_the_weights(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    state, x = parameters(network), inputs(network)

    def outputs(weight):
        return functional_call(network, {**state, "0.weight": weight}, (x,)).square().sum(0)

    direction = torch.randn_like(state["0.weight"])
    jacobian = jacrev(outputs)(state["0.weight"])
    _, change = jvp(outputs, (state["0.weight"],), (direction,))
    torch.testing.assert_close(change, (jacobian * direction).flatten(1).sum(1), atol=1e-4, rtol=1e-3)
    _, curvature = jvp(grad(lambda weight: outputs(weight).sum()), (state["0.weight"],), (direction,))
    assert torch.isfinite(curvature).all() and curvature.any()


@pytest.mark.cells(way="step")
def test_an_ensemble_by_vmap_over_stacked_networks(cell):
    networks = [cell.network(seed) for seed in (0, 1)]
    state, buffers = torch.func.stack_module_state(networks)
    x = inputs(networks[0])
    found = vmap(lambda state: functional_call(networks[0], (state, buffers), (x,)))(state)
    for value, network in zip(found, networks, strict=True):
        torch.testing.assert_close(value, network(x), atol=1e-5, rtol=1e-4)


@pytest.mark.cells(way="step")
def test_a_weight_off_its_set_is_refused_by_functional_call(cell):
    network = cell.network()
    state = {name: 50 * p for name, p in parameters(network).items()}
    if cell.name == "parseval":  # promises nothing
        assert functional_call(network, state, (inputs(network),)).shape == (8, 3)
        return
    with refused("left"):
        functional_call(network, state, (inputs(network),))


@pytest.mark.cells(shape="square")
def test_a_layer_that_someone_else_has_parametrized_is_refused_by_constrain(cell):
    for wrap in (parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal, doubled):
        layer = wrap(cell.square())
        with refused("nn.Linear"):
            constrain(layer, cell.constraint, cell.way)


@pytest.mark.parametrize("wrap", [doubled, parametrizations.spectral_norm, parametrizations.weight_norm])
def test_a_held_layer_that_someone_else_parametrizes_afterwards_is_refused(cell, wrap):
    network = cell.network()
    try:
        wrap(network[0])
    except TypeError:  # torch's own: weight_norm cannot follow another parametrization
        assert wrap is parametrizations.weight_norm and cell.way == "forward"
        return
    with refused("parametriz"):
        train(network, hold(network, adam(network.parameters())), 2)
        freeze(network)
