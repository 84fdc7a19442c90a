"""Experiments are run cell by cell: complete, resumable, and each row with its birth certificate."""

import json
import types
from dataclasses import dataclass

import pytest

from tightlip import TightlipError
from tightlip.experiments import EXPERIMENTS
from tightlip.experiments.grid import Preset, cells, run_cells, summary_of


@dataclass(frozen=True)
class Config:
    base: int = 2
    power: int = 1


def powers(calls=None, run=None):
    """An experiment of four cells, as a module of one's own would be."""
    module = types.ModuleType("study.of_powers", "Powers, computed.\n\nMore about them.")
    module.Config, module.GRID = Config, {"power": (1, 2)}
    module.SMOKE, module.PAPER = Preset(seeds=2), Preset({"base": 3}, seeds=3, grid={"power": (1, 2, 3)})

    def compute(config, seed):
        if calls is not None:
            calls.append((config, seed))
        return {"value": float(config.base**config.power + seed), "curve": {"x": [0, 1], "y": [1.0, 2.0]}}

    module.run = run or compute
    return module


def test_every_cell_of_grid_and_seeds_becomes_a_row_with_its_birth_certificate(tmp_path):
    rows = run_cells(powers(), powers().SMOKE, tmp_path)
    assert [(r["config"]["power"], r["seed"], r["metrics"]["value"]) for r in rows] == [
        (1, 0, 2.0),
        (1, 1, 3.0),
        (2, 0, 4.0),
        (2, 1, 5.0),
    ]
    assert len(list(tmp_path.iterdir())) == 4
    for row in rows:
        assert row["experiment"] == "of_powers" and row["summary"] == "Powers, computed."
        assert {"commit", "dirty", "versions", "device", "threads", "machine", "seconds", "data"} <= set(row)


def test_presets_change_options_and_axes(tmp_path):
    rows = run_cells(powers(), powers().PAPER, tmp_path)
    assert sorted({row["metrics"]["value"] - row["seed"] for row in rows}) == [3.0, 9.0, 27.0]


def test_rows_that_are_there_are_not_computed_again_and_others_are(tmp_path):
    calls = []
    run_cells(powers(calls), powers().SMOKE, tmp_path)
    victim, damaged, *_ = sorted(tmp_path.iterdir())
    victim.unlink()
    damaged.write_text('{"format": 1, "experi')
    rows = run_cells(powers(calls), powers().SMOKE, tmp_path)
    assert len(calls) == 6 and len(rows) == 4
    run_cells(powers(calls), Preset({"base": 5}, seeds=2), tmp_path)
    assert len(calls) == 10


def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path):
    def run(config, seed):
        if config.power == 2 and seed == 0:
            raise TightlipError("a step left NaN")
        return {"value": 1.0}

    with pytest.raises(TightlipError, match=r"1 of 4 cells failed.*power=2_seed0.*a step left NaN"):
        run_cells(powers(run=run), powers().SMOKE, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_interruption_keeps_what_is_complete(tmp_path):
    def run(config, seed):
        if config.power == 2:
            raise KeyboardInterrupt
        return {"value": 1.0}

    with pytest.raises(KeyboardInterrupt):
        run_cells(powers(run=run), powers().SMOKE, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("jobs", [0, -1, 1000])
def test_impossible_numbers_of_jobs_are_refused(tmp_path, jobs):
    with pytest.raises(TightlipError, match="jobs"):
        run_cells(powers(), powers().SMOKE, tmp_path, jobs)


def test_two_processes_compute_the_same_rows_as_one(tmp_path):
    experiment = EXPERIMENTS["bjorck_convergence"]
    preset = Preset({"size": 16, "steps": 3}, grid={"schedule": ("bjorck1",), "scaling": ("bound",)})
    one, two = (run_cells(experiment, preset, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert len(one) == 4
    for a, b in zip(one, two, strict=True):
        assert a["metrics"]["final_error"] == pytest.approx(b["metrics"]["final_error"], rel=1e-4)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_described_and_its_smoke_preset_runs(name, tmp_path):
    experiment = EXPERIMENTS[name]
    assert summary_of(experiment).endswith(".") and len(summary_of(experiment)) < 120
    assert all(cell.axes for cell in cells(experiment, experiment.PAPER))
    rows = run_cells(experiment, experiment.SMOKE, tmp_path)
    assert len(rows) == sum(1 for _ in cells(experiment, experiment.SMOKE))
    for row in rows:
        json.dumps(row, allow_nan=False)
        assert all(len(column) >= 1 for column in row["metrics"].get("curve", {}).values())


def test_the_order_of_schedules_is_what_the_scalar_theory_says(tmp_path):
    experiment = EXPERIMENTS["bjorck_convergence"]
    grid = {"schedule": ("bjorck1", "bjorck3", "express3"), "start": ("gaussian",), "scaling": ("bound",)}
    rows = run_cells(experiment, Preset({"size": 64, "dtype": "float64"}, grid=grid), tmp_path)
    first, third, express = (row["metrics"] for row in rows)
    assert first["steps"] > third["steps"] and express["products"] < first["products"]
    assert first["error_after_15_steps"] > 0.1


def test_parseval_is_charged_for_leaving_the_set(tmp_path):
    experiment = EXPERIMENTS["bjorck_vs_parseval"]
    grid = {"scheme": ("parseval0.05", "exact_step"), "learning_rate": (1e-2,)}
    preset = Preset({"dimension": 4, "width": 16, "steps": 30, "points": 2000}, grid=grid)
    parseval, exact = (row["metrics"] for row in run_cells(experiment, preset, tmp_path))
    assert parseval["constant"] > 1.01 and parseval["bound"] == pytest.approx(
        parseval["objective"] / parseval["constant"]
    )
    assert exact["constant"] <= 1 and max(exact["curve"]["largest"]) <= 1 + 1e-5
    assert exact["bound"] <= 1 + 3 * exact["standard_error"]
