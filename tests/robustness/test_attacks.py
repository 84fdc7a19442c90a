"""The attack stays where it is told, and finds what is there to be found."""

import math

import pytest
import torch
from torch import nn
from truths import distance, linear

from tightlip import TightlipError, mlp
from tightlip.robustness import pgd
from tightlip.robustness.attacks import cw_loss

INF = math.inf


def classifier(weight, bias=(0.0, 0.0)):
    return linear(weight, bias, torch.float32)


@pytest.mark.parametrize("p", [2, INF])
@pytest.mark.parametrize("clamp", [(0.0, 1.0), (0.2, 0.7), None])
def test_it_stays_in_the_ball_and_in_the_box(problem, p, clamp):
    network, x, y = problem
    x = x.clamp(*clamp) if clamp else x
    eps = torch.linspace(0.0, 0.5, len(x))
    found = pgd(network, x, y, eps, p, steps=10, restarts=3, clamp=clamp)
    assert found.shape == x.shape and found.dtype == x.dtype
    assert (distance(found, x, p) <= eps * (1 + 1e-5) + 1e-6).all()
    if clamp:
        assert found.min() >= torch.tensor(clamp[0]) and found.max() <= torch.tensor(clamp[1])


@pytest.mark.parametrize("p", [2, INF])
def test_it_uses_the_whole_ball(problem, p):
    network, x, y = problem
    found = pgd(network, x, y, 0.01, p, steps=20, restarts=1, clamp=None)
    assert (distance(found, x, p) > 0.0099).double().mean() > 0.9


@pytest.mark.parametrize(("p", "radius"), [(2, 0.5), (INF, 0.5 * 5 / 7)])
def test_it_finds_the_optimum_of_a_linear_classifier_in_twenty_steps(p, radius):
    """logits ±(3, 4)·x/2: the margin at x falls by ‖(3, 4)‖_{p*}·ε, so it is gone at ε = margin/5 or margin/7."""
    network = classifier([[1.5, 2.0], [-1.5, -2.0]])
    x = torch.tensor([[0.5, 0.25]])  # margin 2.5
    y = torch.tensor([0])
    inside = pgd(network, x, y, 0.99 * radius, p, steps=20, restarts=1, clamp=None)
    outside = pgd(network, x, y, 1.01 * radius, p, steps=20, restarts=1, clamp=None)
    assert float(cw_loss(network(inside), y)) == pytest.approx(-0.025, abs=1e-4)
    assert float(cw_loss(network(outside), y)) == pytest.approx(0.025, abs=1e-4)


def test_cw_loss_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])
    assert cw_loss(logits, torch.tensor([0, 1, 0])).tolist() == [-1.0, 2.0, 0.0]


@pytest.mark.parametrize("p", [2, INF])
def test_the_same_seed_gives_the_same_points_and_another_one_others(problem, p):
    network, x, y = problem

    def attack(seed):
        return pgd(network, x, y, 0.05, p, steps=0, restarts=3, seed=seed)

    torch.manual_seed(1)
    first = attack(0)
    torch.manual_seed(2)
    assert torch.equal(first, attack(0)) and not torch.equal(first, attack(1))


def test_the_global_random_state_is_left_alone(problem):
    network, x, y = problem
    before = torch.random.get_rng_state()
    pgd(network, x, y, 0.1, steps=2, restarts=3)
    assert torch.equal(before, torch.random.get_rng_state())


def plateau():
    """A classifier whose gradient at 0 vanishes: it flips only beyond |x| = 0.15, on either side."""
    flat = nn.Sequential(
        classifier([[1.0], [-1.0]], (-0.1, -0.1)), nn.ReLU(), classifier([[0.0, 0.0], [1.0, 1.0]], (0.05, 0.0))
    )
    return flat, torch.zeros(8, 1), torch.zeros(8, dtype=torch.long)


def test_restarts_help_where_the_gradient_vanishes():
    network, x, y = plateau()
    once = pgd(network, x, y, 0.5, steps=20, restarts=1, clamp=None)
    often = pgd(network, x, y, 0.5, steps=20, restarts=8, clamp=None)
    assert not (cw_loss(network(once), y) > 0).any()
    assert (cw_loss(network(often), y) > 0).all()


def test_what_has_flipped_is_kept_by_later_restarts(problem):
    network, x, y = problem

    def flipped(restarts):
        return network(pgd(network, x, y, 0.1, steps=5, restarts=restarts, clamp=None)).argmax(1) != y

    once, often = flipped(1), flipped(4)
    assert once.any() and not once.all() and (often | ~once).all()


