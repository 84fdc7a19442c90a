"""Every optimizer of torch, and others that people write: each trains, and W is on its set at every forward."""

import pytest
import torch
from conventions.cells import inputs, loss, refused, train, values
from torch import optim

from tightlip import AggMo, TightlipError, hold


class Lion(optim.Optimizer):
    """The sign of a mean of gradients; its only state is that mean."""

    def __init__(self, parameters, lr=1e-3):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.sub_(mean.lerp(p.grad, 0.1).sign(), alpha=group["lr"])
                mean.lerp_(p.grad, 0.01)


class Lamb(optim.Optimizer):
    """A step as long as the parameter's own norm says."""

    def __init__(self, parameters, lr=1e-2):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    length = p.norm() / p.grad.norm().clamp(min=1e-8)
                    p.sub_(p.grad * length, alpha=group["lr"])


class Aggregated(optim.Optimizer):
    """Several momenta at once, kept in a dictionary in the state (Lucas et al. 2019)."""

    def __init__(self, parameters, lr=1e-2, betas=(0.0, 0.9, 0.99)):
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"], state["velocity"] = 0, {beta: torch.zeros_like(p) for beta in group["betas"]}
                state["step"] += 1
                for beta, velocity in state["velocity"].items():
                    velocity.mul_(beta).add_(p.grad)
                    p.sub_(velocity, alpha=group["lr"] / len(group["betas"]))


class Slots(optim.Optimizer):
    """Keeps its state in an attribute, under the parameter's place in the list."""

    def __init__(self, parameters, lr=1e-2):
        super().__init__(parameters, {"lr": lr})
        self.means = {}

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for place, p in enumerate(group["params"]):
                if p.grad is not None:
                    self.means[place] = 0.9 * self.means.get(place, 0.0) + p.grad
                    p.sub_(self.means[place], alpha=group["lr"])


def matrices(parameters):
    return [p for p in parameters if p.ndim == 2]


OPTIMIZERS = {
    "adam": lambda p: optim.Adam(p, 3e-3),
    "adam-amsgrad": lambda p: optim.Adam(p, 3e-3, amsgrad=True),
    "adam-fused": lambda p: optim.Adam(p, 3e-3, fused=True),
    "adam-foreach": lambda p: optim.Adam(p, 3e-3, foreach=True),
    "adamw": lambda p: optim.AdamW(p, 3e-3, weight_decay=1.0),
    "sgd": lambda p: optim.SGD(p, 1e-2),
    "sgd-momentum": lambda p: optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-2),
    "sgd-nesterov": lambda p: optim.SGD(p, 1e-2, momentum=0.9, nesterov=True),
    "sgd-fused": lambda p: optim.SGD(p, 1e-2, momentum=0.9, fused=True),
    "rmsprop": lambda p: optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, 1e-2, initial_accumulator_value=0.1),
    "adafactor": lambda p: optim.Adafactor(p, 1e-2),
    "nadam": lambda p: optim.NAdam(p, 3e-3),
    "radam": lambda p: optim.RAdam(p, 3e-3),
    "rprop": lambda p: optim.Rprop(p, 1e-3),
    "asgd": lambda p: optim.ASGD(p, 1e-2),
    "adadelta": lambda p: optim.Adadelta(p, 1.0),
    "adamax": lambda p: optim.Adamax(p, 3e-3),
    "muon": lambda p: optim.Muon(matrices(p), 1e-2),
    "lion": Lion,
    "lamb": Lamb,
    "aggmo": lambda p: AggMo(p, 1e-2),
    "aggregated": Aggregated,
    "slots": Slots,
}

each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def test_the_list_has_every_optimizer_of_torch():
    """A new one in torch is to be tried here."""
    of_torch = {
        value
        for value in vars(optim).values()
        if isinstance(value, type) and issubclass(value, optim.Optimizer) and value is not optim.Optimizer
    }
    tried = {type(make([torch.nn.Parameter(torch.ones(2, 2))])) for make in OPTIMIZERS.values()}
    assert of_torch - tried == {optim.LBFGS, optim.SparseAdam}


@pytest.mark.cells(way="step")
@each_optimizer
def test_weights_move_and_are_on_their_set_at_every_forward(cell, make):
    network, optimizer = cell.held(make=make)
    if make is Slots and cell.rounds > 1:
        train(network, optimizer, 1, 0)
        with pytest.raises(TightlipError, match=r"not in optimizer\.state"):
            train(network, optimizer, 1, 1)
        cell.assert_member(network)
        return
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    for number in range(min(cell.rounds, 8) + 2):
        train(network, optimizer, 1, number)
        if number % 4 == 0:
            cell.assert_member(network)
    cell.assert_member(network)
    assert not any(torch.equal(p, old) for p, old in zip(optimizer.param_groups[0]["params"], before, strict=True))


@pytest.mark.cells(names={"turned-8", "turned"}, turned=True, shape="square", carriers=False)
@each_optimizer
def test_turned_weights_lower_the_loss(cell, make):
    if make is Slots and cell.rounds > 1:
        pytest.skip("refused: test_weights_move_and_are_on_their_set_at_every_forward")
    network, optimizer = cell.held(make=make)
    network.requires_grad_(False)
    for layer in (network[0], network[2]):
        layer.weight.requires_grad_(True)
    x = inputs(network, count=32)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(network, x)
        value.backward()
        losses.append(value.item())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    cell.assert_member(network)


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "adafactor"])
def test_the_rate_means_what_it_means_elsewhere(cell, name):
    """Ten times the rate moves a weight further; a rate of zero does not move it."""
    distances = []
    for rate in (0.0, 1e-4, 1e-3):
        network, optimizer = cell.held(make=OPTIMIZERS[name])
        optimizer.param_groups[0]["lr"] = rate
        before = network[0].weight.detach().clone()
        train(network, optimizer, 2)
        distances.append(float((network[0].weight.detach() - before).norm()))
    if cell.constraint.projects:
        assert distances[0] <= 1e-4
        assert distances[1] < 0.5 * distances[2]


@pytest.mark.cells(way="step")
def test_lbfgs_is_refused_by_hold(cell):
    network = cell.network()
    with refused("LBFGS .* use Adam or SGD"):
        hold(network, optim.LBFGS(network.parameters()))


@pytest.mark.cells(way="step")
def test_sparse_adam_takes_no_dense_gradients_and_leaves_the_weights_as_they_were(cell):
    network = cell.network()
    optimizer = hold(network, optim.SparseAdam(network.parameters()))
    before = values(network)
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):  # torch's own sentence
        train(network, optimizer, 1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    train(network, hold(network, OPTIMIZERS["adam"](network.parameters())), 2)
    cell.assert_member(network)
