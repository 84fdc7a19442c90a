"""Descriptions that are the same in another process, and differ where a function does."""

import functools
import math
import os
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from tightlip import MaxMin, Orthonormal, TightlipError, constrain, margin_cross_entropy, mlp, pgd
from tightlip.training.identity import batching, identity, recipe, structure


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


def classed(weight):
    """A class of its own whose attribute the object does not hold."""

    class Classed:
        weights = (weight, 1.0)

        def __call__(self, outputs, targets):
            return self.weights[0] * functional.mse_loss(outputs, targets)

    return Classed()


def cached_property(weight):
    class Lazy:
        @functools.cached_property
        def weight(self):
            return weight

    return Lazy()


def cached(weight):
    @functools.lru_cache
    def factor():
        return weight

    return closed(factor)


def attributed(weight):
    def loss(outputs, targets):
        return loss.weight * functional.mse_loss(outputs, targets)

    loss.weight = weight
    return loss


def dispatched(weight):
    @functools.singledispatch
    def loss(outputs, targets):
        return weight

    loss(0, 0)  # which it remembers
    return loss


def helping(weight, **others):
    """A function that reads the global of another module of the caller's, as ``import helpers; helpers.W`` does."""
    helpers = types.ModuleType("helpers")
    vars(helpers).update(W=weight, unread=time.time(), **others)
    names = {"helpers": helpers}
    exec("def loss(o, y):\n    return helpers.W * (o - y).mean()", names)
    return names["loss"]


def nested_module(weight):
    package, inner = types.ModuleType("package"), types.ModuleType("package.inner")
    package.inner, inner.factor = inner, closed(weight)
    names = {"package": package}
    exec("def loss(o, y):\n    return package.inner.factor(o, y)", names)
    return names["loss"]


def importing(weight):
    sys.modules["helpers_of_a_test"] = helpers = types.ModuleType("helpers_of_a_test")
    helpers.W = weight
    names = {}
    exec("def loss(o, y):\n    from helpers_of_a_test import W\n    return W * (o - y).mean()", names)
    return names["loss"]


def within(weight):
    """A module in an object, of which anything may be read."""
    helpers = types.ModuleType("helpers")
    helpers.W = weight
    return Weighted(helpers)


class Private(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self._weight = weight


def hooked(weight):
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, args, output: weight * output)
    return closed(layer)


def partial_method(weight):
    class Loss:
        def scaled(self, factor, outputs, targets):
            return factor * functional.mse_loss(outputs, targets)

        __call__ = functools.partialmethod(scaled, weight)

    return Loss()


def wrapped(weight):
    @functools.wraps(functional.mse_loss)
    def loss(outputs, targets):
        return weight * functional.mse_loss(outputs, targets)

    return loss


MAKERS = {
    "a class's tuple": classed,
    "a class's dictionary": lambda weight: type("Loss", (), {"table": {"a": weight}})(),
    "a class's partial": lambda weight: type("Loss", (), {"f": functools.partial(margin_cross_entropy, offset=weight)}),
    "a class's tensor": lambda weight: type("Loss", (Weighted,), {"scale": torch.tensor(weight)})(1.0),
    "a cached property": cached_property,
    "a partial method": partial_method,
    "a cached function": cached,
    "a function's attribute": attributed,
    "a dispatched function": dispatched,
    "another module's global": helping,
    "another package's function": nested_module,
    "an import inside": importing,
    "a module in an object": within,
    "a private attribute": Private,
    "a hook": hooked,
    "a wrapper of a library's": wrapped,
    "a ufunc": lambda weight: functools.partial(np.add if weight < 0.3 else np.multiply, 1.0),
    "which of two": lambda weight: (lambda a, b: closed([a, b, a if weight < 0.3 else b]))([1], [2]),
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
    assert "tightlip.robustness.attacks.projected_gradient.pgd" in of(functools.partial(pgd, eps=0.1))
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


def test_compiled_functions_and_networks_are_what_was_compiled():
    compiled = [torch.compile(closed(weight), backend="eager") for weight in (1.0, 1.0, 2.0)]
    assert of(compiled[0]) == of(compiled[1]) != of(compiled[2])
    networks = [torch.compile(mlp([2, 2, width], K=1.0), backend="eager") for width in (2, 2, 3)]
    assert structure(networks[0]) == structure(networks[1]) != structure(networks[2])


def test_what_is_called_changes_no_description():
    """As classes remember what pickle asked of them, and functions what they computed."""
    loss = cached(2.0)
    before = of(loss), of(Slotted(1.0)), of(dispatched(1.0))
    loss.__closure__[0].cell_contents()
    assert before == (of(loss), of(Slotted(1.0)), of(dispatched(1.0)))


def test_a_module_without_a_file_is_not_a_librarys():
    """As one that a notebook makes, or that is run from memory."""
    module = sys.modules["made_in_memory"] = types.ModuleType("made_in_memory")
    described = []
    for factor in (1.0, 2.0):
        exec(f"def loss(o, y):\n    return {factor} * (o - y).mean()", vars(module))
        described.append(of(module.loss))
    assert described[0] != described[1]


def test_a_ufunc_of_ones_own_needs_a_tag():
    with pytest.raises(TightlipError, match="a ufunc, in it has no stable description"):
        of(np.frompyfunc(lambda o, y: o - y, 2, 1))


def test_what_is_nested_too_deeply_is_one_sentence():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TightlipError, match="the loss is nested too deeply"):
        of(deep)


class First(torch.optim.SGD):
    factor = (1.0, 2.0)


