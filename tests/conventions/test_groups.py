"""Groups of parameters, decay, several optimizers, several networks, schedules of the learning rate."""

import pytest
import torch
from conventions.cells import adam, inputs, loss, momentum, train, values
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from tightlip import hold


def moved(network, before):
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def of(network, *places):
    return [p for place in places for p in network[place].parameters()]


@pytest.mark.cells(way="step")
def test_groups_have_rates_of_their_own(cell):
    network = cell.network()
    first, second = {"params": of(network, 0), "lr": 1e-4}, {"params": of(network, 2, 4), "lr": 1e-2}
    optimizer = hold(network, optim.SGD([first, second], momentum=0.9))
    swapped = cell.network()
    other = hold(
        swapped, optim.SGD([{"params": of(swapped, 0), "lr": 1e-2}, {"params": of(swapped, 2, 4), "lr": 1e-4}])
    )
    start = network[0].weight.detach().clone()
    for each, step in ((network, optimizer), (swapped, other)):
        train(each, step, 2)
        cell.assert_member(each)
    slow, fast = (float((each[0].weight.detach() - start).norm()) for each in (network, swapped))
    if cell.constraint.projects:
        assert 0 < 4 * slow < fast


def test_a_group_whose_rate_is_zero_stands_still(cell):
    network = cell.network()
    optimizer = hold(network, adam([{"params": of(network, 0), "lr": 0.0}, {"params": of(network, 2, 4)}]))
    start, other = network[0].weight.detach().clone(), network[2].weight.detach().clone()
    train(network, optimizer, 3)
    if cell.constraint.projects:
        torch.testing.assert_close(network[0].weight.detach(), start, atol=1e-5, rtol=0)
    assert not torch.equal(network[2].weight, other)
    cell.assert_member(network)


@pytest.mark.cells(way="step", orthonormal=True)
@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, 1e-2, weight_decay=10.0), lambda p: optim.AdamW(p, 1e-2, weight_decay=10.0)],
    ids=["sgd", "adamw"],
)
def test_decay_alone_moves_no_orthonormal_weight(cell, make):
    network, optimizer = cell.held(make=make)
    before, bias = network[0].weight.detach().clone(), network[0].bias.detach().clone()
    for number in range(min(cell.rounds, 8) + 1):
        optimizer.zero_grad()
        (network(inputs(network, number)) * 0).sum().backward()
        optimizer.step()
    torch.testing.assert_close(network[0].weight.detach(), before, atol=1e-5, rtol=0)
    assert not torch.equal(network[0].bias, bias)


@pytest.mark.cells(way="step")
def test_decay_with_gradients_keeps_the_weight_on_its_set(cell):
    network, optimizer = cell.held(make=lambda p: optim.AdamW(p, 1e-2, weight_decay=1.0))
    for number in range(4):
        train(network, optimizer, 1, number)
        cell.assert_member(network)


@pytest.mark.parametrize("again", [False, True], ids=["once", "held-again"])
def test_parameters_added_later_are_held_too(cell, again):
    network = cell.network()
    optimizer = hold(network, adam(of(network, 0)))
    train(network, optimizer, 2)
    optimizer.add_param_group({"params": of(network, 2, 4)})
    if again:
        hold(network, optimizer)
    before = values(network)
    for number in range(cell.rounds + 1):
        train(network, optimizer, 1, number)
        if number % 8 == 0:
            cell.assert_member(network)
    assert {name[0] for name in moved(network, before) if "bias" not in name} == {"0", "2", "4"}
    cell.assert_member(network)


def test_optimizers_take_named_parameters(cell):
    network = cell.network()
    optimizer = hold(network, adam(network.named_parameters()))
    train(network, optimizer, 2)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in network.named_parameters()]
    cell.assert_member(network)


def test_two_optimizers_share_a_network(cell):
    network = cell.network()
    first, second = hold(network, adam(of(network, 0))), hold(network, momentum(of(network, 2, 4)))
    for number in range(cell.rounds + 1):
        for optimizer, places in ((first, {"0"}), (second, {"2", "4"})):
            before = values(network)
            loss(network, inputs(network, number)).backward()
            optimizer.step()
            network.zero_grad()
            assert {name[0] for name in moved(network, before)} <= places
        if number % 8 == 0:
            cell.assert_member(network)
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_muon_for_the_matrices_and_adam_for_the_rest(cell):
    network = cell.network()
    muon = hold(network, optim.Muon([p for p in network.parameters() if p.ndim == 2], lr=1e-2))
    rest = hold(network, adam([p for p in network.parameters() if p.ndim != 2]))
    for number in range(cell.rounds + 1):
        muon.zero_grad()
        rest.zero_grad()
        loss(network, inputs(network, number)).backward()
        muon.step()
        rest.step()
        if number % 8 == 0:
            cell.assert_member(network)
    cell.assert_member(network)


def test_one_optimizer_trains_two_networks(cell):
    first, second = cell.network(), cell.network(5)
    optimizer = adam([*first.parameters(), *second.parameters()])
    for network in (first, second):
        hold(network, optimizer)
    before = values(first), values(second)
    for number in range(2):
        optimizer.zero_grad()
        (loss(first, inputs(first, number)) + loss(second, inputs(second, number))).backward()
        optimizer.step()
    for network, start in zip((first, second), before, strict=True):
        cell.assert_member(network)
        assert moved(network, start)


def test_an_optimizer_also_trains_what_is_not_held(cell):
    network, other = cell.network(), nn.Linear(3, 3)
    optimizer = hold(network, adam([*network.parameters(), *other.parameters()]))
    before = other.weight.detach().clone()
    optimizer.zero_grad()
    other(network(inputs(network))).square().mean().backward()
    optimizer.step()
    cell.assert_member(network)
    assert not torch.equal(other.weight, before)


def test_an_optimizer_made_anew_in_the_middle(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    before = cell.leaf(network[0]).detach().clone()
    for make in (momentum, adam):
        optimizer = hold(network, make(network.parameters()))
        for number in range(3):
            train(network, optimizer, 1, number)
            cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


def test_two_optimizers_take_turns_on_the_same_parameters(cell):
    network = cell.network()
    optimizers = [hold(network, make(network.parameters())) for make in (momentum, adam)]
    for number in range(6):
        train(network, optimizers[number % 2], 1, number)
        cell.assert_member(network)


SCHEDULES = {
    "cosine": lambda o: CosineAnnealingLR(o, 6),
    "warm-up": lambda o: LambdaLR(o, lambda step: step / 3),
    "one-cycle": lambda o: OneCycleLR(o, o.defaults["lr"], total_steps=6),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_of_the_learning_rate(cell, schedule):
    network, optimizer = cell.held(make=momentum)
    scheduler = schedule(optimizer)
    before, rates = cell.leaf(network[0]).detach().clone(), set()
    for number in range(5):
        train(network, optimizer, 1, number)
        cell.assert_member(network)
        scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
        rates.add(optimizer.param_groups[0]["lr"])
    assert len(rates) > 1
    assert not torch.equal(before, cell.leaf(network[0]))


@pytest.mark.cells(way="step")
def test_a_rate_that_is_a_tensor(cell):
    network, optimizer = cell.held(make=lambda p: optim.Adam(p, lr=torch.tensor(3e-3), foreach=False))
    train(network, optimizer, 3)
    cell.assert_member(network)
