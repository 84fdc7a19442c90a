"""A small form of the race to a certified accuracy: recipes first, then seconds, and it goes on where it stopped."""

import runpy
from pathlib import Path

import pytest
import torch
from sweeps import thorough

import tightlip
from tightlip.records import BenchRow

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = ["mnist5k", "--shortest", "0.1", "--longest", "0.2", "--recipes", "2"]


@pytest.fixture
def race(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "time_to_certificate.py"))


def test_recipes_are_searched_on_validation_data_and_raced_on_test_data(race, tmp_path, monkeypatch, capsys):
    pace = ["--only", "tightlip mlp", "GloRo", "--output", str(tmp_path)]
    race["main"](["search", *SMALL, *pace])
    searched = BenchRow.read(tmp_path / "race-recipes-mnist5k.json")
    assert {name: len(runs) for name, runs in searched.results["runs"].items()} == {"tightlip mlp": 3, "GloRo": 3}
    for name, best in searched.results["best"].items():
        assert list(best) == ["0.1", "0.2"]
        runs = [run for run in searched.results["runs"][name] if run["length"] == 0.1]
        assert best["0.1"] == max(runs, key=lambda run: run["certified"])["recipe"]
    race["main"](["race", *SMALL, *pace])
    path = tmp_path / "race-mnist5k.json"
    raced = BenchRow.read(path)
    for name, runs in raced.results["runs"].items():
        assert [(run["length"], run["seed"]) for run in runs] == [(t, s) for t in (0.1, 0.2) for s in (1, 2, 3)]
        assert all(run["recipe"] == searched.results["best"][name][f"{run['length']:g}"] for run in runs)
        assert all(run["length"] <= run["seconds"] and 0 <= run["certified"] <= run["clean"] <= 1 for run in runs)
    monkeypatch.setattr(race["Race"], "run", lambda *_: None)  # everything is there
    race["main"](["race", *SMALL, *pace])
    assert BenchRow.read(path).results == raced.results
    assert "tightlip mlp" in capsys.readouterr().out


def test_seconds_to_a_target_are_interpolated_along_their_logarithm(race):
    runs = [
        {"length": length, "seed": seed, "seconds": length, "certified": certified}
        for length, certified in ((10.0, 0.8), (20.0, 0.9), (40.0, 0.96))
        for seed in (1, 2, 3)
    ]
    assert race["to_target"](runs, 0.75) == 10
    assert race["to_target"](runs, 0.85) == pytest.approx(20 / 2**0.5)
    assert race["to_target"](runs, 0.93) == pytest.approx(40 / 2**0.5)
    assert race["to_target"](runs, 0.97) is None
    runs[1]["certified"] = 0.0  # of three seeds one fails, then two
    assert race["to_target"](runs, 0.75) == 10
    runs[2]["certified"] = 0.0
    assert race["to_target"](runs, 0.45) == pytest.approx(10 * 2**0.5)


def test_a_run_that_fails_certifies_nothing(race):
    contender = race["contenders"](0.3)["tightlip mlp"]
    recipe = race["recipes"](contender.space, 1)[0] | {"rate": 1e30}
    found = race["Race"](race["TRACKS"]["mnist5k"]).run(contender, recipe, 0.2, 0, "validation")
    assert found["certified"] == found["clean"] == 0 and found["seconds"] == 0.2 and "Error" in found["failed"]


def test_plain_copies_of_parametrized_networks_compute_the_same(race):
    known = race["contenders"](0.3)
    torch.manual_seed(0)
    x = torch.rand(7, 1, 28, 28)
    for name in ("torch spectral_norm", "torch cayley", "GloRo", "unconstrained, audited"):
        contender = known[name]
        recipe = race["recipes"](contender.space, 1)[0] | {"width": 16}
        network = contender.make(recipe, (1, 28, 28), 10)
        contender.loss(network, x, torch.arange(7), recipe, 0.5).backward()
        frozen = contender.frozen(network)
        assert not [p for p in frozen.modules() if hasattr(p, "parametrizations")]
        torch.testing.assert_close(frozen(x), network.eval()(x))
        assert tightlip.lipschitz(frozen, p=2).constant > 0


def test_a_smoothed_classifier_has_the_radius_of_its_votes(race):
    """One that says 1 for whatever is bright has radii as of a linear one, less what 1,000 draws leave open."""
    pytest.importorskip("scipy")
    contender = race["contenders"](0.3)["randomized smoothing"]
    bright = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        bright[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))  # 1 where the sum is above 0
        bright[1].bias.zero_()
    x = torch.tensor([0.35, 0.2, 0.02, -0.35])[:, None, None, None].expand(4, 1, 2, 2) / 2  # so far from the border
    torch.manual_seed(0)
    found = contender.measured(bright, x, torch.tensor([1, 1, 1, 1]), 0.3, 2)
    assert found["clean"] == 0.5 and found["certified"] == 0.25  # 0.02 is not told from the border
    assert 0 < found["seconds_for_each_certificate"] < 10


