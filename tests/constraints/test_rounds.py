"""One state for all rounds: what an optimizer lays out before its first step, and steps that a scaler skips."""

import copy
import math

import pytest
import torch
from torch import nn

from tightlip import Orthonormal, RowL1Ball, TightlipError, constrain, hold
from tightlip.constraints.rounds import close_round, open_round, stack_fresh


def layer_of(constraint, size=8):
    torch.manual_seed(0)
    return constrain(nn.Linear(size, size, bias=False), constraint)


@pytest.mark.parametrize(("count", "rounds", "shape"), [(1, 1, (8, 8)), (4, 3, (8, 4)), (8, 7, (8, 2))])
def test_constants_laid_out_before_the_first_step_are_there_in_every_round(count, rounds, shape):
    layer = layer_of(Orthonormal(blocks=count))
    optimizer = hold(layer, torch.optim.Adagrad(layer.parameters(), 0.01, initial_accumulator_value=0.5))
    for number in range(2 * rounds):
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
        state = optimizer.state[layer.weight]
        assert torch.equal(state["sum"], torch.full((rounds, *shape), 0.5))
        taken = torch.tensor([float((number + rounds - r) // rounds) for r in range(rounds)])
        assert torch.equal(state["step"], taken)


@pytest.mark.parametrize("count", [1, 4])
def test_adagrads_first_steps_are_as_long_as_its_constant_says(count):
    """A turn is G/√(½ + G²) in every entry of every round: with tiny gradients, √2 of them."""
    turned = []
    for constant in (0.5, 2.0):
        layer = layer_of(Orthonormal(blocks=count))
        optimizer = hold(layer, torch.optim.Adagrad(layer.parameters(), 0.1, initial_accumulator_value=constant))
        steps = []
        for number in range(3):
            before = layer.weight.detach().clone()
            generator = torch.Generator().manual_seed(number)
            layer.weight.grad = 1e-2 * torch.randn(8, 8, generator=generator)
            optimizer.step()
            steps.append(float((layer.weight.detach() - before).norm()))
        turned.append(torch.tensor(steps))
    torch.testing.assert_close(turned[0], 2 * turned[1], rtol=0.02, atol=0)


def test_what_is_laid_out_is_stacked_by_its_kind():
    weight = torch.ones(6, 4)
    laid_out = {
        "mean": torch.full((6, 4), 0.25),
        "step": torch.tensor(3.0),
        "sizes": torch.tensor([1.0, 2.0]),
        "on": True,
    }
    stacked = stack_fresh(laid_out, weight, 3, (6, 2))
    assert torch.equal(stacked["mean"], torch.full((3, 6, 2), 0.25))
    assert stacked["step"].tolist() == [3, 3, 3] and stacked["sizes"].tolist() == 3 * [[1, 2]]
    assert stacked["on"] == [True] * 3
    stacked["mean"][0].add_(1)  # rounds share no memory with each other, nor with what was laid out
    stacked["step"][1].add_(1)
    assert float(stacked["mean"][1].max()) == 0.25 and stacked["step"].tolist() == [3, 4, 3] and laid_out["step"] == 3
    assert stack_fresh({"mean": torch.arange(24.0).view(6, 4)}, weight, 3, (6, 2)) is None
    assert stack_fresh({}, weight, 3, (6, 2)) == {}


def test_one_round_is_read_and_written_alone():
    stacked = {"mean": torch.zeros(3, 2, 2), "name": ["a", "b", "c"]}
    state = open_round(stacked, 1)
    state["mean"].add_(1)  # in place, as optimizers do
    close_round(stacked, 1, 3, {"mean": state["mean"], "name": "d", "new": torch.tensor(5.0), "word": "e"})
    assert stacked["mean"].sum((1, 2)).tolist() == [0, 4, 0] and stacked["name"] == ["a", "d", "c"]
    assert stacked["new"].tolist() == [0, 5, 0] and stacked["word"] == [None, "e", None]
    close_round(stacked, 2, 3, {"mean": torch.full((2, 2), 7.0)})  # another tensor in its place
    assert stacked["mean"].sum((1, 2)).tolist() == [0, 4, 28]
    with pytest.raises(TightlipError, match="changes its kind or shape"):
        close_round(stacked, 0, 3, {"mean": torch.zeros(3)})


def scaled_step(layer, optimizer, scaler, seed, factor=1.0):
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    scaler.scale((layer(x) - 1).square().mean() * factor).backward()
    scaler.step(optimizer)
    scaler.update()


MAKES = {
    "adam": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.5, fused=True),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize(
    "constraint", [Orthonormal(blocks=0), Orthonormal(blocks=1), Orthonormal(blocks=4), RowL1Ball()]
)
@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_an_overflow_that_a_fused_optimizer_skips_leaves_weight_and_state_as_they_were(constraint, make, steps):
    layer, other = layer_of(constraint), layer_of(constraint)
    optimizers = [hold(each, make(each.parameters())) for each in (layer, other)]
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000) for _ in range(2)]
    for seed in range(steps):
        for each in zip((layer, other), optimizers, scalers, strict=True):
            scaled_step(*each, seed)
    before, state = layer.weight.detach().clone(), copy.deepcopy(optimizers[0].state_dict()["state"])
    scaled_step(layer, optimizers[0], scalers[0], 9, factor=math.inf)
    assert torch.equal(layer.weight, before) and scalers[0].get_scale() == 2.0**9
    torch.testing.assert_close(optimizers[0].state_dict()["state"], state, rtol=0, atol=0)
    for seed in range(3):  # as if it had never been
        for each in zip((layer, other), optimizers, scalers, strict=True):
            scaled_step(*each, seed)
    torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_weight_that_is_frozen_with_a_gradient_stays_as_it_is_and_so_does_its_state(count):
    layer = layer_of(Orthonormal(blocks=count))
    optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 0.1))
    for _ in range(2):
        layer.weight.grad = torch.randn(8, 8)
        optimizer.step()
    before, state = layer.weight.detach().clone(), copy.deepcopy(optimizer.state_dict()["state"])
    gradient = layer.weight.grad
    layer.weight.requires_grad_(False)
    optimizer.step()
    assert torch.equal(layer.weight, before) and layer.weight.grad is gradient
    torch.testing.assert_close(optimizer.state_dict()["state"], state, rtol=0, atol=0)


