"""What a forward remembers, draws or asks for beside its input is refused, though a trace of it shows nothing."""

import collections
import datetime
import gc
import itertools
import os
import random
import time
import types
import uuid

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import TightlipError, certify, lipschitz, trace
from tightlip.graphs import Outputs, memory
from tightlip.graphs.chance import refuse_chance


class Forward(nn.Module):
    """A layer, something held, and a forward that does something beside the layer."""

    def __init__(self, act, held=None):
        super().__init__()
        self.layer, self.act, self.held = nn.Linear(4, 4), act, held

    def forward(self, x):
        self.act(self.held)
        return self.layer(x)


class Meter:
    n = 0


class Slotted:
    __slots__ = ("n",)

    def __init__(self):
        self.n = 0


class Unprintable:
    def __repr__(self):
        raise ValueError


def up(meter):
    meter.n += 1


def counting():
    count = 0

    def act(held):
        nonlocal count
        count += 1

    return act


def endless():
    number = 0
    while True:
        number += 1
        yield number


SEEN = [0]
CALLS = 0


def globally(held):
    global CALLS
    CALLS += 1


def in_a_list(held):
    SEEN[0] += 1


def in_a_class(held):
    Meter.n += 1


def raised(key):
    def act(held):
        held[key] += 1

    return act


REMEMBERING = {
    "an object": (up, Meter()),
    "a slot": (up, Slotted()),
    "a namespace": (up, types.SimpleNamespace(n=0)),
    "a class": (in_a_class, None),
    "a global number": (globally, None),
    "a global list": (in_a_list, None),
    "a closure": (counting(), None),
    "a long array": (raised(3000), np.zeros(5000)),
    "a tensor in a dictionary": (lambda held: held["t"].data.add_(1), {"t": torch.zeros(3)}),
    "a long tensor": (lambda held: held[0].data[5].add_(1), [torch.zeros(2**19)]),
    "a deque": (lambda held: held.append(1), collections.deque()),
    "a list in a list": (lambda held: held[1][0].append(1), [0, [[]]]),
    "a counter": (next, itertools.count()),
    "a generator": (next, endless()),
    "an iterator": (next, iter(range(10**6))),
    "random numbers of its own": (lambda held: held.random(), np.random.default_rng(0)),
    "a generator of torch": (lambda held: torch.rand((), generator=held), torch.Generator()),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_the_next_call_would_see_is_refused(name):
    with pytest.raises(TightlipError, match="it changes the module or what it uses"):
        trace(Forward(*REMEMBERING[name]).eval())


def test_the_place_is_named_and_what_does_not_change_is_no_matter():
    with pytest.raises(TightlipError, match=r"\(held\.n\)"):
        trace(Forward(up, Meter()).eval())
    held = [Unprintable(), Meter(), [np.zeros(9)], float("nan"), {"x": {1, "a"}}, random.Random(0), nn.ReLU(), []]
    trace(Forward(lambda held: None, held).eval())


def test_a_network_that_holds_a_data_set_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 1000)
    with pytest.raises(TightlipError, match="more than 1,000 objects"):
        trace(Forward(lambda held: None, [(None, []) for _ in range(600)]).eval())
    trace(Forward(lambda held: None, list(range(10**5))).eval())


RARE = {
    "torch": lambda: torch.rand(()) < 1e-9,
    "numpy": lambda: np.random.rand() < 1e-9,  # noqa: NPY002
    "numpy, new": lambda: np.random.default_rng().random() < 1e-9,
    "python": lambda: random.random() < 1e-9,
    "python, derived": lambda: random.gauss(0, 1) > 9,
    "the machine": lambda: os.urandom(8) == b"tightlip",
    "an identifier": lambda: uuid.uuid4().int == 7,
    "the clock": lambda: time.time() < 0,
    "another clock": lambda: time.perf_counter_ns() < 0,
    "the date": lambda: datetime.datetime.now().year < 2000,
}


@pytest.mark.parametrize("name", RARE)
def test_a_rare_branch_of_chance_is_refused(name):
    class Rare(nn.Module):
        def forward(self, x):
            return 100 * x if RARE[name]() else x

    with pytest.raises(TightlipError, match="is random or depends on the time"):
        lipschitz(Rare(), 2)


def test_a_profiler_goes_on_after_a_trace():
    import cProfile
    import sys

    profile = cProfile.Profile()
    profile.enable()
    with refuse_chance():
        pass
    assert sys.getprofile() is profile
    profile.disable()
    with refuse_chance():
        assert sys.getprofile() is not None
    assert sys.getprofile() is None


class Asking(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), forward

    def forward(self, x):
        return self.function(self.layer, x)


