"""Freezing by ``requires_grad``, at any time, and weights that the optimizer does not list: they move by 0.0."""

import pytest
import torch
from conventions.cells import adam, inputs, loss, momentum, train
from torch import nn

from tightlip import constrain, hold

decaying = pytest.mark.parametrize(
    "make", [adam, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1)], ids=["adam", "momentum"]
)


def moved(leaf, before):
    return float((leaf.detach() - before).abs().max())


@pytest.mark.parametrize("listed", [True, False])
def test_a_weight_frozen_before_hold_does_not_move(cell, listed):
    network = cell.network()
    leaf, other = cell.leaf(network[0]), cell.leaf(network[2])
    leaf.requires_grad_(False)
    network[0].bias.requires_grad_(False)
    optimizer = hold(network, adam([p for p in network.parameters() if listed or p.requires_grad]))
    before, other_before = leaf.detach().clone(), other.detach().clone()
    train(network, optimizer, 3)
    assert moved(leaf, before) == 0.0
    assert moved(other, other_before) > 0
    cell.assert_member(network)


@decaying
def test_a_weight_frozen_after_hold_does_not_move(cell, make):
    network, optimizer = cell.held(make=make)
    leaf = cell.leaf(network[0]).requires_grad_(False)
    before = leaf.detach().clone()
    train(network, optimizer, 3)
    assert moved(leaf, before) == 0.0
    cell.assert_member(network)


@decaying
def test_a_weight_frozen_in_the_middle_stands_still_and_moves_again_once_unfrozen(cell, make):
    network, optimizer = cell.held(make=make)
    train(network, optimizer, 3)
    leaf = cell.leaf(network[0]).requires_grad_(False)
    before = leaf.detach().clone()
    train(network, optimizer, 3)
    assert moved(leaf, before) == 0.0
    leaf.requires_grad_(True)
    train(network, optimizer, cell.rounds)
    assert moved(leaf, before) > 0
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_a_weight_frozen_between_backward_and_step_does_not_move(cell):
    network, optimizer = cell.held(make=momentum)
    train(network, optimizer, 2)
    loss(network, inputs(network)).backward()
    weight = network[0].weight.requires_grad_(False)
    before = weight.detach().clone()
    optimizer.step()
    optimizer.step()
    assert moved(weight, before) == 0.0
    weight.requires_grad_(True)
    train(network, optimizer, 2)
    cell.assert_member(network)


def test_a_weight_that_the_optimizer_does_not_list_does_not_move(cell):
    network = cell.network()
    optimizer = hold(network, adam([cell.leaf(network[2]), *network[4].parameters()]))
    leaf, other = cell.leaf(network[0]), cell.leaf(network[2])
    before, other_before = leaf.detach().clone(), other.detach().clone()
    train(network, optimizer, 3)
    assert moved(leaf, before) == 0.0
    assert moved(other, other_before) > 0
    cell.assert_member(network)


def test_only_the_weights_may_be_listed(cell):
    network = cell.network()
    leaf = cell.leaf(network[0])
    optimizer = hold(network, adam([leaf]))
    before, bias = leaf.detach().clone(), network[0].bias.detach().clone()
    train(network, optimizer, cell.rounds)
    assert moved(leaf, before) > 0
    assert torch.equal(network[0].bias, bias)
    cell.assert_member(network)


def test_a_frozen_trunk_under_a_trained_head(cell):
    network = cell.network()
    network[:4].requires_grad_(False)
    optimizer = hold(network, adam(network.parameters()))
    before = {name: value.clone() for name, value in network[:4].state_dict().items()}
    head, first = network[4].weight.detach().clone(), cell.leaf(network[0]).detach().clone()
    train(network, optimizer, 3)
    assert all(torch.equal(value, before[name]) for name, value in network[:4].state_dict().items())
    assert not torch.equal(network[4].weight, head)
    network.requires_grad_(True)
    train(network, optimizer, cell.rounds)
    assert not torch.equal(cell.leaf(network[0]), first)
    cell.assert_member(network)


@pytest.mark.cells(way="step", shape="square")
def test_a_layer_that_was_frozen_when_it_was_constrained_stays_frozen_until_it_is_unfrozen(cell):
    plain = cell.square().requires_grad_(False)
    layer = constrain(plain, cell.constraint, "step")
    assert not any(p.requires_grad for p in layer.parameters())
    network = nn.Sequential(layer, cell.flat(), cell.head())
    optimizer = hold(network, adam(network.parameters()))
    before = layer.weight.detach().clone()
    train(network, optimizer, 2)
    assert moved(layer.weight, before) == 0.0
    layer.requires_grad_(True)
    train(network, optimizer, cell.rounds)
    assert moved(layer.weight, before) > 0
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_a_branch_without_a_gradient_does_not_move(cell):
    first, second = cell.network(), cell.network(5)
    both = nn.ModuleList([first, second])
    optimizer = hold(both, momentum(both.parameters()))
    before = second[0].weight.detach().clone()
    for number in range(3):
        optimizer.zero_grad()
        loss(first, inputs(first, number)).backward()
        optimizer.step()
    assert torch.equal(second[0].weight, before) and second[0].weight.grad is None
    train(second, optimizer, cell.rounds)
    assert not torch.equal(second[0].weight, before)
    cell.assert_member(both)
