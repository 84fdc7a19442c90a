"""A step interrupted at a line of ours, every third: weights are weights, on their sets, and training goes on."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tightlip
from tightlip import Orthonormal, RowL1Ball, constrain, hold
from tightlip.constraints import constraint_of

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
        number += 3
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
