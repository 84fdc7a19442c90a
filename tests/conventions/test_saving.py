"""Saving and loading: what trains, all of it, and the optimizer's state wherever a run was stopped."""

import io

import pytest
import torch
from conventions.cells import CHARTS, FORWARD, STEP, adam, inputs, momentum, same, train, values
from torch import nn

from tightlip import freeze, hold
from tightlip.constraints import constraint_of


def through_a_file(*things):
    """What a file gives back, read without pickles."""
    file = io.BytesIO()
    torch.save(things, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.cells(names=set(STEP | FORWARD) - CHARTS)
def test_what_trains_is_enough_to_restore_the_function(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    (trained,) = through_a_file({name: p.detach() for name, p in network.named_parameters() if p.requires_grad})
    assert {name.split(".")[0] for name in trained} == {"0", "2", "4"}
    other = cell.network(5)
    x = inputs(network)
    assert not torch.equal(other(x), network(x))
    assert not other.load_state_dict(trained, strict=False).unexpected_keys
    torch.testing.assert_close(other(x), network(x), atol=0, rtol=0)


def test_the_whole_state_restores_the_function_and_trains_on(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    (state,) = through_a_file(network.state_dict())
    other = cell.network(5)
    other.load_state_dict(state)
    x = inputs(network)
    torch.testing.assert_close(other(x), network(x), atol=0, rtol=0)
    cell.assert_member(other)
    train(other, hold(other, adam(other.parameters())), 2)
    cell.assert_member(other)


@pytest.mark.cells(way="step")
def test_a_plain_network_takes_the_state_and_gives_it_back(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    plain, other = cell.plain(), cell.network(5)
    plain.load_state_dict(network.state_dict())
    other.load_state_dict(plain.state_dict())
    x = inputs(network)
    for each in (plain, other):
        torch.testing.assert_close(each(x), network(x), atol=0, rtol=0)


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_run_resumed_from_its_files_goes_on_bit_for_bit(cell, make, late):
    """In the first round and past a whole tournament; loaded after hold, or before it."""
    network, optimizer = cell.held(make=make)
    train(network, optimizer, cell.rounds + 2 if late else 3)
    state, steps = through_a_file(network.state_dict(), optimizer.state_dict())
    other = cell.network(5)
    other_optimizer = make(other.parameters())
    if late:
        hold(other, other_optimizer)
    other.load_state_dict(state)
    other_optimizer.load_state_dict(steps)
    hold(other, other_optimizer)
    for each, each_optimizer in ((network, optimizer), (other, other_optimizer)):
        train(each, each_optimizer, min(cell.rounds, 8) + 2, seed=50)
        cell.assert_member(each)
    assert same(network, other)


def test_the_optimizer_keeps_one_entry_a_parameter(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    assert len(optimizer.state_dict()["state"]) == len(list(network.parameters()))
    assert {id(p) for p in optimizer.state} == {id(p) for p in network.parameters()}


def test_weights_of_an_earlier_epoch_can_be_put_back_while_training(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    best, x = values(network), inputs(network)
    outputs = network(x)
    train(network, optimizer, 3)
    network.load_state_dict(best)
    assert torch.equal(network(x), outputs)
    for _ in range(3):
        train(network, optimizer, 1)
        cell.assert_member(network)


def test_tensors_assigned_by_load_state_dict_are_held_as_the_old_ones_were(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    other = cell.network(5)
    other.load_state_dict(values(network), assign=True)
    x = inputs(network)
    torch.testing.assert_close(other(x), network(x), atol=0, rtol=0)
    held = hold(other, momentum(other.parameters()))
    before = cell.leaf(other[0]).detach().clone()
    for _ in range(cell.rounds + 1):
        train(other, held, 1)
        cell.assert_member(other)
    assert not torch.equal(before, cell.leaf(other[0]))
    assert constraint_of(other[0]) is cell.constraint


@pytest.mark.cells(way="step")
def test_a_parameter_put_in_place_of_the_weight_is_held_as_the_old_one_was(cell):
    network = cell.network()
    network[0].weight = nn.Parameter(cell.network(9)[0].weight.detach().clone())
    optimizer = hold(network, momentum(network.parameters()))
    before = network[0].weight.detach().clone()
    for _ in range(cell.rounds + 1):
        train(network, optimizer, 1)
        cell.assert_member(network)
    assert not torch.equal(before, network[0].weight)


@pytest.mark.cells(names=set(STEP | FORWARD) - CHARTS)
def test_a_frozen_network_takes_the_place_of_what_was_trained(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    frozen = freeze(network)
    assert list(frozen.state_dict()) == list(cell.plain().state_dict())
    x = inputs(network)
    if cell.constraint.projects:
        torch.testing.assert_close(frozen(x), network(x), atol=1e-4, rtol=1e-4)
    train(network, optimizer, 2)
    cell.assert_member(network)