def test_the_loss_of_networks_that_know_their_slope_asks_for_eps(race):
    """With slopes of the differences of logits given by the weights, the class beyond wins within eps of a border."""
    known = race["contenders"](0.3)["GloRo"]
    torch.manual_seed(0)
    network = known.make({"width": 16}, (1, 28, 28), 10)
    for _ in range(50):
        slopes = network.slopes()
    spectral = [torch.linalg.matrix_norm(layer.weight, 2) for layer in network.layers[:-1]]
    rows = network.layers[-1].weight
    expected = torch.stack(spectral).prod() * torch.cdist(rows, rows)
    torch.testing.assert_close(slopes, expected, rtol=1e-2, atol=1e-4)
    x, y = torch.rand(9, 1, 28, 28), torch.arange(9)
    losses = [known.loss(network, x, y, {"eps": eps}, 0.5) for eps in (0.0, 0.1, 1.0)]
    assert losses[0] < losses[1] < losses[2]


@thorough
def test_networks_of_distances_race_beside_interval_bounds(race, tmp_path):
    small = ["mnist5k-inf", *SMALL[1:], "--output", str(tmp_path)]
    race["main"](["search", *small])
    race["main"](["race", *small])
    raced = BenchRow.read(tmp_path / "race-mnist5k-inf.json")
    assert raced.config["p"] == "inf" and set(raced.results["runs"]) == {"tightlip distances", "interval bounds"}
    assert not [run for runs in raced.results["runs"].values() for run in runs if "failed" in run]


def test_octaves_rise_with_the_time_that_is_used_up(race):
    contender = race["infinity_contenders"](0.1)["tightlip distances"]
    network = contender.make({"width": 4}, (1, 2, 2), 3)
    optimizer = contender.optimizer(network.parameters(), {"rate": 0.1})
    advance, seen = contender.schedule(network, optimizer), []
    for used in (0.0, 0.45, 0.89, 0.95):
        advance(used)
        seen.append([layer.octave for layer in network.modules() if isinstance(layer, tightlip.LinfDistance)])
    assert [set(octaves) for octaves in seen] == [{3}, {6}, {10}, {None}]
    assert 0 < optimizer.param_groups[0]["lr"] < 0.01


def test_interval_bounds_hold_and_are_those_of_a_box(race):
    """No corner or random point of the box has a smaller margin; with one layer a corner has that very margin."""
    contender = race["infinity_contenders"](0.1)["interval bounds"]
    bounds = contender.measured.__wrapped__.__globals__
    torch.manual_seed(0)
    x, y = torch.rand(5, 1, 2, 2).double(), torch.arange(5) % 3
    network = contender.make({"width": 8}, (1, 2, 2), 3).double()
    lower, upper = bounds["box"](x, 0.1)
    assert float(lower.min()) >= 0 and float(upper.max()) <= 1
    least = bounds["enclosed"](network, lower, upper, y)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    for point in torch.cat([corners, torch.rand(500, 4).double()]).view(-1, 1, 2, 2):
        logits = network(lower + point * (upper - lower))
        assert (logits.gather(1, y[:, None]) - logits >= least - 1e-12).all()
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).double()
    exact = bounds["enclosed"](linear, lower, upper, y)
    every = torch.stack([linear(lower + c * (upper - lower)) for c in corners.view(-1, 1, 2, 2)])
    margins = every.gather(2, y[None, :, None].expand(len(every), -1, -1)) - every
    torch.testing.assert_close(margins.amin(0), exact)
    guesses = linear(x).argmax(1)
    firm = (bounds["enclosed"](linear, lower, upper, guesses) > 0).sum(1) == 2
    found = contender.measured(linear, x, guesses, 0.1, float("inf"))
    assert found == {"clean": 1.0, "certified": float(firm.double().mean())}


def test_a_race_without_recipes_is_refused(race, tmp_path, capsys):
    with pytest.raises(SystemExit):
        race["main"](["race", *SMALL, "--only", "GloRo", "--output", str(tmp_path)])
    assert "nothing was searched for GloRo: give the phase 'search' first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        race["main"](["search", *SMALL, "--only", "nobody", "--output", str(tmp_path)])
    assert "there is no contender nobody: choose among tightlip mlp" in capsys.readouterr().err
