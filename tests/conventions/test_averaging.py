"""Moving averages of weights, by other people's code: every weight is averaged, and `freeze` puts it on its set."""

import copy

import pytest
import torch
from conventions.cells import inputs, momentum, refused, train, values
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tightlip import freeze, lipschitz

DECAY = 0.5


class OverParameters:
    """A loop over ``parameters()`` of a copy."""

    def __init__(self, network):
        self.module = copy.deepcopy(network)

    @torch.no_grad()
    def update(self, network):
        for average, p in zip(self.module.parameters(), network.parameters(), strict=True):
            average.mul_(DECAY).add_(p, alpha=1 - DECAY)


class OverState(OverParameters):
    """A loop over ``state_dict()``, written back through ``load_state_dict``."""

    @torch.no_grad()
    def update(self, network):
        state = network.state_dict()
        mixed = {name: DECAY * old + (1 - DECAY) * state[name] for name, old in self.module.state_dict().items()}
        self.module.load_state_dict(mixed)


class OverData(OverParameters):
    """A loop that writes through ``.data``."""

    def update(self, network):
        for average, p in zip(self.module.parameters(), network.parameters(), strict=True):
            average.data = DECAY * average.data + (1 - DECAY) * p.data


class OverTrained(OverParameters):
    """A list of shadows of what has ``requires_grad``, copied into the network for evaluation."""

    def __init__(self, network):
        super().__init__(network)
        self.shadows = [p.detach().clone() for p in network.parameters() if p.requires_grad]

    @torch.no_grad()
    def update(self, network):
        trained = [p for p in network.parameters() if p.requires_grad]
        for shadow, p in zip(self.shadows, trained, strict=True):
            shadow.sub_((1 - DECAY) * (shadow - p))
        for p, shadow in zip([p for p in self.module.parameters() if p.requires_grad], self.shadows, strict=True):
            p.copy_(shadow)


class OfTorch:
    """`torch.optim.swa_utils.AveragedModel`."""

    def __init__(self, network):
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        self.average.update_parameters(network)  # the first is a copy

    @property
    def module(self):
        return self.average.module

    def update(self, network):
        self.average.update_parameters(network)


each_average = pytest.mark.parametrize("kind", [OfTorch, OverParameters, OverState, OverData, OverTrained])


@each_average
def test_every_weight_is_averaged_and_freeze_puts_it_back(cell, kind):
    network, optimizer = cell.held()
    average, expected = kind(network), values(network)
    for number in range(3):
        train(network, optimizer, 1, number)
        average.update(network)
        expected = {name: DECAY * old + (1 - DECAY) * values(network)[name] for name, old in expected.items()}
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    frozen = freeze(average.module)
    if cell.constraint.promises:
        assert lipschitz(frozen[0], *cell.constraint.norms).constant <= 1
    if cell.orthonormal:
        assert cell.deviation(frozen[0]) <= 2e-5
    assert torch.isfinite(frozen(inputs(network))).all()
    before = values(network)
    average.update(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.cells(way="step", orthonormal=True)
def test_an_average_that_left_its_set_is_evaluated_frozen_and_refused_otherwise(cell):
    network, optimizer = cell.held(make=momentum)
    average = OverParameters(network)
    train(network, optimizer, 8)
    average.update(network)
    frozen = freeze(average.module)
    assert (frozen[0].weight - average.module[0].weight).abs().max() > 1e-4
    with refused("left"):
        average.module(inputs(network))


@pytest.mark.cells(way="step")
def test_averages_swapped_in_for_evaluation_and_out_again_leave_no_trace(cell):
    """Weights are written through ``.data`` and restored: the run goes on as one that was never interrupted."""
    network, optimizer = cell.held()
    other, other_optimizer = cell.held()
    for each, step in ((network, optimizer), (other, other_optimizer)):
        train(each, step, 3)
    saved = [p.data.clone() for p in network.parameters()]
    for p in network.parameters():
        p.data.copy_(p.data * 0.5)
    freeze(network)
    for p, old in zip(network.parameters(), saved, strict=True):
        p.data.copy_(old)
    for each, step in ((network, optimizer), (other, other_optimizer)):
        train(each, step, 2, seed=9)
        cell.assert_member(each)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-2, rtol=0)


@pytest.mark.cells(way="step")
@pytest.mark.parametrize("through_data", [True, False])
def test_training_goes_on_from_an_average_loaded_into_the_network(cell, through_data):
    network, optimizer = cell.held()
    average = OverParameters(network)
    train(network, optimizer, 3)
    average.update(network)
    if through_data:
        for p, q in zip(network.parameters(), average.module.parameters(), strict=True):
            p.data.copy_(q.data)
    else:
        network.load_state_dict(average.module.state_dict())
    network.train()
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()  # measures the weight and pulls it back
    for _ in range(3):
        train(network, optimizer, 1)
        cell.assert_member(network)
