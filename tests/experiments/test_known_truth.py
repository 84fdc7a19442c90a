"""Critics beside a W1 that is known: published numbers are whole, and what is measured would show a wrong critic."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tightlip import TightlipError, lipschitz
from tightlip.experiments import known_truth
from tightlip.experiments.known_truth import Config, measured, published
from tightlip.experiments.published_solvers import COSINE, L2, SOLVERS, W1
from tightlip.transport import FunnelPair, Funnels
from tightlip.transport.families import minus

SMALL = Config(2, 4, steps=20, batch_size=128, points=4000, truth_points=20_000, width=32)


def truth_of(pair):
    return nn.Sequential(Funnels(pair.centers, pair.offsets), minus())


def test_published_numbers_are_of_all_pairs_and_all_solvers():
    pairs = {(d, n) for d in known_truth.GRID["dimension"] for n in known_truth.GRID["funnels"]}
    assert len(pairs) == 28 and pairs == set(W1) == set(COSINE) == set(L2)
    assert {len(row) for row in W1.values()} == {1 + len(SOLVERS)}
    assert {len(row) for row in (*COSINE.values(), *L2.values())} == {len(SOLVERS)} == {9}
    assert all(-1 <= cosine <= 1 for row in COSINE.values() for cosine in row)
    assert all(value >= 0 for row in L2.values() for value in row)
    assert W1[16, 256][-1] == 1.399 and W1[16, 64][SOLVERS.index("sort_out")] == 0.849


def test_published_numbers_are_shown_for_the_published_pairs_alone():
    found = published(Config(16, 64))
    assert found["sort_out_error_percent"] == pytest.approx(100 * (1 - 0.849 / 1.554))
    assert set(published(replace(SMALL, pair_seed=3)).values()) == set(published(Config(3, 4)).values()) == {None}
    assert set(published(Config(3, 4))) == set(found) < set(known_truth.METRICS)


@pytest.mark.parametrize(("dimension", "funnels"), [(2, 64), (32, 16)])
def test_the_true_potential_is_measured_as_the_truth(dimension, funnels):
    pair = FunnelPair(dimension, funnels)
    truth, error = pair.wasserstein1(50_000)
    found = measured(pair, truth_of(pair), 50_000)
    assert abs(found["estimate"] - truth) < 4 * (found["standard_error"] + error)
    assert found["lower"] < truth and found["lower"] > truth - 0.35
    assert found["cosine"] == pytest.approx(1, abs=1e-3) and found["l2"] < 2e-3 and found["constant"] <= 1 + 1e-12


def test_a_critic_turned_over_or_blown_up_is_seen():
    pair = FunnelPair(8, 4)
    wrong = measured(pair, Funnels(pair.centers, pair.offsets), 5000)
    assert wrong["cosine"] < -0.999 and wrong["l2"] == pytest.approx(4, abs=0.01) and wrong["estimate"] < 0

    steep = nn.Sequential(*truth_of(pair), nn.Linear(1, 1, bias=False))
    nn.init.constant_(steep[-1].weight, 3.0)
    found, true = measured(pair, steep, 5000), measured(pair, truth_of(pair), 5000)
    assert found["constant"] == pytest.approx(3) and found["estimate"] == pytest.approx(true["estimate"], rel=1e-6)
    assert found["lower"] == pytest.approx(true["lower"], rel=1e-3)


@pytest.mark.parametrize("solver", known_truth.GRID["solver"])
@pytest.mark.parametrize(("dimension", "funnels"), [(2, 4), (16, 64)])
def test_nothing_is_above_the_truth_and_its_interval(solver, dimension, funnels):
    config = replace(SMALL, dimension=dimension, funnels=funnels, solver=solver)
    found = known_truth.run(config, 0).metrics
    assert set(found) == set(known_truth.METRICS)
    assert found["lower"] <= found["estimate"] <= found["truth"] + 5 * (found["standard_error"] + found["truth_error"])
    assert found["lower"] < found["truth"] and 1 - 1e-6 < found["constant"] <= 1 + 1e-6
    assert found["error_percent"] == pytest.approx(100 * abs(1 - found["estimate"] / found["truth"]))


def test_funnels_find_the_truth_of_a_small_pair():
    found = known_truth.run(replace(SMALL, solver="funnels", steps=200, points=20_000), 0).metrics
    assert found["error_percent"] < 4 and found["cosine"] > 0.8


def test_the_generic_critic_is_the_better_of_a_network_and_cones(monkeypatch):
    pair, config = FunnelPair(2, 64), replace(SMALL, funnels=64, steps=40)
    torch.manual_seed(0)
    chosen = known_truth.CRITICS["generic"](pair, config, pair.sample)
    assert type(chosen) is Funnels and chosen.points.shape == (known_truth.CONES, 2)
    monkeypatch.setattr(known_truth, "train_funnels", lambda *_, **__: Funnels(torch.zeros(1, 2), torch.zeros(1)))
    chosen = known_truth.CRITICS["generic"](pair, config, pair.sample)
    assert type(chosen) is nn.Sequential and type(chosen[0]) is nn.Linear
    chosen = known_truth.CRITICS["generic"](FunnelPair(16, 4), config, FunnelPair(16, 4).sample)
    assert type(chosen[0]) is nn.Linear and chosen[0].weight.shape == (128, 16)


def test_runs_repeat_themselves():
    tiny = replace(SMALL, steps=3, points=500, truth_points=2000)
    first, second = (known_truth.run(tiny, 0).metrics for _ in range(2))
    assert {**first, "cpu_seconds": 0} == {**second, "cpu_seconds": 0}
    assert known_truth.run(tiny, 1).metrics["estimate"] != first["estimate"]


def test_a_solver_that_is_unknown_is_refused():
    with pytest.raises(TightlipError, match="no solver is called 'funnel' .did you mean funnels"):
        known_truth.run(replace(SMALL, solver="funnel"), 0)


def test_the_critic_is_frozen_and_audited():
    critic = known_truth.CRITICS["funnels"](FunnelPair(2, 4), SMALL, FunnelPair(2, 4).sample)
    assert 1 <= lipschitz(critic, 2).constant <= 1 + 1e-12 and isinstance(critic, nn.Sequential)
    assert critic(torch.zeros(3, 2)).shape == (3, 1)
