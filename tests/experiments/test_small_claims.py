"""What the small claims say of the paper holds on small cells, and what measures them gives known answers."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tightlip import MaxMin, TightlipError
from tightlip.experiments import small_claims
from tightlip.experiments.small_claims import Config, backpropagated, rescaled_distance, run


def numbers(claim, **options):
    return run(Config(claim, **{"width": 16, "steps": 60} | options), 0).metrics


def test_a_claim_that_nobody_makes_is_refused():
    with pytest.raises(TightlipError, match="no claim is called 'all'"):
        run(Config("all"), 0)


def test_relu_stays_below_one_half_in_the_infinity_norm_and_maxmin_does_not():
    found = numbers("infinity_norm", width=32, steps=250)
    assert 0.4 < found["relu_objective"] <= 0.5 + 1e-6
    assert 0.95 < found["maxmin_objective"] <= 1 + 1e-6
    assert 0.9 < found["constant"] <= 1 + 1e-6


def test_the_best_scale_is_found_and_a_constant_is_forgiven():
    truth = torch.tensor([0.0, 1.0, -2.0, 0.5])
    error, scale = rescaled_distance(truth / 4 + 3, truth)
    assert error == pytest.approx(0, abs=1e-6) and scale == pytest.approx(4)
    error, scale = rescaled_distance(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]))
    assert (error, scale) == (0.5, pytest.approx(scale)) and 0 <= scale <= 1
    assert rescaled_distance(-truth, truth) == (1.5, 0.0)  # no negative scale is tried


def test_a_larger_constant_does_not_mend_relu():
    found = numbers("larger_K", width=64, steps=300)
    assert found["relu_best_error"] > 0.4 > 0.25 > found["maxmin_best_error"]  # a constant has 0.5
    for name in ("relu", "maxmin"):
        assert found[f"{name}_best_error"] <= found[f"{name}_error"] + 1e-6


@pytest.mark.parametrize("claim", ["gradient_penalty", "jacobian_penalty"])
def test_a_penalty_bounds_slopes_where_it_looks_and_nothing_is_proven(claim):
    found = numbers(claim, width=32, steps=150)
    assert 0.5 < found["slope_asked"] < found["steepest_found"] < found["constant"]
    assert found["constant"] > 2 * found["slope_asked"]


def test_the_penalty_on_the_jacobian_names_its_data():
    outcome = run(Config("jacobian_penalty", width=8, steps=1), 0)
    assert outcome.data["name"] == "mnist5k" and len(outcome.data["sha256"]) == 64


def test_maxmin_keeps_the_norm_of_gradients_and_relu_loses_it_layer_by_layer():
    outcome = run(Config("backpropagated_norm", width=16, steps=20), 0)
    found, curve = outcome.metrics, outcome.drawings["curve"]
    assert found["maxmin_start_kept"] == pytest.approx(1, abs=1e-5)
    assert found["maxmin_trained_kept"] == pytest.approx(1, abs=1e-5)
    assert found["relu_start_kept"] < 0.3 and found["relu_trained_kept"] < 0.9
    for name in ("relu_at_start", "relu_trained"):
        assert all(before <= after + 1e-6 for before, after in pairwise(curve[name]))
        assert curve[name][-1] == pytest.approx(1, abs=1e-5)


def test_norms_are_those_of_the_chain_rule():
    network = nn.Sequential(nn.Linear(2, 2, bias=False), MaxMin(), nn.Linear(2, 1, bias=False))
    network[0].weight.data = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    network[2].weight.data = torch.tensor([[0.0, 5.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # the largest is the first unit, then the second
    assert backpropagated(network, x) == [pytest.approx((10 + 15) / 2), 5.0]


def test_fifteen_iterations_suffice_for_weights_in_training_and_not_for_a_square_gaussian_matrix():
    found = run(Config("fifteen_iterations", width=60), 0).metrics
    for start in ("tall", "drifted", "initial"):
        assert found[f"error_{start}"] <= 1e-6 and found[f"iterations_{start}"] <= 15
    assert found["error_gaussian"] > 0.1 and found["iterations_gaussian"] > 15


@pytest.mark.parametrize("claim", small_claims.CLAIMS)
def test_every_claim_has_numbers_of_its_own_and_all_are_described(claim):
    found = numbers(claim, width=8, steps=1)
    assert found.keys() <= small_claims.METRICS.keys()
    assert all(value is None or math.isfinite(value) for value in found.values())
    assert all(claim in small_claims.__doc__ for claim in small_claims.CLAIMS)