KINDS = {
    "its type": lambda f, x: f(100 * x) if type(x) is torch.Tensor else f(x),
    "whether it is a tensor": lambda f, x: f(100 * x) if isinstance(x, torch.Tensor) else f(x),
    "whether torch says so": lambda f, x: f(100 * x) if torch.is_tensor(x) else f(x),
    "whether it is traced": lambda f, x: f(x) if torch.fx._symbolic_trace.is_fx_symbolic_tracing() else f(100 * x),
    "its dtype": lambda f, x: f(100 * x) if x.dtype is torch.float32 else f(x),
    "its device": lambda f, x: f(100 * x) if x.device.type == "cpu" else f(x),
    "its gradient": lambda f, x: f(100 * x) if x.grad_fn is None else f(x),
    "whether it has one": lambda f, x: f(x) if x.requires_grad else f(100 * x),
    "whether it is a leaf": lambda f, x: f(100 * x) if x.is_leaf else f(x),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_branch_on_what_kind_of_thing_the_input_is_is_refused_before_any_input(name):
    with pytest.raises(TightlipError, match="makes of these inputs what its trace does not|asks for the"):
        lipschitz(Asking(KINDS[name]).eval(), 2)


def test_attributes_that_tensors_do_not_have_are_missed_in_the_trace_too():
    network = Asking(lambda f, x: 9 * f(x) if hasattr(x, "node_of_mine") else f(x)).eval()
    assert lipschitz(network, 2, 2).constant == lipschitz(network.layer, 2, 2).constant


AROUND = ["__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward", "__getattr__", "__getattribute__"]


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("inherited", [False, True])
def test_code_around_the_forward_of_a_class_is_refused(name, inherited):
    kinds = {
        "__getattr__": lambda self, key: nn.Module.__getattr__(self, key),
        "__getattribute__": lambda self, key: object.__getattribute__(self, key),
    }
    mixed = type("Mixed", (), {name: kinds.get(name, lambda self, x: 100 * self.forward(x))})
    body = {"forward": lambda self, x: x}
    own = {} if inherited else {name: vars(mixed)[name]}
    kind = type("Kind", (mixed, nn.Module) if inherited else (nn.Module,), body | own)
    kind.__module__ = __name__
    with pytest.raises(TightlipError, match=f"has a {name} of its own"):
        lipschitz(nn.Sequential(kind(), nn.Tanh()), 2)


def boom(problem):
    def forward(f, x):
        raise problem

    return forward


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (AssertionError(), "AssertionError: it asserts what does not hold of the placeholder"),
        (ImportError("no such thing"), "ImportError: no such thing"),
        (OSError(2, "gone"), "OSError|FileNotFoundError"),
        (StopIteration(), r"\(StopIteration\)"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (OverflowError("too large"), "OverflowError: too large"),
        (type("Odd", (Exception,), {})("own"), "Odd: own"),
    ],
)
def test_whatever_a_forward_raises_becomes_a_sentence(problem, words):
    with pytest.raises(TightlipError, match=f"cannot be traced.*({words})"):
        lipschitz(Asking(boom(problem)), 2)


def test_a_branch_on_values_is_told_without_words_of_torchs():
    with pytest.raises(
        TightlipError, match=r"branches on the values or sizes of its input, so no one constant"
    ) as told:
        lipschitz(Asking(lambda f, x: x if x.sum() > 0 else f(x)), 2)
    assert "symbolically" not in str(told.value)


def test_a_network_made_under_inference_mode_is_traced():
    with torch.inference_mode():
        network = Asking(lambda f, x: f(x) + x).eval()
    assert lipschitz(network, 2, 2).constant > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_forward_that_changes_types_is_compared_by_its_values(dtype, seed):
    network = Asking(lambda f, x: f(x).float()).to(dtype).eval()
    assert certify(network, torch.randn(3, 4)).radius.shape == (3,)


def test_a_forward_that_computes_in_a_coarser_type_is_compared_up_to_its_rounding(seed):
    def forward(f, x):
        with torch.autocast("cpu", torch.bfloat16):
            return f(x)

    assert certify(Asking(forward).eval(), torch.randn(3, 4)).radius.shape == (3,)
    with pytest.raises(TightlipError, match="compute in another type"):
        lipschitz(Asking(lambda f, x: f(x).to(torch.int32) if type(x) is torch.Tensor else f(x)).eval(), 2)


def test_inputs_that_do_not_fit_are_a_sentence():
    with pytest.raises(TightlipError, match="shape|do not fit"):
        certify(Asking(lambda f, x: f(x) + x).eval(), torch.zeros(3, 7))


def test_an_output_needs_a_name_and_a_container_layers():
    with pytest.raises(TightlipError, match="empty key"):
        trace(Asking(lambda f, x: {"": f(x), "a": x}))
    with pytest.raises(TightlipError, match="each its own name"):
        Outputs("a", "")
    assert isinstance(trace(Asking(lambda f, x: [f(x), x]).eval())(torch.zeros(2, 4)), tuple)
    hollow = nn.Sequential(nn.Linear(4, 4))
    hollow._modules["1"] = None
    with pytest.raises(TightlipError, match="Sequential holds None at '1'"):
        lipschitz(hollow, 2)


def test_what_others_do_when_garbage_is_collected_is_no_part_of_a_forward():
    def timed(phase, info):
        time.perf_counter()

    gc.callbacks.append(timed)
    try:
        trace(Forward(lambda held: [[number] for number in range(10_000)]).eval())
    finally:
        gc.callbacks.remove(timed)
    assert gc.isenabled()
