"""Copies by deepcopy and pickle, at every step of a round: they train on, and the original is not touched."""

import copy
import pickle

import pytest
import torch
from conventions.cells import adam, inputs, momentum, same, train, values

from tightlip import TightlipError, hold


def by_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


each_copy = pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle])


def refuses_pickles(cell, network, duplicate):
    """Torch says so itself where a weight is parametrized."""
    if cell.way == "step" or duplicate is copy.deepcopy:
        return False
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        duplicate(network)
    return True


@each_copy
def test_a_copy_at_every_step_of_a_round_trains_on_and_the_original_stands_still(cell, duplicate):
    network, optimizer = cell.held()
    if refuses_pickles(cell, network, duplicate):
        return
    for number in range(cell.rounds + 2):
        train(network, optimizer, 1, number)
        twin, before, x = duplicate(network), values(network), inputs(network, number)
        assert same(twin, network) and torch.equal(twin(x), network(x))
        held = hold(twin, momentum(twin.parameters()))
        train(twin, held, 2, number)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert not torch.equal(cell.leaf(twin[0]), cell.leaf(network[0]))
        if number % 8 == 0 or number >= cell.rounds:
            cell.assert_member(twin)
    cell.assert_member(network)


@each_copy
def test_a_network_copied_together_with_its_optimizer_goes_on_bit_for_bit(cell, duplicate):
    network, optimizer = cell.held()
    if refuses_pickles(cell, network, duplicate):
        return
    for number in range(min(cell.rounds, 8) + 1):
        train(network, optimizer, 1, number)
        twin, twin_optimizer = duplicate((network, optimizer))
        hold(twin, twin_optimizer)  # copied optimizers lose their hooks
        original, original_optimizer = copy.deepcopy((network, optimizer))
        hold(original, original_optimizer)
        for each, step in ((twin, twin_optimizer), (original, original_optimizer)):
            train(each, step, 2, 20)
        assert same(twin, original)
        assert not same(twin, network)
    train(twin := copy.deepcopy(network), hold(twin, adam(twin.parameters())), 1)
    cell.assert_member(network)


def test_the_copy_and_the_original_walk_the_same_way(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    twin, twin_optimizer = copy.deepcopy((network, optimizer))
    hold(twin, twin_optimizer)
    for each, step in ((network, optimizer), (twin, twin_optimizer)):
        train(each, step, min(cell.rounds, 8) + 2, 20)
        cell.assert_member(each)
    assert same(network, twin)


@pytest.mark.cells(way="step")
@each_copy
def test_a_copied_optimizer_that_nobody_has_held_again_moves_nothing(cell, duplicate):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    twin, twin_optimizer = duplicate((network, optimizer))
    before = values(twin)
    with pytest.raises(TightlipError, match=r"is a copy .* call tightlip\.hold"):
        train(twin, twin_optimizer, 1)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())
    train(twin, hold(twin, twin_optimizer), 2)
    train(network, optimizer, 2)
    assert same(network, twin)
    with pytest.raises(TightlipError, match="is a copy"):  # nor a copy of a copy
        train(*duplicate((twin, twin_optimizer)), 1)


def test_a_copy_of_a_layer_of_a_network_in_training(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    layer, x = copy.deepcopy(network[0]), inputs(network)
    assert torch.equal(layer(x), network[0](x))
    before = values(network)
    held = hold(layer, momentum(layer.parameters()))
    for _ in range(cell.rounds):
        held.zero_grad()
        layer(x).square().mean().backward()
        held.step()
    cell.assert_member(layer)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    train(network, optimizer, 1)
    cell.assert_member(network)
