"""What `layer.weight` is: under ``hold="step"`` exactly what it is in torch."""

import pytest
import torch
from conventions.cells import FORWARD, STEP, inputs, loss, train
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import tightlip


def test_the_matrix_has_every_constraint_that_is_exported():
    tried = [*STEP.values(), *FORWARD.values()]
    exported = [getattr(tightlip, name) for name in tightlip.__all__]
    sets = {c for c in exported if isinstance(c, type) and issubclass(c, tightlip.Constraint)} - {tightlip.Constraint}
    assert sets == {type(c) for c in tried}
    for way, names in (("step", STEP), ("forward", FORWARD)):
        assert {type(c) for c in names.values()} == {type(c) for c in tried if way in c.holds}


@pytest.mark.cells(way="step")
def test_names_are_those_of_plain_torch_before_and_after_training(cell):
    network, optimizer = cell.held()
    plain = cell.plain()
    for _ in range(2):
        shapes = [(name, p.shape, p.requires_grad) for name, p in network.named_parameters()]
        assert shapes == [(name, p.shape, p.requires_grad) for name, p in plain.named_parameters()]
        assert list(network.state_dict()) == list(plain.state_dict())
        assert [name for name, _ in network.named_modules()] == [name for name, _ in plain.named_modules()]
        assert not list(network.named_buffers())
        train(network, optimizer, 2)


@pytest.mark.cells(way="step")
def test_a_weight_is_a_leaf_that_keeps_its_identity_its_storage_and_its_gradient_over_a_step(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 1)
    for number in range(min(cell.rounds, 8) + 1):
        optimizer.zero_grad()
        loss(network, inputs(network, number)).backward()
        weight = network[0].weight
        gradient, storage, shape = weight.grad, weight.data_ptr(), weight.shape
        before = weight.detach().clone()
        optimizer.step()
        assert network[0].weight is weight and type(weight) is nn.Parameter and weight.is_leaf and weight.requires_grad
        assert weight.grad is gradient and weight.data_ptr() == storage
        assert weight.shape == weight.grad.shape == shape
        assert not torch.equal(weight, before)


@pytest.mark.cells(way="step")
def test_gradients_are_those_of_plain_torch_at_the_start_and_in_the_middle(cell):
    network, optimizer = cell.held()
    plain = cell.plain()
    for _ in range(2):
        train(network, optimizer, 3)
        plain.load_state_dict(network.state_dict())
        optimizer.zero_grad()
        plain.zero_grad()
        for each in (network, plain):
            loss(each, inputs(each)).backward()
        for (name, p), q in zip(network.named_parameters(), plain.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name


def test_every_parameter_gets_a_gradient_and_moves(cell):
    network, optimizer = cell.held()
    before = [p.detach().clone() for p in network.parameters()]
    optimizer.zero_grad()
    loss(network, inputs(network)).backward()
    assert all(p.requires_grad and p.grad is not None and p.grad.any() for p in network.parameters())
    optimizer.step()
    train(network, optimizer, cell.rounds - 1)
    assert not any(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))
    cell.assert_member(network)


def test_parameters_to_vector_and_back_changes_nothing_and_training_goes_on(cell):
    network, optimizer = cell.held()
    train(network, optimizer, 2)
    x = inputs(network)
    before = network(x)
    vector = parameters_to_vector(network.parameters()).detach()
    vector_to_parameters(vector, network.parameters())
    assert torch.equal(network(x), before)
    train(network, optimizer, 2)
    cell.assert_member(network)
    assert not torch.equal(network(x), before)


def test_hooks_on_the_tensor_are_called_and_what_they_return_is_the_gradient(cell):
    network, optimizer = cell.held()
    leaf, accumulated = cell.leaf(network[0]), []
    loss(network, inputs(network)).backward()
    expected = 2 * leaf.grad
    optimizer.zero_grad()
    handle = leaf.register_hook(lambda gradient: 2 * gradient)
    leaf.register_post_accumulate_grad_hook(lambda p: accumulated.append(p.grad.clone()))
    loss(network, inputs(network)).backward()
    assert torch.equal(leaf.grad, expected) and torch.equal(accumulated[0], expected)
    optimizer.step()
    handle.remove()
    train(network, optimizer, 2)
    assert len(accumulated) == 3
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_the_gradient_of_a_weight_can_be_asked_for_by_autograd(cell):
    network, _ = cell.held()
    x = inputs(network)
    (gradient,) = torch.autograd.grad(loss(network, x), network[0].weight)
    loss(network, x).backward()
    assert torch.equal(gradient, network[0].weight.grad)
