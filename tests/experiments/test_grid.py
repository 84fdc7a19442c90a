"""Experiments are run cell by cell: complete, resumable, and each row with its birth certificate."""

import json
import logging
import re
import types
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path

import pytest
from sweeps import EVERYTHING

from tightlip import TightlipError
from tightlip.experiments import EXPERIMENTS
from tightlip.experiments import rows as rows_of
from tightlip.experiments.cells import cells
from tightlip.experiments.protocol import Outcome, Preset, named
from tightlip.experiments.rows import run_cells
from tightlip.experiments.words import definition_of, summary_of
from tightlip.records import CellRow, Definition, Metric

NEW = {"preset", "place"}
"""What rows of the first version lacked."""


def rows_in(folder):
    return sorted(folder.glob("*seed*.json"))


@dataclass(frozen=True)
class Config:
    base: int = 2
    """What is
    multiplied."""
    power: int = 1


def powers(calls=None, run=None):
    """An experiment of four cells, as a module of one's own would be."""
    module = types.ModuleType("study.of_powers", "Powers, computed.\n\nMore about\n`powers`.")
    module.METRICS, module.CURVES = {"value": Metric("The power.", truth=2.0)}, {"y": "height"}
    module.Config, module.GRID = Config, {"power": (1, 2)}
    module.SMOKE, module.PAPER = Preset(seeds=2), Preset({"base": 3}, seeds=3, grid={"power": (1, 2, 3)})

    def compute(config, seed):
        if calls is not None:
            calls.append((config, seed))
        return Outcome({"value": float(config.base**config.power + seed)}, {"curve": {"x": [0, 1], "y": [1.0, 2.0]}})

    module.run = run or compute
    return module


def test_every_cell_of_grid_and_seeds_becomes_a_row_with_its_birth_certificate(tmp_path):
    rows = run_cells(powers(), powers().SMOKE, tmp_path)
    assert [(r.config["power"], r.seed, r.metrics["value"]) for r in rows] == [
        (1, 0, 2.0),
        (2, 0, 4.0),
        (1, 1, 3.0),
        (2, 1, 5.0),
    ]
    assert len(rows_in(tmp_path)) == 4
    for row in rows:
        assert row.experiment == "of_powers"
        assert {"commit", "dirty", "versions", "device", "threads", "machine", "seconds", "data"} <= set(row.to_json())


def test_an_experiment_tells_a_stranger_once_what_its_rows_are(tmp_path):
    rows = run_cells(powers(), powers().SMOKE, tmp_path)
    assert [(row.preset, row.place) for row in rows] == [("smoke", place) for place in (0, 1, 0, 1)]
    said = Definition.read(tmp_path / "experiment.json")
    assert (said.summary, said.about) == ("Powers, computed.", "More about powers.")
    assert said.config == {"base": "What is multiplied."} and said.curves == {"y": "height"}
    assert said.metrics == {"value": Metric("The power.", truth=2.0)}
    for path in rows_in(tmp_path):
        assert "power." not in path.read_text() and "multiplied" not in path.read_text()
    assert {row.preset for row in run_cells(powers(), powers().PAPER, tmp_path)} == {"paper"}
    assert {row.preset for row in run_cells(powers(), Preset({"base": 7}), tmp_path)} == {"other"}


def test_the_name_travels_with_the_preset_also_where_two_are_equal(tmp_path):
    module = powers()
    module.SMOKE, module.PAPER = Preset(seeds=2), Preset(seeds=2)
    for name, preset in (("smoke", module.SMOKE), ("paper", module.PAPER), ("other", Preset(seeds=2))):
        assert {row.preset for row in run_cells(module, preset, tmp_path / name)} == {name}
    module.PAPER = module.SMOKE
    for name in ("smoke", "paper"):
        assert {cell.preset for cell in cells(module, named(module, name))} == {name}
    with pytest.raises(TightlipError, match=r"no preset is called 'papr' \(did you mean paper\?\)"):
        named(module, "papr")


def test_a_config_without_a_file_has_no_words():
    module = powers()
    module.Config, module.METRICS = make_dataclass("Config", [("power", int, 1)], frozen=True), {}
    said = definition_of(module)
    assert (said.config, said.metrics, said.curves) == ({}, {}, {"y": "height"})


