"""Small forms of the benchmarks of distances: they end, their rows are whole, and what they say is true."""

import math
import runpy
from pathlib import Path

import pytest
import torch

from tightlip.records import BenchRow

FOLDER = Path(__file__).parents[1] / "benchmarks"
ORIGIN = {"python", "torch", "numpy", "tightlip"}


def benchmark(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """A table of the manual, by its name, from the rows in this folder."""
    script = runpy.run_path(str(FOLDER.parent / "scripts" / "manual_tables.py"))
    monkeypatch.setitem(script["main"].__globals__, "RESULTS", tmp_path)
    return lambda name: script[name]()


@pytest.fixture(autouse=True)
def quiet(capsys):
    """What they print is for a terminal."""


def test_distances_hold_the_value_of_pot(tmp_path, shown):
    pytest.importorskip("ot", reason="POT is not installed: pip install -e '.[transport]'")
    script, path = benchmark("distances"), tmp_path / "distances.json"
    script["main"](["d16", "digits", "--points", "60", "--output", str(path)])
    script["main"](["d2", "--points", "60", "--output", str(path)])
    row = BenchRow.read(path)
    assert list(row.results) == ["d16", "digits", "d2"]  # of one commit all stay
    assert {*ORIGIN, "POT"} <= set(row.versions) and row.device == "cpu" and row.config == {"points": 60}
    for found in row.results.values():
        proven = found["wasserstein1"]
        assert found["holds_the_value_of_emd2"] and found["points"] == 60 and found["emd2"]["warning"] is None
        assert proven["gap"] <= found["tolerance"] and proven["cpu_seconds"] > 0
        assert 50 < proven["peak_megabytes"] < 50_000
    assert "| d16 | 60 | 16 | " in shown("distances") and "| digits | 60 | 784 | " in shown("distances")
    script["main"](["d2", "--points", "50", "--output", str(path)])
    assert list(BenchRow.read(path).results) == ["d2"]  # other options, another row


def test_cases_that_are_none_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark("distances")["main"](["d3", "--output", str(tmp_path / "row.json")])
    assert "no case is called d3: choose of d2, d16" in capsys.readouterr().err


def test_coverage_counts_intervals_that_hold(tmp_path, shown):
    script = benchmark("coverage")
    script["main"](["--repetitions", "4", "--dimensions", "1", "--output", str(tmp_path / "coverage.json")])
    row = BenchRow.read(tmp_path / "coverage.json")
    found = row.results["1"]
    assert {*ORIGIN, "scipy"} <= set(row.versions) and row.config["repetitions"] == 4
    assert found["truth"] == pytest.approx(0.3) and found["both_holds"] == 1.0
    assert found["both_at_least"] == pytest.approx(0.005 ** (1 / 4))  # of 4 in 4
    assert 0 < found["width_below"] < found["width"] < 1.3 and found["cpu_seconds"] > 0
    assert found["width_below_over_that_of_the_true_potential"] == pytest.approx(1, abs=0.2)
    assert "| 1 | 0.3 | 1 | 0.2659 | 1 | " in shown("coverage")


def test_an_interval_that_misses_is_counted(monkeypatch):
    script = benchmark("coverage")
    ends = {0: (0.1, 0.2), 1: (0.1, 0.5), 2: (0.4, 0.5), 3: (0.0, 0.3)}
    monkeypatch.setitem(script["coverage"].__globals__, "repetition", lambda d, seed: (*ends[seed - 1000], 0.0))
    found = script["coverage"](1, 4)
    assert [found[f"{end}_holds"] for end in ("lower", "upper", "both")] == [0.75, 0.75, 0.5]
    assert found["both_at_least"] == pytest.approx(0.0294, abs=1e-3)  # Clopper and Pearson, 2 of 4 at 99 %


def test_large_samples_are_asked_about_alone_and_by_ranks(tmp_path, monkeypatch, shown):
    """The processes are left out here: tests/transport/test_population.py has ranks under torchrun."""
    script = benchmark("large_samples")
    inside = script["main"].__globals__
    asked = inside["asked"]
    monkeypatch.setitem(inside, "BLOCK", 64)
    monkeypatch.setitem(inside, "measured", lambda folder, critic, ranks: [asked(folder, critic)] * (ranks or 1))
    small = ["--points", "300", "--dimensions", "2", "--critic", "linear"]
    script["main"]([*small, "--output", str(tmp_path / "large-samples.json")])
    row = BenchRow.read(tmp_path / "large-samples.json")
    assert shown("large_samples").count("| rank ") == 2
    assert row.results["holds_the_truth"] and row.results["same_interval"] and len(row.results["ranks"]) == 2
    assert row.results["truth"] == pytest.approx(0.3 * math.sqrt(2))
    alone = row.results["alone"]
    assert 0 <= alone["lower"] < alone["upper"] and alone["points_per_second"] > 0 and alone["peak_megabytes"] > 50
    monkeypatch.setitem(inside, "measured", lambda folder, critic, ranks: [{**alone, "lower": ranks or 0.0}])
    assert not script["compared"](300, 2, "linear", 2)["same_interval"]


def test_both_samples_of_a_large_one_are_what_they_are_called(tmp_path):
    import numpy as np

    script = benchmark("large_samples")
    script["write"](tmp_path / "x.npy", 1000, 3, 0.3, 7)
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert rows.shape == (1000, 3) and rows.dtype == np.float32
    assert float(rows.min()) >= 0.3 - 1e-6 and float(rows.max()) <= 1.3 + 1e-6
    assert float(torch.from_numpy(np.array(rows)).mean()) == pytest.approx(0.8, abs=0.03)
