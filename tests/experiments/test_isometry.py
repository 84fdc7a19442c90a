"""Figures 6 and 16: what networks make of their constant, against what is known of it."""

import math
from functools import cache

import pytest
import torch
from torch import nn

from tightlip import MaxMin, Orthonormal, TightlipError, freeze, mlp
from tightlip.diagnostics import ActivationStatistics
from tightlip.experiments import dynamical_isometry, lipschitz_capacity
from tightlip.experiments.dynamical_isometry import gradients, is_measured, place

CAPACITY = {"data": "mnist5k", "epochs": 1, "inputs": 20}
ISOMETRY = {"data": "mnist5k", "steps": 5, "inputs": 20}


@cache
def capacity(network, width=32):
    return lipschitz_capacity.run(lipschitz_capacity.Config(network, width, **CAPACITY), 0)


@cache
def isometry(activation, network="3 × 32", **options):
    return dynamical_isometry.run(dynamical_isometry.Config(activation, network, **ISOMETRY | options), 0)


@pytest.mark.parametrize("network", lipschitz_capacity.NETWORKS)
def test_no_spectral_norm_exceeds_the_audited_constant(network):
    metrics = capacity(network).metrics
    assert 0 < metrics["smallest"] <= metrics["median"] <= metrics["largest"] <= metrics["constant"]
    K = lipschitz_capacity.NETWORKS[network].K
    assert metrics["used"] == (None if K is None else metrics["largest"] / K)
    assert K is None or metrics["constant"] <= K


def test_where_nothing_widens_sorting_uses_all_of_the_constant_and_relu_does_not():
    for network in ("10-Lipschitz maxmin", "10-Lipschitz groupsort4"):
        assert capacity(network).metrics["smallest"] == pytest.approx(10, rel=1e-4)
    assert capacity("10-Lipschitz relu").metrics["largest"] < 9


def test_units_are_counted_by_how_often_they_are_positive():
    shares = torch.tensor([[0.0, 0.3, 0.4, 0.9], [0.99, 1.0, 0.95, 0.0]], dtype=torch.float64)
    layers = [ActivationStatistics("1", "ReLU()", positive) for positive in shares]
    counted = lipschitz_capacity.frequencies(layers)
    assert counted == {"active_40": 5 / 8, "active_90": 4 / 8, "always": 2 / 8, "never": 2 / 8}


def test_both_panels_share_an_axis_of_fifty_thresholds():
    positive = torch.linspace(0, 1, 11, dtype=torch.float64)
    layers = [ActivationStatistics("1", "ReLU()", positive), ActivationStatistics("3", "ReLU()", positive * 0)]
    columns = lipschitz_capacity.curve(torch.linspace(3, 5, 101, dtype=torch.float64), layers)
    assert {len(column) for column in columns.values()} == {50} and columns["tau"][0] == 0 and columns["tau"][-1] == 1
    assert columns["spectral_norm"] == pytest.approx([3 + 2 * tau for tau in columns["tau"]])
    for tau, first, second, both in zip(
        *(columns[name] for name in ("tau", "positive_1", "positive_2", "positive")), strict=True
    ):
        assert first == sum(share >= tau for share in positive.tolist()) / 11
        assert second == (tau == 0) and both == (first + second) / 2


def test_a_step_is_measured_where_it_is_a_power_of_four():
    assert [step for step in range(300) if is_measured(step)] == [0, 1, 4, 16, 64, 256]
    assert [place(step) for step in (0, 1, 4, 16, 64)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("activation", ["maxmin", "fullsort"])
def test_where_nothing_widens_isometry_is_kept_through_training(activation):
    for network in ("3 × 32", "49 × 64"):
        outcome = isometry(activation, network)
        for name in ("smallest", "largest"):
            assert outcome.metrics[name] == pytest.approx(10, rel=1e-4)
        for name in ("gradient_start", "gradient_end"):
            assert outcome.metrics[name] == pytest.approx(1, rel=1e-4)


def test_relu_has_no_isometry_and_loses_its_gradients_with_depth():
    shallow, deep = isometry("relu").metrics, isometry("relu", "49 × 64").metrics
    assert shallow["smallest_start"] < 2 and shallow["largest"] <= shallow["constant"]
    assert deep["gradient_start"] < 1e-4 < shallow["gradient_start"] < 0.9


def test_a_network_that_widens_is_near_isometry_and_not_at_it():
    metrics = isometry("maxmin", "3 × 1024", steps=1).metrics
    assert 7.5 < metrics["smallest"] < metrics["largest"] < 9.9


def test_measurements_are_drawn_by_step_or_for_deep_networks_by_layer():
    shallow, deep = isometry("relu").drawings, isometry("relu", "49 × 64").drawings
    assert shallow["curve"]["place"] == [0, 1, 2, pytest.approx(1 + math.log(5, 4))]
    assert shallow["surface"]["x"] == shallow["curve"]["place"] and len(shallow["surface"]["y"]) == 10
    assert len(shallow["surface"]["z"]) == 4 and {len(row) for row in shallow["surface"]["z"]} == {10}
    assert all(row == sorted(row, reverse=True) for row in shallow["surface"]["z"])
    assert deep["curve"]["layer"] == list(range(50)) and deep["curve"]["gradient_end"][-1] == 1


def test_gradients_are_those_of_the_chain_rule():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    network, x, y = network.double(), torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 3
    logits = network(x)
    last = (logits.softmax(1) - nn.functional.one_hot(y, 3)) @ network[5].weight
    middle = (last * (network[:4](x) > 0)) @ network[3].weight
    first = (middle * (network[:2](x) > 0)) @ network[1].weight
    expected = torch.stack([part.norm(dim=1) for part in (first, middle, last)]) / last.norm(dim=1)
    assert torch.allclose(gradients(network, x, y), expected.detach())


def test_the_network_whose_gradients_are_taken_is_left_alone():
    network = freeze(mlp([6, 4, 3], Orthonormal(), MaxMin))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    gradients(network, torch.rand(5, 6), torch.arange(5) % 3)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_unknown_networks_are_refused_before_data_are_looked_for():
    for module in (lipschitz_capacity, dynamical_isometry):
        with pytest.raises(TightlipError, match="no network is called '3x512'"):
            module.run(module.Config(network="3x512", data="absent.npz"), 0)