def test_rows_of_before_there_were_words_are_kept_and_get_them(tmp_path):
    rows = run_cells(powers(), powers().SMOKE, tmp_path)
    for path in rows_in(tmp_path):
        row = {key: value for key, value in json.loads(path.read_text()).items() if key not in NEW}
        row["metrics"] |= row.pop("drawings")
        path.write_text(json.dumps(row | {"format": 1, "seconds": {"total": 77.0}, "commit": "0" * 40}))

    def never(config, seed):
        raise AssertionError("a row that is there is computed again")

    again = run_cells(powers(run=never), powers().SMOKE, tmp_path)
    assert again == [replace(row, seconds={"total": 77.0}, commit="0" * 40) for row in rows]
    assert sorted(map(CellRow.read, rows_in(tmp_path)), key=lambda row: row.seed) == again
    assert {json.loads(path.read_text())["format"] for path in rows_in(tmp_path)} == {2}


def test_files_of_rows_keep_the_names_that_committed_ones_have():
    experiment = EXPERIMENTS["bjorck_convergence"]
    assert next(cells(experiment, experiment.PAPER)).file == (
        "schedule=bjorck1_start=gaussian_scaling=bound_seed0_2a08399f.json"
    )
    experiment = EXPERIMENTS["bjorck_vs_parseval"]
    assert next(cells(experiment, experiment.PAPER)).file == "scheme=exact_step_learning_rate=0.001_seed0_a9c56906.json"


def test_the_same_cell_of_two_presets_is_computed_once(tmp_path):
    calls = []
    run_cells(powers(calls), powers().SMOKE, tmp_path)
    run_cells(powers(calls), Preset({"base": 2}), tmp_path)
    assert len(calls) == 4 and len(rows_in(tmp_path)) == 4


def test_progress_names_cells_as_a_person_would_and_counts_those_that_are_there(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tightlip")
    run_cells(powers(), powers().SMOKE, tmp_path)
    assert caplog.messages[0] == "of_powers: 0 of 4 cells are there already"
    assert caplog.messages[2] == "power=2 seed 0: done, 2 of 4"
    next(tmp_path.glob("power=2_seed1*")).unlink()
    caplog.clear()
    run_cells(powers(), powers().SMOKE, tmp_path)
    assert caplog.messages == ["of_powers: 3 of 4 cells are there already", "power=2 seed 1: done, 4 of 4"]


def test_rows_of_another_commit_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tightlip")
    run_cells(powers(), powers().SMOKE, tmp_path)
    path = rows_in(tmp_path)[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "0" * 40}))
    caplog.clear()
    run_cells(powers(), powers().SMOKE, tmp_path)
    assert caplog.messages[1] == "1 of them are of another commit: to compute them again, delete their files"


def test_presets_change_options_and_axes(tmp_path):
    rows = run_cells(powers(), powers().PAPER, tmp_path)
    assert sorted({row.metrics["value"] - row.seed for row in rows}) == [3.0, 9.0, 27.0]


def test_rows_that_are_there_are_not_computed_again_and_others_are(tmp_path):
    calls = []
    run_cells(powers(calls), powers().SMOKE, tmp_path)
    victim, damaged, *_ = rows_in(tmp_path)
    victim.unlink()
    damaged.write_text('{"format": 1, "experi')
    rows = run_cells(powers(calls), powers().SMOKE, tmp_path)
    assert len(calls) == 6 and len(rows) == 4
    run_cells(powers(calls), Preset({"base": 5}, seeds=2), tmp_path)
    assert len(calls) == 10


def test_a_row_without_its_metrics_is_computed_again(tmp_path):
    run_cells(powers(), powers().SMOKE, tmp_path)
    victim = rows_in(tmp_path)[0]
    row = json.loads(victim.read_text())
    del row["metrics"]
    victim.write_text(json.dumps(row))
    assert all("value" in row.metrics for row in run_cells(powers(), powers().SMOKE, tmp_path))


def test_options_that_no_row_can_keep_are_refused(tmp_path):
    with pytest.raises(TightlipError, match="a row keeps finite numbers only"):
        run_cells(powers(), Preset(grid={"power": (float("inf"),)}), tmp_path)


def test_any_error_of_a_cell_is_told_and_the_others_go_on(tmp_path):
    def run(config, seed):
        return Outcome({"value": {1: 1.0}[config.power]})

    with pytest.raises(TightlipError, match="2 of 4 cells failed.*KeyError"):
        run_cells(powers(run=run), powers().SMOKE, tmp_path)
    assert len(rows_in(tmp_path)) == 2


def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path):
    def run(config, seed):
        if config.power == 2 and seed == 0:
            raise TightlipError("a step left NaN")
        return Outcome({"value": 1.0})

    with pytest.raises(TightlipError, match=r"1 of 4 cells failed.*power=2 seed 0: .*a step left NaN"):
        run_cells(powers(run=run), powers().SMOKE, tmp_path)
    assert len(rows_in(tmp_path)) == 3


