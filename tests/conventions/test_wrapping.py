"""Optimizers around optimizers, optimizers that move weights between steps, and `hold` called the wrong way."""

import pytest
import torch
from conventions.cells import adam, inputs, loss, momentum, paced, refused, same, train
from torch import nn, optim

from tightlip import TightlipError, freeze, hold


class Prepared:
    """Not an Optimizer: hands everything on to the one inside."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        self.optimizer.step()


class PreparedOptimizer(optim.Optimizer):
    """An Optimizer by name, which never calls ``super().__init__()``."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def state(self):
        return self.optimizer.state

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def defaults(self):
        return self.optimizer.defaults

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        self.optimizer.step(closure)


class Lookahead(optim.Optimizer):
    """Every second step, the weights go half the way back to where they were two steps ago (Zhang et al. 2019)."""

    def __init__(self, optimizer):
        self.optimizer, self.count = optimizer, 0
        super().__init__(optimizer.param_groups, {})
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        self.optimizer.step(closure)
        self.count += 1
        if self.count % 2 == 0:
            for slow, p in zip(self.slow, (p for g in self.param_groups for p in g["params"]), strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)


def outcome(cell, network, wrapper):
    """True where a network trains and stays on its set under a wrapper, False where the library refuses it."""
    try:
        optimizer = hold(network, wrapper)
        for number in range(6):
            train(network, optimizer, 1, number)
            cell.assert_member(network)
    except TightlipError as error:
        assert "\n" not in str(error) and len(str(error)) > 40
        return False
    return True


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("wrap", [Prepared, PreparedOptimizer])
def test_a_wrapper_works_or_is_refused_and_what_it_wraps_can_be_held(cell, wrap):
    network = cell.network()
    outcome(cell, network, wrap(adam(network.parameters())))
    network = cell.network()
    wrapper = wrap(hold(network, adam(network.parameters())))
    before = network[0].weight.detach().clone()
    train(network, wrapper, cell.rounds)
    assert not torch.equal(before, network[0].weight)
    cell.assert_member(network)


@pytest.mark.cells(way="step")
def test_lookahead_works_or_is_refused(cell):
    network = cell.network()
    outcome(cell, network, Lookahead(momentum(network.parameters())))
    network = cell.network()
    inner = hold(network, momentum(network.parameters()))
    try:
        train(network, Lookahead(inner), 5)
    except TightlipError as error:
        assert "left" in str(error)
    train(network, inner, 1) if cell.name == "parseval" else optimizer_step_of_nothing(network, inner)
    cell.assert_member(network)


def optimizer_step_of_nothing(network, optimizer):
    """One step puts a weight that left its set back on it."""
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()


class Clipped(optim.Adam):
    """A subclass whose step does something, and then what its parent does: torch calls step hooks twice."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1e6)
        return super().step(closure)


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("known", [False, True], ids=["fresh", "parent-in-use"])
def test_a_subclass_that_calls_its_parents_step_trains_as_its_parent(cell, known):
    """Torch hooks a class when its first instance is made; then a step inside a step runs the hooks again."""
    if known:
        optim.Adam([nn.Parameter(torch.ones(1))])
    results = []
    for make in (adam, lambda p: paced(Clipped(p, lr=3e-3))):
        network, optimizer = cell.held(make=make)
        train(network, optimizer, min(cell.rounds, 8) + 2)
        cell.assert_member(network)
        results.append(network)
    if cell.constraint.projects:
        for p, q in zip(*(network.parameters() for network in results), strict=True):
            torch.testing.assert_close(p, q, atol=1e-4, rtol=0)


@pytest.mark.cells(way="step")
def test_a_step_method_replaced_on_the_object_is_still_held(cell):
    network, optimizer = cell.held()
    calls, step = [], optimizer.step

    def counted(closure=None):
        calls.append(True)
        return step(closure)

    optimizer.step = counted
    for number in range(3):
        train(network, optimizer, 1, number)
        cell.assert_member(network)
    assert len(calls) == 3


class ScheduleFree(optim.SGD):
    """Weights are one point while training and another while evaluating: ``train()`` and ``eval()`` move them."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, lr)
        self.mean = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def eval(self):
        for p, mean in zip((p for g in self.param_groups for p in g["params"]), self.mean, strict=True):
            p.data.lerp_(mean, 0.5)

    def train(self):
        for p, mean in zip((p for g in self.param_groups for p in g["params"]), self.mean, strict=True):
            p.data.lerp_(mean, -1.0)


class SAM(optim.SGD):
    """Evaluates at a second point, off the set."""

    def first_step(self, zero_grad=False):
        """Its presence is what gives such optimizers away."""

    def second_step(self, zero_grad=False):
        """The step itself."""


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("kind", [ScheduleFree, SAM])
def test_optimizers_that_move_weights_between_steps_are_refused_by_hold(cell, kind):
    network = cell.network()
    with refused(f"{kind.__name__}.* use Adam or SGD"):
        hold(network, kind(network.parameters(), lr=0.05))


def test_holding_twice_or_a_part_again_is_holding_once(cell):
    network, optimizer = cell.held()
    other, other_optimizer = cell.held()
    hold(other, other_optimizer)
    hold(nn.Sequential(*other), other_optimizer)
    hold(other[:3], other_optimizer)
    for each, step in ((network, optimizer), (other, other_optimizer)):
        train(each, step, min(cell.rounds, 8) + 1)
        cell.assert_member(each)
    assert same(network, other)


def test_arguments_in_the_wrong_order_or_of_the_wrong_kind_are_refused(cell):
    network = cell.network()
    optimizer = adam(network.parameters())
    for arguments in (
        (optimizer, network),
        (network, network),
        (network, optim.Adam),
        (network, None),
        (None, optimizer),
    ):
        with refused("hold"):
            hold(*arguments)


def test_networks_that_hold_nothing_are_refused(cell):
    for network in (cell.plain(), freeze(cell.network()).requires_grad_(True), nn.Sequential(nn.Linear(4, 4))):
        with refused("constrain"):
            hold(network, adam(network.parameters()))


def test_an_optimizer_of_other_parameters_is_refused(cell):
    network, other = cell.network(), cell.network(5)
    with refused("the optimizer trains no parameter of this network"):
        hold(network, adam(other.parameters()))


@pytest.mark.cells(way="step")
def test_steps_without_hold_are_refused_at_the_next_forward(cell):
    network = cell.network()
    optimizer = optim.SGD(network.parameters(), lr=30.0)
    loss(network, inputs(network)).backward()
    optimizer.step()
    if cell.name == "parseval":  # promises nothing
        assert network(inputs(network)).shape == (8, 3)
        return
    with refused(r"tightlip\.hold"):
        network(inputs(network))
