"""Descriptions that are the same in another process, and differ where a function does."""

import functools
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import MaxMin, Orthonormal, TightlipError, constrain, margin_cross_entropy, mlp, pgd
from tightlip.training.identity import identity, structure


def of(thing, **options):
    return identity(thing, "the loss", **options)


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, outputs, targets):
        return self.weight * functional.mse_loss(outputs, targets)


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


class Penalized(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, outputs, targets):
        return self.weight * functional.mse_loss(outputs, targets)


def closed(weight):
    return lambda outputs, targets: weight * functional.mse_loss(outputs, targets)


def defaulted(weight):
    return lambda outputs, targets, factor=weight: factor * functional.mse_loss(outputs, targets)


def nested(weight):
    def outer(outputs, targets):
        def inner():
            return weight * functional.mse_loss(outputs, targets)

        return inner()

    return outer


MAKERS = {
    "a closure": closed,
    "a default": defaulted,
    "a closure inside": nested,
    "an object": Weighted,
    "slots": Slotted,
    "a method": lambda weight: Weighted(weight).__call__,
    "a module": Penalized,
    "a module of torch": lambda weight: nn.CrossEntropyLoss(label_smoothing=weight),
    "a weighted module": lambda weight: nn.CrossEntropyLoss(weight=torch.tensor([weight, 1.0])),
    "a partial": lambda weight: functools.partial(margin_cross_entropy, offset=weight),
    "a tensor": lambda weight: closed(torch.tensor(weight)),
    "an array": lambda weight: closed(np.array([weight])),
    "containers": lambda weight: closed({"a": [(weight,), {weight}], "b": frozenset([weight])}),
    "a generator": lambda weight: closed(np.random.default_rng(int(10 * weight))),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_made_alike_is_described_alike_and_what_differs_is_not(make):
    assert of(make(0.25)) == of(make(0.25)) != of(make(0.5))


def test_functions_of_libraries_are_their_names():
    assert of(functional.mse_loss) == "torch.nn.functional.mse_loss;"
    assert of(margin_cross_entropy) == "tightlip.losses.margin_cross_entropy;"
    assert "tightlip.robustness.attacks.pgd" in of(functools.partial(pgd, eps=0.1))
    assert of(math.sqrt) != of(math.exp) and of(torch.relu) != of(torch.tanh)
    assert of(torch.Tensor.mean) != of(torch.Tensor.sum)


def test_a_function_that_is_written_anew_under_its_name_is_another_one():
    """As a cell of a notebook is, or a script between two runs."""

    def made(body, **names):
        exec(f"def loss(o, y):\n    return {body}", names)
        return names["loss"]

    first = of(made("(o - y).square().mean()"))
    assert first == of(made("(o - y).square().mean()"))
    assert first != of(made("(o - y).square().sum()"))
    assert first != of(made("2.0 * (o - y).square().mean()"))
    assert of(made("W * (o - y).mean()", W=1.0)) != of(made("W * (o - y).mean()", W=2.0))
    assert of(made("(lambda: W * o.mean())()", W=1.0)) != of(made("(lambda: W * o.mean())()", W=2.0))
    assert of(made("f(o, y)", f=closed(1.0))) != of(made("f(o, y)", f=closed(2.0)))


def test_the_network_may_be_referred_to_whatever_its_weights():
    networks = mlp([2, 4, 1]), mlp([2, 4, 1])

    def penalty(network):
        return lambda o, y: functional.mse_loss(o, y) + network[0].weight.norm() + closed(network)(o, y)

    described = [of(penalty(network), network=network) for network in networks]
    assert described[0] == described[1]
    assert of(penalty(networks[0])) != of(penalty(networks[1]))


def test_what_refers_to_itself_ends():
    loop = []
    loop.append(loop)

    def recursive(n):
        return n and recursive(n - 1)

    assert of(loop) == of(loop) and of(recursive) == of(recursive)


@pytest.mark.parametrize("thing", [threading.Lock(), sys.stderr, (n for n in range(3)), sys._getframe()])
def test_what_has_no_description_asks_for_a_tag(thing):
    with pytest.raises(TightlipError, match="tell the loss from others, and a .* has no stable description: give tag="):
        of(closed(thing))
    assert of(closed(thing), tag="a") == of(closed(thing), tag="a") != of(closed(thing), tag="b")


def test_with_a_tag_functions_that_no_import_reaches_are_not_looked_into():
    assert of(closed(1.0), tag="a") == of(closed(2.0), tag="a")
    assert of(functools.partial(margin_cross_entropy, offset=1.0), tag="a") != of(
        functools.partial(margin_cross_entropy, offset=2.0), tag="a"
    )


PROCESS = """
import functools, torch, numpy
from torch.nn import functional
from tightlip import mlp
from tightlip.training.identity import identity, structure
W = {"b": 1.0, "a": frozenset(["x", "y", "z"])}
class Loss:
    def __init__(self): self.names = {"p", "q", "r"}; self.table = numpy.arange(3)
    def __call__(self, o, y): return W["b"] * functional.mse_loss(o, y) if "x" in {"x", "y", "z"} else len(self.names)
print(identity(Loss(), "the loss"))
print(structure(torch.nn.Sequential(torch.nn.Flatten(), mlp([3, 4, 2]), torch.nn.Dropout(0.1))))
"""


def test_another_process_gives_the_same_description():
    """Whatever the order of its sets and the places of its objects."""
    environments = [os.environ | {"PYTHONHASHSEED": str(seed)} for seed in (1, 2)]
    command = [sys.executable, "-c", PROCESS]
    outputs = [subprocess.run(command, env=e, capture_output=True, check=True).stdout for e in environments]
    assert outputs[0] == outputs[1] and outputs[0]


class Steep(nn.Module):
    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return self.slope * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.ReLU(), nn.Tanh()),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (Steep(), Steep(2.0)),
        (mlp([2, 4, 1]), mlp([2, 4, 1], K=2.0)),
        (mlp([2, 4, 1]), mlp([2, 4, 1], hold="forward")),
        (mlp([2, 4, 1]), mlp([2, 4, 1], activation=functools.partial(MaxMin, contiguous=True))),
        (nn.Linear(2, 2), constrain(nn.Linear(2, 2), Orthonormal())),
        (nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)),
        (nn.Linear(2, 2), nn.Linear(2, 2).double()),
    ],
)
def test_networks_are_told_apart_by_all_but_their_numbers(one, other):
    assert structure(one) != structure(other)
    with torch.no_grad():
        before = structure(one)
        for weight in one.parameters():
            weight.mul_(0.5)
    assert structure(one) == before
