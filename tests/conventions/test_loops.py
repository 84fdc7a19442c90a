"""Training loops as people write them: what happens between one step and the next."""

import pytest
import torch
from conventions.cells import adam, inputs, loss, momentum, same, train, values
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.checkpoint import checkpoint

from tightlip import hold


def test_accumulated_gradients_are_those_of_the_whole_batch(cell):
    (one, optimizer), (other, other_optimizer) = cell.held(), cell.held()
    for number in range(3):
        x = inputs(one, number)
        optimizer.zero_grad()
        other_optimizer.zero_grad()
        loss(one, x).backward()
        for half in x.chunk(2):
            (loss(other, half) / 2).backward()
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-4)
            q.grad.copy_(p.grad)  # sums in another order differ in the last bits
        optimizer.step()
        other_optimizer.step()
        cell.assert_member(other)
    assert same(one, other)


CLIPS = {
    "norm": lambda p: clip_grad_norm_(p, 0.01),
    "value": lambda p: clip_grad_value_(p, 1e-4),
    "foreach": lambda p: clip_grad_norm_(p, 1.0, foreach=True),
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_clipped_gradients_train(cell, clip):
    network, optimizer = cell.held(make=momentum)
    before = cell.leaf(network[0]).detach().clone()
    for number in range(3):
        optimizer.zero_grad()
        loss(network, inputs(network, number)).backward()
        clip(network.parameters())
        optimizer.step()
        cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0]))


@pytest.mark.cells(way="step")
def test_clipping_sees_the_ordinary_gradient(cell):
    network, optimizer = cell.held()
    plain = cell.plain()
    train(network, optimizer, 2)
    plain.load_state_dict(network.state_dict())
    optimizer.zero_grad()
    for each in (network, plain):
        loss(each, inputs(each)).backward()
    found, expected = (clip_grad_norm_(each.parameters(), 0.1) for each in (network, plain))
    torch.testing.assert_close(found, expected)


def test_a_closure_trains_as_a_step_does(cell):
    (one, optimizer), (other, other_optimizer) = cell.held(), cell.held()
    train(one, optimizer, min(cell.rounds, 8) + 1)
    for number in range(min(cell.rounds, 8) + 1):

        def closure(number=number):
            other_optimizer.zero_grad()
            value = loss(other, inputs(other, number))
            value.backward()
            return value

        assert other_optimizer.step(closure).requires_grad
    assert same(one, other)
    cell.assert_member(other)


def test_a_graph_that_is_kept_gives_its_gradient_twice(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 1)
    optimizer.zero_grad()
    value = loss(network, inputs(network))
    value.backward(retain_graph=True)
    once = [p.grad.clone() for p in network.parameters()]
    value.backward()
    for p, gradient in zip(network.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * gradient)
    optimizer.step()
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_a_graph_older_than_the_last_step_is_refused_by_torch(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 1)
    x = inputs(network).requires_grad_(True)
    stale = loss(network, x)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def penalty(network, x):
    x = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return (slope.norm(dim=-1) - 1).square().mean()


def test_a_gradient_penalty_trains(cell):
    network, optimizer = cell.held()
    x = inputs(network)
    if cell.way == "step":
        plain = cell.plain()
        plain.load_state_dict(network.state_dict())
        for each in (network, plain):
            penalty(each, x).backward()
        for p, q in zip(network.parameters(), plain.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad))
    before = cell.leaf(network[0]).detach().clone()
    for _ in range(cell.rounds):
        optimizer.zero_grad()
        (loss(network, x) + penalty(network, x)).backward()
        optimizer.step()
    assert not torch.equal(before, cell.leaf(network[0]))
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_double_backward_by_the_weights(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 1)
    optimizer.zero_grad()
    (gradient,) = torch.autograd.grad(loss(network, inputs(network)), network[0].weight, create_graph=True)
    gradient.square().sum().backward()
    assert network[0].weight.grad.any() and torch.isfinite(network[0].weight.grad).all()
    optimizer.step()
    cell.assert_member(network)


@pytest.mark.parametrize("to_none", [False, True])
def test_gradients_set_to_zero_or_to_none(cell, to_none):
    network, optimizer = cell.held(make=momentum)
    for number in range(min(cell.rounds, 8) + 1):
        optimizer.zero_grad(set_to_none=to_none)
        loss(network, inputs(network, number)).backward()
        optimizer.step()
    network.zero_grad(set_to_none=to_none)
    assert all((p.grad is None) if to_none else not p.grad.any() for p in network.parameters())
    before = values(network)
    optimizer.step()
    cell.assert_member(network)
    if to_none:
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_step_before_any_backward_does_nothing(cell):
    network, optimizer = cell.held()
    before = values(network)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    train(network, optimizer, 2)
    cell.assert_member(network)


def test_steps_inside_the_backward_pass(cell):
    """One optimizer a parameter, which steps as soon as its gradient is there."""
    network = cell.network()
    optimizers = {p: hold(network, momentum([p])) for p in network.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in network.parameters():
        p.register_post_accumulate_grad_hook(step)
    before = [p.detach().clone() for p in network.parameters()]
    for number in range(cell.rounds + 1):
        loss(network, inputs(network, number)).backward()
        if number % 8 == 0:
            cell.assert_member(network)
    assert not any(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_give_the_same_gradients(cell, reentrant):
    network, optimizer = cell.held()
    train(network, optimizer, 1)
    x = inputs(network).requires_grad_(True)
    gradients = []
    for forward in (network, lambda x: network[4](checkpoint(network[:4], x, use_reentrant=reentrant))):
        optimizer.zero_grad()
        forward(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    torch.testing.assert_close(*gradients)
    optimizer.step()
    cell.assert_member(network)


def test_evaluation_between_steps_changes_nothing(cell):
    (one, optimizer), (other, other_optimizer) = cell.held(), cell.held()
    for number in range(4):
        train(one, optimizer, 1, number)
        train(other, other_optimizer, 1, number)
        other.eval()
        with torch.inference_mode():
            other(inputs(other))
        with torch.no_grad():
            other(inputs(other))
        other.train()
    assert same(one, other)


def test_a_forward_during_accumulation_and_several_forwards_a_step(cell):
    network, optimizer = cell.held()
    for number in range(3):
        optimizer.zero_grad()
        x = inputs(network, number)
        (network(x) - network(-x) + network(2 * x)).square().mean().backward()
        with torch.no_grad():
            network(x)
        loss(network, x).backward()
        optimizer.step()
        cell.assert_member(network)


def test_a_critic_and_a_generator_take_turns(cell):
    critic = cell.network()
    shape = inputs(critic).shape[1:]
    generator = nn.Sequential(nn.Linear(4, shape.numel()), nn.Unflatten(1, shape))
    train_critic, train_generator = hold(critic, adam(critic.parameters())), adam(generator.parameters())
    for number in range(3):
        real, noise = inputs(critic, number), torch.randn(8, 4)
        train_critic.zero_grad()
        (critic(generator(noise).detach()).mean() - critic(real).mean()).backward()
        train_critic.step()
        train_generator.zero_grad()
        critic(generator(noise)).mean().neg().backward()
        before = values(critic)
        train_generator.step()
        assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
        cell.assert_member(critic)