class LaidOut(torch.optim.Optimizer):
    """Momentum whose state is laid out when the optimizer is made, and never looked for again."""

    def __init__(self, parameters, lr=0.01, start=0.25):
        super().__init__(parameters, {"lr": lr})
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"mean": torch.full_like(p, start), "count": 3}

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state["count"] += 1
            p.sub_(state["mean"].mul_(0.5).add_(p.grad), alpha=self.param_groups[0]["lr"])


@pytest.mark.parametrize("count", [1, 4])
def test_a_state_that_is_laid_out_once_is_found_in_every_round(count):
    layer = layer_of(Orthonormal(blocks=count))
    optimizer = hold(layer, LaidOut(layer.parameters()))
    for _ in range(3):
        layer.weight.grad = torch.zeros(8, 8)
        optimizer.step()
    state = optimizer.state[layer.weight]
    assert state["count"] == ([6] if count == 1 else [4, 4, 4])
    assert torch.equal(state["mean"], torch.full_like(state["mean"], 0.25 * (0.125 if count == 1 else 0.5)))


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (lambda p: torch.optim.Rprop(p, 0.01), "step_size", 0.01),
        (lambda p: torch.optim.NAdam(p, 0.01), "mu_product", 0.9 * (1 - 0.5 * 0.96**0.004)),
        (lambda p: torch.optim.ASGD(p, 0.01), "mu", 1.0),
    ],
    ids=["rprop", "nadam", "asgd"],
)
def test_a_round_that_was_not_there_before_begins_as_the_optimizer_begins(make, key, value):
    layer = layer_of(Orthonormal(blocks=4))
    optimizer = hold(layer, make(layer.parameters()))
    for _ in range(3):
        layer.weight.grad = torch.zeros(8, 8)
        optimizer.step()
    state = optimizer.state[layer.weight][key]
    torch.testing.assert_close(state, torch.full_like(state, value))