@pytest.mark.parametrize("p", [2, INF])
def test_radius_zero_returns_the_inputs(problem, p):
    network, x, y = problem
    assert torch.equal(pgd(network, x, y, 0.0, p, steps=5, restarts=3), x)


def test_inputs_outside_the_box_are_not_moved_beyond_the_ball_in_silence(problem):
    """Data need not live in [0, 1]; clamping it there would be a huge perturbation."""
    network, x, y = problem
    try:
        found = pgd(network, 4 * x - 2, y, 0.1, steps=5, restarts=2)
    except TightlipError:
        return
    assert (distance(found, 4 * x - 2, 2) <= 0.1 + 1e-5).all()


def test_each_input_has_its_own_radius(problem):
    network, x, y = problem
    eps = torch.tensor([0.0, 1.0] * 20)
    moved = distance(pgd(network, x, y, eps, steps=10, restarts=1, clamp=None), x, 2)
    assert (moved[::2] == 0).all() and (moved[1::2] > 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_gradients_and_its_mode(training, seed):
    network = mlp([12, 16, 4], hold="forward").train(training)
    x, y = torch.rand(5, 12), torch.zeros(5, dtype=torch.long)
    before = [module.training for module in network.modules()]
    x.requires_grad_(True)
    pgd(network, x, y, 0.1, steps=3, restarts=2)
    assert [module.training for module in network.modules()] == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert x.grad is None


def test_it_works_where_gradients_are_switched_off(problem):
    network, x, y = problem
    with torch.no_grad():
        inside = pgd(network, x, y, 0.1, steps=5, restarts=1)
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, pgd(network, x, y, 0.1, steps=5, restarts=1))


def test_constant_networks_and_empty_batches_are_survived():
    constant = classifier([[0.0], [0.0]], (1.0, 0.0))
    x = torch.full((3, 1), 0.5)
    assert torch.isfinite(pgd(constant, x, torch.zeros(3).long(), 0.1, steps=3, restarts=2)).all()
    assert pgd(constant, x[:0], torch.zeros(0).long(), 0.1, steps=3, restarts=2).shape == (0, 1)


@pytest.mark.parametrize(
    ("says", "got"),
    [
        (lambda y: {"logits": y}, "a dict"),
        (lambda y: (y, y), "a tuple"),
        (lambda y: y[:, 0], r"a tensor \(40,\)"),
        (lambda y: y[:, :1], r"a tensor \(40, 1\)"),
        (lambda y: y[:, :, None], r"a tensor \(40, 4, 1\)"),
    ],
)
def test_networks_that_return_no_logits_are_refused_in_a_sentence(problem, says, got):
    class Says(nn.Module):
        def forward(self, z):
            return says(network(z))

    network, x, y = problem
    with pytest.raises(TightlipError, match=rf"the attack needs logits \(batch, classes ≥ 2\), got {got}: wrap"):
        pgd(Says(), x, 0 * y, 0.1, steps=2, restarts=1)


def test_arrays_are_attacked_as_tensors_are(problem):
    network, x, y = problem
    found = pgd(network, x.numpy(), y.int().numpy(), 0.1, steps=2, restarts=1)
    assert torch.equal(found, pgd(network, x, y, 0.1, steps=2, restarts=1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(40)}, "y must hold one integer for each of 40 inputs"),
        ({"y": [0] * 40}, "y must be a tensor or a numpy array, got a list"),
        ({"x": torch.zeros(40, 3, 2, 2, dtype=torch.uint8)}, "x must be floating point"),
        ({"p": 3}, "no norm is called 3"),
        ({"eps": -0.1}, "eps must be a number ≥ 0, or one for each"),
        ({"eps": math.nan}, "eps must be a number ≥ 0, or one for each"),
        ({"eps": torch.tensor([0.1] * 39 + [-0.1])}, "eps must be a number ≥ 0, or one for each"),
        ({"eps": torch.tensor([0.1] * 39)}, "or one for each of 40 inputs"),
        ({"y": torch.zeros(39, dtype=torch.long)}, "y must hold one integer for each of 40 inputs"),
        ({"y": torch.full((40,), 4)}, "label"),
        ({"y": torch.full((40,), -1)}, "label"),
    ],
)
def test_what_cannot_be_attacked_is_refused(problem, change, sentence):
    network, x, y = problem
    with pytest.raises(TightlipError, match=sentence):
        pgd(network, **({"x": x, "y": y, "eps": 0.1, "steps": 2, "restarts": 1} | change))