def test_files_of_a_cell_lie_in_a_folder_of_its_own_beside_its_row(tmp_path):
    def run(config, seed):
        return Outcome({"value": 1.0}, write=lambda folder: (folder / "model").write_text(f"{config.power} {seed}"))

    rows = run_cells(powers(run=run), powers().SMOKE, tmp_path)
    models = sorted(tmp_path.glob("*/model"))
    assert sorted(path.read_text() for path in models) == sorted(f"{row.config['power']} {row.seed}" for row in rows)
    assert all((path.parent.with_name(path.parent.name + ".json")).exists() for path in models)


def test_an_interruption_keeps_what_is_complete(tmp_path):
    def run(config, seed):
        if seed == 1:
            raise KeyboardInterrupt
        return Outcome({"value": 1.0})

    with pytest.raises(KeyboardInterrupt):
        run_cells(powers(run=run), powers().SMOKE, tmp_path)
    assert {CellRow.read(path).config["power"] for path in rows_in(tmp_path)} == {1, 2}  # a whole table of one seed


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
        assert a.metrics["final_error"] == pytest.approx(b.metrics["final_error"], rel=1e-4)


def covering(experiment, preset):
    """Cells in which every value of every axis is seen; in `make sweeps` all cells."""
    seen = set()
    for cell in cells(experiment, preset):
        values = {(axis, str(cell.config[axis])) for axis in cell.axes}
        if EVERYTHING or not values <= seen:
            seen |= values
            yield cell


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_described_and_its_smoke_preset_runs(name, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_of, "cells", covering)
    experiment = EXPERIMENTS[name]
    assert summary_of(experiment).endswith(".") and len(summary_of(experiment)) < 120
    assert all(cell.axes for cell in cells(experiment, experiment.PAPER))
    rows = run_cells(experiment, experiment.SMOKE, tmp_path)
    assert len(rows) == sum(1 for _ in covering(experiment, experiment.SMOKE)) > 0
    said = Definition.read(tmp_path / "experiment.json")
    assert said.about and said.config.keys() == {field.name for field in fields(experiment.Config)}
    for row in rows:
        json.dumps(row.to_json(), allow_nan=False)
        curve = row.drawings.get("curve", {})
        assert all(len(column) >= 1 for column in curve.values())
        assert said.metrics.keys() >= row.metrics.keys() and said.curves.keys() >= curve.keys()
        assert row.preset == "smoke"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_documentation_explains_every_option_and_metric(name):
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = page.split(f"## {name}\n")[1].split("\n## ")[0]
    said = definition_of(EXPERIMENTS[name])
    for word in (*said.config, *said.metrics, *map(str, EXPERIMENTS[name].GRID)):
        assert f"| `{word}` |" in section, word
    for word in (value for values in EXPERIMENTS[name].GRID.values() for value in values if isinstance(value, str)):
        assert f"`{word}`" in section, word
    for kind, preset in (("Smoke", EXPERIMENTS[name].SMOKE), ("Paper", EXPERIMENTS[name].PAPER)):
        size = sum(1 for _ in cells(EXPERIMENTS[name], preset))
        assert re.search(rf"\b{kind}: {size} cells?\b", section), (kind, size)


def test_the_order_of_schedules_is_what_the_scalar_theory_says(tmp_path):
    experiment = EXPERIMENTS["bjorck_convergence"]
    grid = {"schedule": ("bjorck1", "bjorck3", "express3"), "start": ("gaussian",), "scaling": ("bound",)}
    rows = run_cells(experiment, Preset({"size": 64, "dtype": "float64"}, grid=grid), tmp_path)
    first, third, express = (row.metrics for row in rows)
    assert first["steps"] > third["steps"] and express["products"] < first["products"]
    assert first["error_after_15_steps"] > 0.1


def test_parseval_is_charged_for_leaving_the_set(tmp_path):
    experiment = EXPERIMENTS["bjorck_vs_parseval"]
    grid = {"scheme": ("parseval0.05", "exact_step"), "learning_rate": (1e-2,)}
    preset = Preset({"dimension": 4, "width": 16, "steps": 30, "points": 2000}, grid=grid)
    rows = run_cells(experiment, preset, tmp_path)
    parseval, exact = (row.metrics for row in rows)
    assert parseval["constant"] > 1.01 and parseval["bound"] == pytest.approx(
        parseval["objective"] / parseval["constant"]
    )
    assert exact["constant"] <= 1 and max(rows[1].drawings["curve"]["largest"]) <= 1 + 1e-5
    assert exact["bound"] <= 1 + 3 * exact["standard_error"]
