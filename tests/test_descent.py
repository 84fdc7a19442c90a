"""The one loop: a step per batch, weights on their sets after each, and nothing taken when a loss is not a number."""

import ast
import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tightlip import Orthonormal, TightlipError, hold, mlp
from tightlip.descent import descend

SRC = Path(__file__).parents[1] / "src" / "tightlip"
X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def network(**options):
    torch.manual_seed(0)
    return mlp([6, 8, 8, 3], **options)


def sgd(module, rate=0.1):
    return torch.optim.SGD(module.parameters(), rate, momentum=0.9)


@pytest.mark.parametrize("way", ["step", "forward"])
def test_it_is_the_loop_that_one_would_write(way):
    ours, theirs = network(hold=way), network(hold=way)
    descend(ours, sgd(ours), lambda n: (ours(X) - n).square().mean(), range(5))
    optimizer = hold(theirs, sgd(theirs))
    for n in range(5):
        optimizer.zero_grad()
        (theirs(X) - n).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(Orthonormal().contains(layer.weight.detach()) for layer in ours[:-1:2])


def test_it_needs_no_constraint():
    plain = nn.Linear(6, 1)
    descend(plain, sgd(plain), lambda _: plain(X).square().mean(), range(50))
    assert plain(X).square().mean().item() < 1e-2


def test_watch_and_schedule_follow_the_steps():
    plain, events = nn.Linear(6, 1), []
    optimizer = sgd(plain)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)

    def loss(batch):
        events.append((batch, optimizer.param_groups[0]["lr"]))
        return plain(X).mean()

    descend(plain, optimizer, loss, "abc", schedule, events.append)
    assert events == [0, ("a", 0.1), 1, ("b", 0.05), 2, ("c", 0.025)]


def test_what_the_loss_leaves_in_the_gradients_does_not_count():
    clean, dirty = nn.Linear(6, 1), nn.Linear(6, 1)
    dirty.load_state_dict(clean.state_dict())

    def loss(_):
        dirty(X).sum().backward()
        return dirty(X).square().mean()

    descend(dirty, sgd(dirty), loss, range(3))
    descend(clean, sgd(clean), lambda _: clean(X).square().mean(), range(3))
    assert torch.equal(clean.weight, dirty.weight)


@pytest.mark.parametrize("make", [network, lambda: nn.Linear(6, 1)])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_raises_with_the_steps_number_and_before_the_step(make, bad):
    module, weights = make(), []

    def loss(step):
        weights.append([p.detach().clone() for p in module.parameters()])
        return module(X).mean() * (bad if step == 3 else 1.0)

    with pytest.raises(
        TightlipError, match=r"the loss became .*NaN or infinite.* at step 3 of epoch 7, counted from 0"
    ):
        descend(module, sgd(module), loss, range(10), where=" of epoch 7")
    assert len(weights) == 4
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), weights[-1], strict=True))


def test_weights_that_the_last_step_spoiled_are_not_handed_back():
    """√ has an infinite slope in 0, so the loss is finite and the gradient NaN."""
    plain = nn.Linear(6, 1)
    with pytest.raises(TightlipError, match="left NaN or infinity in weight"):
        descend(plain, sgd(plain), lambda _: (0 * plain(X)).sqrt().mean(), range(1))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda y: y, r"a loss is one number, got shape \(16, 3\)"),
        (lambda y: y.mean().item(), "a loss is one number, got type float"),
        (lambda y: y.detach().mean(), "the loss has no gradient at step 0"),
    ],
)
def test_what_is_no_loss_is_refused(loss, sentence):
    module = network()
    with pytest.raises(TightlipError, match=sentence):
        descend(module, sgd(module), lambda _: loss(module(X)), range(3))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"network": sgd}, "network must be one of torch's, made, got a function"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be one of torch's, made, got the class SGD"),
        ({"optimizer": "sgd"}, "optimizer must be one of torch's, made, got a str"),
        ({"schedule": torch.optim.lr_scheduler.StepLR}, "schedule must be .* got the class StepLR"),
        ({"schedule": 10}, "schedule must be .* got a int"),
        ({"loss": 1.0}, r"loss must be a function of \(batch\)"),
        ({"loss": lambda a, b: a}, r"loss must be a function of \(batch\)"),
        ({"watch": lambda: None}, r"watch must be a function of \(step\)"),
    ],
)
def test_arguments_of_other_kinds_are_one_sentence(wrong, sentence):
    module = nn.Linear(6, 1)
    right = {"network": module, "optimizer": sgd(module), "loss": lambda _: module(X).mean(), "batches": range(1)}
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(descend)(**(right | wrong))


@pytest.mark.parametrize("make", [network, lambda: nn.Linear(6, 1)])
def test_optimizers_that_step_several_times_are_refused(make):
    module = make()
    with pytest.raises(TightlipError, match="LBFGS evaluates between its own steps"):
        descend(module, torch.optim.LBFGS(module.parameters()), lambda _: module(X).mean(), range(1))


def test_the_house_has_one_loop():
    """Whoever trains calls `descend`; `timing` measures a bare step."""
    loops = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward":
                loops.add(path.relative_to(SRC).as_posix())
    assert loops == {"descent.py", "timing.py"}
