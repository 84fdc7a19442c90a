"""Constraints that do less than the exact one: truncated schedules, and Parseval's pull that promises nothing."""

import logging

import pytest
import torch
from torch import nn

from tightlip import Orthonormal, Parseval, TightlipError, constrain, freeze, hold, lipschitz, mlp
from tightlip.constraints import Cayley, MatrixExponential
from tightlip.linalg.polar import residual
from tightlip.linalg.schedules import bjorck, express, series


def trained(constraint, way, steps=5, rate=3e-2, width=32):
    torch.manual_seed(0)
    network = mlp([16, width, width, 4], constraint, hold=way)
    optimizer = hold(network, torch.optim.Adam(network.parameters(), lr=rate))
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.randn(64, 16)) - 3).square().mean().backward()
        optimizer.step()
    return network


def orthogonality(network):
    weights = [layer.weight.detach().double() for layer in network.modules() if isinstance(layer, nn.Linear)]
    return max(float(torch.linalg.matrix_norm(residual(weight), 2)) for weight in weights)


@pytest.mark.parametrize("way", ["step", "forward"])
def test_a_truncated_schedule_leaves_the_set_and_freeze_keeps_what_was_trained(way):
    network = trained(Orthonormal(bjorck(1)), way)
    assert orthogonality(network) > 1e-2
    frozen, x = freeze(network), torch.randn(50, 16)
    torch.testing.assert_close(frozen(x), network(x), atol=1e-5, rtol=0)
    assert lipschitz(frozen, 2).constant <= 1


def test_finishing_with_many_steps_reaches_the_set_changes_the_network_and_says_so(caplog):
    network = trained(Orthonormal(bjorck(1), finish=bjorck(15)), "forward")
    before, x = orthogonality(network), torch.randn(50, 16)
    with caplog.at_level(logging.WARNING):
        frozen = freeze(network)
    assert orthogonality(frozen) < 1e-5 < 1e-2 < before
    assert float((frozen(x) - network(x)).detach().abs().max()) > 1e-3
    assert "freezing moved its weights by up to" in caplog.text


@pytest.mark.parametrize("options", [{}, {"finish": express()}])
def test_the_exact_constraint_ignores_nothing(options):
    constraint = Orthonormal(**options)
    assert constraint.projects and constraint.promises
    weight = constraint.map(torch.randn(8, 5, dtype=torch.float64))
    torch.testing.assert_close(constraint.finish(weight), weight, atol=1e-9, rtol=0)


def test_three_forward_iterations_of_a_wide_layer_after_large_steps_stay_bounded():
    """Unguarded, three steps of order 1 after Adam's first steps have reached σ² = 4e4 at width 1024."""
    network = trained(Orthonormal(bjorck(3)), "forward", steps=4, rate=0.3, width=128)
    for layer in network:
        if isinstance(layer, nn.Linear):
            assert float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) <= 1 + 1e-5


def test_parseval_at_one_half_is_one_step_of_bjorcks_order_one():
    for shape in [(5, 5), (7, 3), (3, 7)]:
        weight = torch.randn(*shape, dtype=torch.float64) / 4
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        moved = s * (1 + float(series(1)[1]) * (1 - s**2))
        torch.testing.assert_close(Parseval(0.5).map(weight), u * moved @ vh, atol=1e-12, rtol=0)


@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0])
def test_parsevals_step_descends_the_distance_to_the_orthonormal_matrices(beta):
    """W − β·∇(¼‖WᵀW − I‖²): the formula against autograd."""
    weight = (torch.randn(6, 4, dtype=torch.float64) / 3).requires_grad_()
    energy = (weight.mT @ weight - torch.eye(4, dtype=torch.float64)).square().sum() / 4
    (gradient,) = torch.autograd.grad(energy, weight)
    expected = weight - beta * gradient
    torch.testing.assert_close(Parseval(beta).map(weight), expected, atol=1e-12, rtol=0)


def test_parseval_promises_nothing_and_the_audit_says_what_it_is():
    network = trained(Parseval(0.01), "step", steps=30)
    frozen, x = freeze(network), torch.randn(20, 16)
    torch.testing.assert_close(frozen(x), network(x), atol=0, rtol=0)
    assert lipschitz(frozen, 2).constant > 1.05


def test_parseval_that_runs_away_raises_before_it_is_used():
    network = mlp([8, 8, 1], Parseval(1.0))
    optimizer = hold(network, torch.optim.SGD(network.parameters(), lr=1.0))

    def train():
        for _ in range(50):
            optimizer.zero_grad()
            network(torch.randn(16, 8)).square().sum().mul(-1).backward()
            optimizer.step()

    with pytest.raises(TightlipError, match="lower the learning rate"):
        train()


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.5, float("nan")])
def test_pulls_that_make_no_sense_are_refused(beta):
    with pytest.raises(TightlipError, match="beta must be a finite number > 0 and ≤ 1"):
        Parseval(beta)


@pytest.mark.parametrize(
    ("constraint", "way", "instead"),
    [(Parseval(), "forward", "step"), (Cayley(), "step", "forward"), (MatrixExponential(), "step", "forward")],
)
def test_a_way_to_hold_that_makes_no_sense_is_refused_and_the_other_named(constraint, way, instead):
    with pytest.raises(TightlipError, match=rf"cannot be held by '{way}': pass hold='{instead}'"):
        constrain(nn.Linear(3, 3), constraint, way)


@pytest.mark.parametrize("constraint", [Cayley(), MatrixExponential()], ids=repr)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_torchs_charts_start_at_the_weight_that_was_there(constraint, shape):
    layer = nn.Linear(shape[1], shape[0], dtype=torch.float64)
    nn.init.orthogonal_(layer.weight)
    before = layer.weight.detach().clone()
    constrain(layer, constraint, "forward")
    torch.testing.assert_close(layer.weight.detach(), before, atol=1e-10, rtol=0)
    assert constraint.contains(layer.weight.detach())


def test_torchs_float32_exponential_drifts_with_its_parameter_and_freeze_puts_it_right():
    torch.manual_seed(0)
    layer = constrain(nn.Linear(200, 300), MatrixExponential(), "forward")
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(0).add_(torch.randn(300, 200).mul(30))
    assert orthogonality(layer) > 1e-3
    frozen = freeze(layer)
    assert orthogonality(frozen) < 1e-5 and lipschitz(frozen, 2).constant <= 1