Second = type("First", (torch.optim.SGD,), {"factor": (1.0, 3.0), "__module__": First.__module__})
NETWORK = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def groups(*rates, swapped=False):
    parts = [list(layer.parameters()) for layer in (reversed(NETWORK) if swapped else NETWORK)]
    return torch.optim.SGD([{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: First(NETWORK.parameters(), 0.1), lambda: Second(NETWORK.parameters(), 0.1)),
        (lambda: First(NETWORK.parameters(), 0.1), lambda: torch.optim.SGD(NETWORK.parameters(), 0.1)),
        (lambda: groups(0.1, 0.2), lambda: groups(0.2, 0.1)),
        (lambda: groups(0.1, 0.2), lambda: groups(0.1, 0.2, swapped=True)),
        (lambda: groups(0.1, 0.1), lambda: torch.optim.SGD(NETWORK.parameters(), 0.1)),
        (lambda: torch.optim.SGD(NETWORK[0].parameters(), 0.1), lambda: torch.optim.SGD(NETWORK[1].parameters(), 0.1)),
        (lambda: torch.optim.Adam(NETWORK.parameters(), 0.1), lambda: torch.optim.AdamW(NETWORK.parameters(), 0.1)),
    ],
    ids=["a class of the name", "a subclass", "swapped rates", "swapped weights", "groups", "which weights", "AdamW"],
)
def test_optimizers_are_told_apart_by_class_options_and_weights(one, other):
    assert recipe(one(), NETWORK) == recipe(one(), NETWORK) != recipe(other(), NETWORK)


def data_loader(**options):
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.arange(12.0)), **options)


DATA = TensorDataset(torch.arange(12.0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: {"shuffle": True}, lambda: {"shuffle": False}),
        (lambda: {"batch_size": 3}, lambda: {"batch_size": 4}),
        (lambda: {"sampler": range(6)}, lambda: {"sampler": range(6, 12)}),
        (lambda: {"sampler": weighted(1.0)}, lambda: {"sampler": weighted(2.0)}),
        (lambda: {"batch_sampler": [[0, 1], [2]]}, lambda: {"batch_sampler": [[0, 2], [1]]}),
        (lambda: {"collate_fn": closed(1.0)}, lambda: {"collate_fn": closed(2.0)}),
        (lambda: {"shuffle": True, "generator": seed(0)}, lambda: {"shuffle": True, "generator": seed(1)}),
        (
            lambda: {"sampler": RandomSampler(DATA, generator=seed(0))},
            lambda: {"sampler": RandomSampler(DATA, generator=seed(1))},
        ),
        (lambda: {"sampler": RandomSampler(DATA, replacement=True)}, lambda: {"sampler": RandomSampler(DATA)}),
        (lambda: {"worker_init_fn": closed(1.0)}, lambda: {"worker_init_fn": closed(2.0)}),
    ],
)
def test_loaders_are_told_apart_by_order_and_batches(one, other):
    described = [of(batching(data_loader(**make())), moved=[]) for make in (one, one, other)]
    assert described[0] == described[1] != described[2]


def seed(number):
    return torch.Generator().manual_seed(number)


def weighted(weight):
    return WeightedRandomSampler([weight, 1.0, 1.0], 12)


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
import dataclasses, functools, sys, torch, numpy
for _ in range(len(sys.argv)):
    class Other(torch.autograd.Function): pass
from torch.nn import functional
from tightlip import mlp
from tightlip.training.identity import identity, structure
W = {"b": 1.0, "a": frozenset(["x", "y", "z"])}
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return 2 * x
    @staticmethod
    def backward(ctx, slope): return 2 * slope
@dataclasses.dataclass
class Options:
    rate: float = 1.0
    names: list = dataclasses.field(default_factory=list)
    @functools.cached_property
    def table(self): return {lambda: 1, lambda: 2}
class Loss:
    parts = frozenset([(Options, Twice), (Twice, "a"), ("b", Options)])
    def __init__(self): self.options = Options(); self.names = {"p", "q", "r"}; self.table = numpy.arange(3)
    def __call__(self, o, y): return W["b"] * functional.mse_loss(o, y) if "x" in {"x", "y", "z"} else len(self.names)
print(identity(Loss(), "the loss"))
print(structure(torch.nn.Sequential(torch.nn.Flatten(), mlp([3, 4, 2]), torch.nn.Dropout(0.1))))
"""


def test_another_process_gives_the_same_description():
    """Whatever the order of its sets and the places of its objects."""
    environments = [os.environ | {"PYTHONHASHSEED": str(seed)} for seed in (1, 2)]
    commands = [[sys.executable, "-c", PROCESS], [sys.executable, "-c", PROCESS, "with another class first"]]
    outputs = [
        subprocess.run(command, env=e, capture_output=True, check=True).stdout
        for command, e in zip(commands, environments, strict=True)
    ]
    assert outputs[0] == outputs[1] and outputs[0]


class Steep(nn.Module):
    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return self.slope * x


def buffered(value):
    """What no state_dict keeps, no checkpoint puts back."""
    layer = nn.Linear(2, 2)
    layer.register_buffer("offset", torch.tensor(value), persistent=False)
    return layer


def closed_over_a_hook(weight):
    layer = nn.Linear(2, 2)
    layer.register_forward_pre_hook(lambda module, args: (weight * args[0],))
    return layer


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
        (Private(1.0), Private(2.0)),
        (buffered(1.0), buffered(2.0)),
        (closed_over_a_hook(1.0), closed_over_a_hook(2.0)),
    ],
)
def test_networks_are_told_apart_by_all_but_their_numbers(one, other):
    assert structure(one) != structure(other)
    with torch.no_grad():
        before = structure(one)
        for weight in one.parameters():
            weight.mul_(0.5)
    assert structure(one) == before