def test_momentum_that_is_fused_begins_in_every_round_beside_weights_that_have_no_rounds():
    """Fused SGD takes buffers for all of its parameters or for none."""
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = constrain(nn.Linear(8, 8), Orthonormal(blocks=4))
        optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, fused=fused))
        for seed in range(7):
            optimizer.zero_grad()
            layer(torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


class Noting(torch.optim.SGD):
    """Notes what stands in the place of the weight inside a step."""

    def step(self, closure=None):
        self.seen = [p.detach().clone() for p in self.param_groups[0]["params"]]
        return super().step(closure)


@pytest.mark.parametrize(("count", "shape"), [(1, (8, 8)), (4, (8, 4))])
def test_turns_begin_at_a_constant_as_large_as_orthonormal_entries_are(count, shape):
    """Optimizers that measure a parameter's own norm see that of a column; a constant has no skew part."""
    layer = layer_of(Orthonormal(blocks=count))
    optimizer = hold(layer, Noting(layer.parameters(), 0.0))
    layer.weight.grad = torch.randn(8, 8)
    before = layer.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(optimizer.seen[0], torch.full(shape, 8**-0.5))
    torch.testing.assert_close(layer.weight.detach(), before, atol=1e-6, rtol=0)


def test_a_turn_that_is_none_gives_up_the_gradients_that_wait():
    layer = layer_of(Orthonormal(blocks=4))
    optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 0.1))
    layer.weight.grad = torch.randn(8, 8)
    optimizer.step()
    assert optimizer.state[layer.weight]["tightlip_sum"].any()
    before, optimizer.param_groups[0]["lr"] = layer.weight.detach().clone(), 1e38
    layer.weight.grad = torch.randn(8, 8) * 1e3
    with pytest.raises(TightlipError, match="lower the learning rate"):
        optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not optimizer.state[layer.weight]["tightlip_sum"].any()
    assert optimizer.state[layer.weight]["tightlip_drift"] == math.inf


class Growing(LaidOut):
    """Momentum, and from the third step on an entry that grows."""

    count = 0

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        self.count += 1
        if self.count > 2:
            self.state[self.param_groups[0]["params"][0]]["seen"] = torch.ones(self.count)


@pytest.mark.parametrize("count", [1, 4])
def test_a_state_that_cannot_be_kept_moves_nothing_and_what_could_be_kept_is_there(count):
    layer = layer_of(Orthonormal(blocks=count))
    optimizer = hold(layer, Growing(layer.parameters()))
    for _ in range(3):
        layer.weight.grad = torch.randn(8, 8)
        optimizer.step()
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(8, 8)
    with pytest.raises(TightlipError, match="'seen' changes its kind or shape"):
        optimizer.step()
    assert torch.equal(layer.weight, before)
    assert optimizer.state[layer.weight]["mean"].shape == ((1, 8, 8) if count == 1 else (3, 8, 4))


def test_weights_of_one_shape_and_several_types_or_numbers_of_blocks_are_turned_each_for_itself():
    layers = [layer_of(Orthonormal(blocks=count)) for count in (4, 4, 1, 8)]
    layers[1].double()
    alone = copy.deepcopy(layers)
    optimizer = hold(nn.ModuleList(layers), torch.optim.Adam([layer.weight for layer in layers], 0.01))
    optimizers = [hold(layer, torch.optim.Adam(layer.parameters(), 0.01)) for layer in alone]
    for _ in range(3):
        for layer, other in zip(layers, alone, strict=True):
            layer.weight.grad = torch.randn_like(layer.weight)
            other.weight.grad = layer.weight.grad.clone()
        for each in (optimizer, *optimizers):
            each.step()
    for layer, other in zip(layers, alone, strict=True):
        torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=1e-6)


def test_where_one_weight_cannot_be_turned_the_others_are():
    bad, good = layer_of(Orthonormal(blocks=4)), layer_of(Orthonormal(blocks=1))
    groups = [{"params": [bad.weight], "lr": 1e38}, {"params": [good.weight], "lr": 0.1}]
    optimizer = hold(nn.ModuleList([bad, good]), torch.optim.SGD(groups))
    before = bad.weight.detach().clone(), good.weight.detach().clone()
    bad.weight.grad, good.weight.grad = 1e3 * torch.randn(8, 8), torch.randn(8, 8)
    with pytest.raises(TightlipError, match="lower the learning rate"):
        optimizer.step()
    assert torch.equal(bad.weight, before[0]) and not torch.equal(good.weight, before[1])
    good(torch.ones(1, 8))
