"""What goes wrong inside a step, and what is written to a weight from outside."""

import math

import pytest
import torch
from conventions.cells import STEP, Cell, adam, inputs, loss, momentum, refused, train, values
from torch import optim

from tightlip import Orthonormal, TightlipError, hold, mlp


class Interrupted(optim.SGD):
    """Fails once, before it has moved anything or when it has."""

    fails = None

    def step(self, closure=None):
        if self.fails == "early":
            raise KeyboardInterrupt
        super().step(closure)
        if self.fails == "late":
            raise KeyboardInterrupt


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_step_that_is_interrupted_leaves_an_ordinary_weight(cell, when):
    """Nothing moved: the weight is as it was. All moved: it is as it was, or it is on its set after the next step."""
    network, optimizer = cell.held(make=lambda p: Interrupted(p, 0.05, momentum=0.9))
    train(network, optimizer, 2)
    before = values(network)
    optimizer.fails = when
    with pytest.raises(KeyboardInterrupt):
        train(network, optimizer, 1)
    weight = network[0].weight
    assert weight.shape == before["0.weight"].shape and weight.grad.shape == weight.shape and weight.is_leaf
    if when == "early" or cell.turned:
        torch.testing.assert_close(weight.detach(), before["0.weight"], atol=1e-5, rtol=0)
    if when == "early":
        network(inputs(network))
    optimizer.fails = None
    optimizer.step()
    for number in range(cell.rounds + 1):
        train(network, optimizer, 1, number)
        if number % 8 == 0:
            cell.assert_member(network)
    assert not torch.equal(weight, before["0.weight"])
    assert len(optimizer.state_dict()["state"]) == 6


@pytest.mark.cells(way="step")
def test_a_state_read_after_an_interrupted_step_is_ordinary(cell):
    network, optimizer = cell.held(make=lambda p: Interrupted(p, 0.05, momentum=0.9))
    train(network, optimizer, 2)
    optimizer.fails = "early"
    with pytest.raises(KeyboardInterrupt):
        train(network, optimizer, 1)
    plain = cell.plain()
    plain.load_state_dict(network.state_dict())
    other, other_optimizer = cell.held(5, make=lambda p: Interrupted(p, 0.05, momentum=0.9))
    other.load_state_dict(network.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    train(other, other_optimizer, 3)
    cell.assert_member(other)


@pytest.mark.cells(way="step")
def test_a_closure_that_fails_leaves_the_weight_as_it_was(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    before = values(network)

    def closure():
        loss(network, inputs(network)).backward()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    torch.testing.assert_close(values(network), before, atol=1e-6, rtol=0)
    train(network, optimizer, 2)
    cell.assert_member(network)


@pytest.mark.cells(way="step", names=set(STEP) - {"parseval"})
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_raise_and_the_network_recovers(cell, bad):
    network, optimizer = cell.held(make=momentum)
    train(network, optimizer, 2)
    saved = values(network)
    optimizer.zero_grad()
    loss(network, inputs(network)).backward()
    network[2].weight.grad[0, 1] = bad
    with refused("learning rate"):
        optimizer.step()
    if cell.turned:
        assert torch.isfinite(network[2].weight).all()
    network.load_state_dict(saved)
    optimizer = hold(network, momentum(network.parameters()))
    for number in range(cell.rounds + 1):
        train(network, optimizer, 1, number)
        if number % 8 == 0:
            cell.assert_member(network)
    assert not torch.equal(network[2].weight, saved["2.weight"])


@pytest.mark.cells(turned=True)
def test_a_turned_network_recovers_from_nan_in_plain_sgd_by_itself(cell):
    network, optimizer = cell.held(make=lambda p: optim.SGD(p, 0.05))
    train(network, optimizer, 2)
    loss(network, inputs(network)).backward()
    network[2].weight.grad[0, 1] = math.nan
    with refused("learning rate"):
        optimizer.step()
    for number in range(cell.rounds + 1):
        train(network, optimizer, 1, number)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    cell.assert_member(network)


def by_load(network, state):
    network.load_state_dict(state)


def by_data(network, state):
    for name, p in network.named_parameters():
        p.data = state[name].clone()


def by_copy_into_data(network, state):
    for name, p in network.named_parameters():
        p.data.copy_(state[name])


def in_place(network, state):
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(state[name])


def signs_only(network, state):
    """Every size stays, so no norm of the entries shows it."""
    for p in network.parameters():
        p.data.abs_()


WRITES = [by_load, by_data, by_copy_into_data, in_place, signs_only]


@pytest.mark.cells(way="step", names=set(STEP) - {"parseval"})
@pytest.mark.parametrize("write", WRITES)
def test_a_weight_written_to_from_outside_is_refused_until_a_step_pulls_it_back(cell, write):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    x = inputs(network)
    network(x)
    write(network, {name: 20 * value for name, value in values(cell.plain()).items()})
    if not cell.contains(network[0], network[0].weight.detach()):
        with refused("left"):
            network(x)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    cell.assert_member(network)
    for number in range(3):
        train(network, optimizer, 1, number)
        cell.assert_member(network)


@pytest.mark.cells(way="step", orthonormal=True)
def test_a_write_between_backward_and_step_is_seen(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    loss(network, inputs(network)).backward()
    network[0].weight.data.mul_(1.5)
    optimizer.step()
    cell.assert_member(network)


def trained(blocks, steps=3, width=64):
    torch.manual_seed(0)
    network = mlp([width, width, width, 3], Orthonormal(blocks=blocks))
    optimizer = hold(network, adam(network.parameters()))
    train(network, optimizer, steps)
    return network, optimizer


@pytest.mark.parametrize("found", [0, 1, 8])
@pytest.mark.parametrize("made", [0, 1, 4, 8])
def test_the_state_of_another_number_of_blocks_is_refused_or_begun_anew(made, found):
    source, state = trained(made)
    network, optimizer = trained(found, steps=0)
    network.load_state_dict(source.state_dict())
    try:
        optimizer.load_state_dict(state.state_dict())
        for number in range(10):
            train(network, optimizer, 1, number)
            Cell("turned-8", "step", "square", 64).assert_member(network)
    except TightlipError as error:
        assert made != found and "blocks" in str(error) and "\n" not in str(error)
        assert network[0].weight.shape == (64, 64) and torch.isfinite(network[0].weight).all()


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("make", [adam, momentum])
def test_the_state_of_a_plain_networks_optimizer_is_refused_or_begun_anew(cell, make):
    plain = cell.plain()
    state = make(plain.parameters())
    train(plain, state, 3)
    network, optimizer = cell.held(make=make)
    try:
        optimizer.load_state_dict(state.state_dict())
        for number in range(cell.rounds + 2):
            train(network, optimizer, 1, number)
            if number % 8 == 0:
                cell.assert_member(network)
    except TightlipError as error:
        assert cell.turned and "\n" not in str(error)
        assert torch.isfinite(network[0].weight).all()


@pytest.mark.cells(way="step")
def test_the_state_of_a_held_optimizer_says_what_it_is_to_a_plain_one(cell):
    """A plain optimizer steps on it, or torch refuses the shapes; the held network is not touched."""
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    before = values(network)
    plain = cell.plain()
    other = adam(plain.parameters())
    try:
        other.load_state_dict(optimizer.state_dict())
        train(plain, other, 2)
    except RuntimeError:
        assert cell.turned
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
