"""A step interrupted at a line of ours, every thirteenth: weights are weights, on their sets, and training goes on."""

import sys
from pathlib import Path

import pytest
import torch
from sweeps import EVERYTHING
from torch import nn

import tightlip
from tightlip import Orthonormal, RowL1Ball, constrain, hold
from tightlip.constraints import constraint_of

EVERY = 3 if EVERYTHING else 13
"""Lines from one interruption to the next."""

OURS = str(Path(tightlip.__file__).parent / "constraints")


class Interrupting:
    """Raises `KeyboardInterrupt` at the n-th line that this part of the library executes."""

    def __init__(self, number):
        self.left = number

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(OURS) or "torch" in frame.f_code.co_name:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def __enter__(self):
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(None)


def network_of(constraint):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for layer in network:
        constrain(layer, constraint)
    return network


def backward(network, optimizer):
    optimizer.zero_grad()
    network(torch.ones(3, 8)).square().sum().backward()


@pytest.mark.parametrize(
    "constraint", [Orthonormal(blocks=4), Orthonormal(blocks=1), Orthonormal(blocks=0), RowL1Ball()]
)
def test_a_step_may_be_interrupted(constraint):
    number, interrupted = 0, True
    while interrupted:
        number += EVERY
        network = network_of(constraint)
        optimizer = hold(network, torch.optim.Adam(network.parameters(), 0.01))
        backward(network, optimizer)
        optimizer.step()
        backward(network, optimizer)
        gradients = [layer.weight.grad.clone() for layer in network]
        try:
            with Interrupting(number):
                optimizer.step()
            interrupted = False
        except KeyboardInterrupt:
            pass
        for layer, gradient in zip(network, gradients, strict=True):
            assert layer.weight.shape == (8, 8), number
            assert torch.equal(layer.weight.grad, gradient), number
            assert constraint_of(layer).contains(layer.weight.detach()), number
        for _ in range(2):
            backward(network, optimizer)
            optimizer.step()
        assert all(constraint_of(layer).contains(layer.weight.detach()) for layer in network), number
    assert number > 100


OPTIMIZERS = {
    "adagrad": lambda weights: torch.optim.Adagrad(weights, 0.01),
    "fused momentum": lambda weights: torch.optim.SGD(weights, 0.01, momentum=0.9, fused=True),
    "adam": lambda weights: torch.optim.Adam(weights, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_that_was_nan_is_forgotten(name):
    network = network_of(Orthonormal(blocks=4))
    optimizer = hold(network, OPTIMIZERS[name](network.parameters()))
    network(torch.full((3, 8), torch.nan)).sum().backward()
    with pytest.raises(tightlip.TightlipError, match="NaN"):
        optimizer.step()
    for _ in range(5):
        backward(network, optimizer)
        optimizer.step()
    assert all(constraint_of(layer).contains(layer.weight.detach()) for layer in network)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_that_was_interrupted_when_its_state_was_put_away_is_forgotten(name, monkeypatch):
    from tightlip.constraints import frame

    def interrupted(*arguments):
        monkeypatch.undo()
        raise KeyboardInterrupt

    network = network_of(Orthonormal(blocks=4))
    optimizer = hold(network, OPTIMIZERS[name](network.parameters()))
    backward(network, optimizer)
    monkeypatch.setattr(frame, "close_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    for _ in range(5):
        backward(network, optimizer)
        optimizer.step()
    assert all(constraint_of(layer).contains(layer.weight.detach()) for layer in network)


class Spoiling(torch.optim.SGD):
    """Leaves NaN in the first weight, moves the others far, and fails."""

    def step(self, closure=None):
        with torch.no_grad():
            for number, p in enumerate(p for group in self.param_groups for p in group["params"] if p.dim() == 2):
                p.mul_(torch.nan if number == 0 else 5.0)
        raise ValueError("spoiled")


@pytest.mark.parametrize("constraint", [Orthonormal(blocks=0), RowL1Ball()], ids=repr)
def test_a_weight_that_cannot_be_put_back_keeps_no_other_from_it(constraint):
    network = network_of(constraint)
    Spoiling(network.parameters(), 0.1)
    optimizer = hold(network, Spoiling(network.parameters(), 0.1))
    backward(network, optimizer)
    with pytest.raises(ValueError, match="spoiled"):
        optimizer.step()
    assert constraint_of(network[1]).contains(network[1].weight.detach())


def test_a_closure_that_fails_after_the_optimizer_has_written_leaves_weights_on_their_sets():
    class Early(torch.optim.SGD):
        def step(self, closure):
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            closure()

    network = network_of(Orthonormal(blocks=4))
    Early(network.parameters(), 0.1)
    optimizer = hold(network, Early(network.parameters(), 0.1))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert all(constraint_of(layer).contains(layer.weight.detach()) for layer in network)
