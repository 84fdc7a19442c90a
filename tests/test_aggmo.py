"""AggMo is the loop of its formula, is SGD where it has one beta, and trains held weights from any step on."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from tightlip import AggMo, Orthonormal, RowL1Ball, TightlipError, fit, freeze, hold, lipschitz, mlp

TARGETS = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def weight():
    return nn.Parameter(torch.tensor([[0.3, -0.7], [2.0, 1.0]]))


def loss(w):
    return (w - TARGETS).square().sum() + w.prod()


def steps(optimizer, w, count):
    for _ in range(count):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
    return w.detach()


def by_hand(count, lr, betas, decay=0.0, sign=1.0):
    """The formula, in lists of float64 numbers."""
    w = weight().detach().double()
    velocities = [torch.zeros(2, 2, dtype=torch.float64) for _ in betas]
    for _ in range(count):
        at = w.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((at - TARGETS).square().sum() + at.prod(), at)
        gradient = sign * gradient + decay * w
        velocities = [beta * v + gradient for beta, v in zip(betas, velocities, strict=True)]
        w = w - lr / len(betas) * sum(velocities)
    return w


@pytest.mark.parametrize("betas", [(0.0, 0.9, 0.99), (0.5,), [0.0, 0.9]])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_is_its_formula(betas, decay):
    w = weight()
    made = steps(AggMo([w], lr=0.02, betas=betas, weight_decay=decay), w, 15)
    assert torch.allclose(made.double(), by_hand(15, 0.02, betas, decay), atol=1e-5)
    assert not torch.allclose(made.double(), by_hand(14, 0.02, betas, decay), atol=1e-3)


def test_the_default_is_that_of_the_paper():
    (group,) = AggMo([weight()]).param_groups
    assert group["betas"] == (0.0, 0.9, 0.99) and group["weight_decay"] == 0.0 and group["maximize"] is False


def test_maximize_climbs():
    w = weight()
    assert torch.allclose(
        steps(AggMo([w], lr=1e-3, maximize=True), w, 5).double(), by_hand(5, 1e-3, (0, 0.9, 0.99), sign=-1.0)
    )


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"maximize": True}])
def test_one_beta_is_sgd_with_that_momentum(options):
    ours, torchs = weight(), weight()
    a = steps(AggMo([ours], lr=1e-2, betas=(0.9,), **options), ours, 12)
    b = steps(torch.optim.SGD([torchs], lr=1e-2, momentum=0.9, **options), torchs, 12)
    assert torch.allclose(a, b, atol=1e-6)


def test_groups_have_options_of_their_own():
    a, b = weight(), weight()
    optimizer = AggMo([{"params": [a], "betas": (0.5,)}, {"params": [b], "lr": 0.0}], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (loss(a) + loss(b)).backward()
        optimizer.step()
    assert torch.allclose(a.detach().double(), by_hand(3, 1e-2, (0.5,)), atol=1e-6)
    assert torch.equal(b, weight())


def test_a_saved_state_goes_on_as_if_it_had_not_stopped():
    w, other = weight(), weight()
    optimizer = AggMo([w], lr=1e-2)
    steps(optimizer, w, 4)
    assert set(optimizer.state[w]) == {"velocity_0", "velocity_1", "velocity_2"}
    state = copy.deepcopy(optimizer.state_dict())
    other.data.copy_(w.data)
    again = AggMo([other], lr=1.0, betas=(0.1, 0.2, 0.3))
    again.load_state_dict(state)
    assert torch.equal(steps(again, other, 4), steps(optimizer, w, 4))


def test_a_closure_computes_the_gradients_and_its_loss_comes_back():
    w, other = weight(), weight()
    optimizer = AggMo([w], lr=1e-2)

    def closure():
        optimizer.zero_grad()
        value = loss(w)
        value.backward()
        return value

    before = loss(w).item()
    assert optimizer.step(closure).item() == before
    assert torch.equal(w.detach(), steps(AggMo([other], lr=1e-2), other, 1))


def test_weights_without_a_gradient_stay_and_have_no_state():
    w, idle = weight(), weight()
    optimizer = AggMo([w, idle], lr=1e-2)
    steps(optimizer, w, 2)
    assert torch.equal(idle, weight()) and idle not in optimizer.state


def test_sparse_gradients_are_refused_before_anything_moves():
    dense, table = weight(), nn.Embedding(4, 2, sparse=True)
    optimizer = AggMo([dense, *table.parameters()], lr=1.0)
    (loss(dense) + table(torch.tensor([1])).sum()).backward()
    with pytest.raises(TightlipError, match="AggMo needs dense gradients, and one is sparse"):
        optimizer.step()
    assert torch.equal(dense, weight()) and not optimizer.state


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lr": -1.0}, "lr must be a finite number ≥ 0, got -1.0"),
        ({"lr": math.nan}, "lr must be"),
        ({"lr": "fast"}, "lr must be"),
        ({"betas": ()}, r"betas must be numbers in \[0, 1\), one at least"),
        ({"betas": 0.9}, "betas must be numbers"),
        ({"betas": (0.9, 1.0)}, "betas must be below 1"),
        ({"betas": (-0.1,)}, "each of betas must be a finite number ≥ 0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"maximize": 1}, "maximize must be True or False"),
    ],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(TightlipError, match=says):
        AggMo([{"params": [weight()], **options}])
    with pytest.raises(TightlipError, match=says):
        AggMo([weight()]).add_param_group({"params": [weight()]} | options)


def blobs():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = functional.one_hot(y, 6).float() + 0.2 * torch.randn(90, 6, generator=generator)
    return x, y


@pytest.mark.parametrize(
    ("constraint", "p", "lr"),
    [(RowL1Ball(), math.inf, 3e-3), (Orthonormal(blocks=0), 2, 3e-2), (Orthonormal(blocks=4), 2, 3e-2)],
    ids=["row-l1", "moved", "turned"],
)
def test_held_weights_stay_on_their_set_and_learn(constraint, p, lr):
    torch.manual_seed(0)
    network = mlp([6, 8, 8, 3], constraint, K=10.0)
    optimizer = hold(network, AggMo(network.parameters(), lr=lr))
    x, y = blobs()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = functional.cross_entropy(network(x), y)
        losses.append(value.item())
        value.backward()
        optimizer.step()
        assert all(constraint.contains(layer.weight.detach()) for layer in network if isinstance(layer, nn.Linear))
    assert losses[-1] < 0.3 * losses[0]
    assert lipschitz(freeze(network), p).constant <= 10


def test_turned_weights_have_a_velocity_for_every_round():
    torch.manual_seed(0)
    network = mlp([8, 8], Orthonormal(blocks=4))
    optimizer = hold(network, AggMo(network.parameters(), lr=1e-2))
    for _ in range(4):
        optimizer.zero_grad()
        network(torch.rand(5, 8)).square().sum().backward()
        optimizer.step()
    state = optimizer.state[network[0].weight]
    assert [tuple(state[f"velocity_{place}"].shape) for place in range(3)] == [(3, 8, 4)] * 3
    assert all(bool(state[f"velocity_{place}"][round].any()) for place in range(3) for round in range(3))


@pytest.mark.parametrize("constraint", [RowL1Ball(), Orthonormal(blocks=4)])
def test_fit_resumes_in_the_middle_as_if_it_had_not_stopped(constraint, tmp_path):
    def run(checkpoint=None, resume=False, stop=None):
        torch.manual_seed(0)
        network = mlp([6, 8, 8, 3], constraint, K=10.0)
        calls = iter(range(10**6))

        def score(network, x, y):
            if next(calls) == stop:
                raise KeyboardInterrupt
            return 0.0

        make = partial(AggMo, lr=3e-3)
        options = {"epochs": 4, "batch_size": 9, "optimizer": make, "progress": False, "tag": "aggmo"}
        fit(network, functional.cross_entropy, blobs(), blobs(), **options, score=score, checkpoint=checkpoint,
            resume=resume)  # fmt: skip
        return network.state_dict()

    whole, file = run(), tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        run(file, stop=2)
    assert file.exists()
    resumed = run(file, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_of_other_betas_is_not_resumed(tmp_path):
    def run(betas, **options):
        torch.manual_seed(0)
        network = mlp([6, 8, 3], RowL1Ball())
        make = partial(AggMo, betas=betas)
        fit(network, functional.cross_entropy, blobs(), epochs=1, optimizer=make, progress=False, **options)

    run((0.0, 0.9), checkpoint=tmp_path / "c.pt")
    with pytest.raises(TightlipError, match="belongs to another run, whose optimizer differed"):
        run((0.0, 0.8), checkpoint=tmp_path / "c.pt", resume=True)
