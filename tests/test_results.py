"""Every committed row has its birth certificate and agrees with itself; README's table is made from the rows."""

import itertools
import json
import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from tightlip.experiments import EXPERIMENTS
from tightlip.experiments.cells import cells
from tightlip.experiments.words import definition_of
from tightlip.records import BenchRow, CellRow, CertificateFile, Definition, RunRow
from tightlip.records.metric import FILE

ROOT = Path(__file__).parents[1]
ROWS = sorted((ROOT / "results").glob("*/metrics.json"))
CELLS = sorted((ROOT / "results").glob("*/*seed*.json"))


def test_there_are_rows():
    assert len(ROWS) >= 5


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.parent.name)
def test_a_row_is_born_from_a_clean_commit_and_agrees_with_its_certificate(path):
    row = json.loads(path.read_text())
    certificate = json.loads((path.parent / "certificate.json").read_text())
    assert re.fullmatch("[0-9a-f]{40}", row["commit"])
    assert row["dirty"] is False
    assert re.fullmatch("[0-9a-f]{64}", row["data"]["sha256"])
    assert row["seed"] == row["config"]["seed"]
    assert {"python", "torch", "numpy", "tightlip"} <= set(row["versions"])
    assert row["device"]
    assert row["threads"] >= 1
    assert row["seconds"]["train"] > 0
    radius, n = certificate["radius"], row["data"]["split"]["test"]
    assert len(radius) == n
    ((eps, certified),) = row["test"]["certified"].items()
    assert certified == pytest.approx(sum(r > float(eps) for r in radius) / n, abs=1e-12)
    assert row["test"]["accuracy"] == pytest.approx(sum(r > 0 for r in radius) / n, abs=1e-12)
    assert certificate["bound"]["constant"] <= row["config"]["k"]


def test_the_table_in_the_readme_is_made_from_the_rows():
    script = runpy.run_path(str(ROOT / "scripts" / "results_table.py"))
    readme = (ROOT / "README.md").read_text()
    shown = readme.split(script["BEGIN"])[1].split(script["END"])[0]
    assert shown == script["table"]()


MANUAL = runpy.run_path(str(ROOT / "scripts" / "manual_tables.py"))


def test_pages_of_the_manual_have_tables():
    assert len(MANUAL["PAGES"]) >= 7


@pytest.mark.parametrize("page", MANUAL["PAGES"], ids=lambda page: page.name)
def test_the_tables_in_the_manual_are_made_from_the_rows(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == len(MANUAL["MARKED"].findall(text)), "a table is not closed"
    assert MANUAL["filled"](text) == text, "the rows have changed: python scripts/manual_tables.py --write"


def test_the_table_of_convolution_steps_is_that_of_the_row():
    rows = json.loads((ROOT / "results" / "convolution-step.json").read_text())["results"]["rows"]
    names = {
        "`Orthonormal`, zeros": "tightlip",
        "plain, circular": "plain, circular",
        "`Orthonormal`, circular": "tightlip, circular",
        "`Shift` and `Orthonormal` 1×1": "shift and 1×1",
        "orthogonium AOC, circular": "orthogonium AOC",
        "deel-torchlip SpectralConv2d, circular": "deel-torchlip SpectralConv2d",
    }
    text = (ROOT / "docs" / "theory" / "constraints.md").read_text()
    for words, name in names.items():
        found = next(line for line in text.splitlines() if line.startswith(f"| {words} |"))
        narrow, wide, norm = (cell.strip() for cell in found.strip("|").split("|")[1:])
        assert [narrow, wide] == [f"{rows[part][name]['ratio']:.2f}" for part in ("c=64", "c=128")]
        largest = max(rows[part][name]["sigma"] for part in rows)
        assert norm == "" or largest <= float(norm) <= largest + 0.01


@pytest.mark.parametrize("folder", sorted({path.parent for path in CELLS}), ids=lambda folder: folder.name)
def test_the_rows_of_an_experiment_are_of_its_grid_complete_and_born_from_clean_commits(folder):
    rows = [json.loads(path.read_text()) for path in CELLS if path.parent == folder]
    assert {row["experiment"] for row in rows} == {folder.name} <= set(EXPERIMENTS)
    experiment = EXPERIMENTS[folder.name]
    there = {(json.dumps(row["config"]), row["seed"]) for row in rows}
    every = {(json.dumps(cell.config), cell.seed) for cell in cells(experiment, experiment.PAPER)}
    begun = {seed for _, seed in there}  # the first seeds may be there before the last ones, each with all its cells
    assert there == {(config, seed) for config, seed in every if seed in begun} and begun == set(range(len(begun)))
    for row in rows:
        assert re.fullmatch("[0-9a-f]{40}", row["commit"])
        assert row["dirty"] is False
        assert row["machine"] and row["threads"] >= 1 and row["seconds"]["total"] > 0 and row["metrics"]


def test_every_cell_of_table_1_is_at_or_above_the_paper():
    """Means of three seeds, in the paper's two digits; the paper's values are written down here once more."""
    paper = "51 60 50 53 46 49  66 71 60 66 52 56  87 95 83 93 72 88  100 100 100 100 100 100"
    found = {}
    for path in (ROOT / "results" / "high_dim_cones").glob("*seed*.json"):
        row = json.loads(path.read_text())
        key = tuple(row["config"][name] for name in ("activation", "dimension", "depth"))
        found.setdefault(key, []).append(row["metrics"]["objective"])
        assert row["metrics"]["constant"] <= 1
    activations = "relu", "maxout", "maxmin", "fullsort"
    cells = itertools.product(activations, (128, 256, 512), (3, 7))
    for cell, published in zip(cells, paper.split(), strict=True):
        assert len(found[cell]) == 3
        assert round(100 * sum(found[cell]) / 3) >= int(published), cell


@pytest.mark.parametrize("folder", sorted({path.parent for path in CELLS}), ids=lambda folder: folder.name)
def test_the_words_of_an_experiment_stand_once_beside_its_rows_and_are_those_of_the_code(folder):
    assert Definition.read(folder / FILE) == definition_of(EXPERIMENTS[folder.name])
    own = [json.loads(path.read_text()) for path in CELLS if path.parent == folder]
    assert own and not any({"summary", "about", "explanations", "truth"} & set(row) for row in own)


def test_every_committed_file_is_of_this_format_and_written_as_it_would_be_now(tmp_path):
    kinds = {"metrics.json": RunRow, "certificate.json": CertificateFile, FILE: Definition}
    for path in [*ROWS, *sorted((ROOT / "results").glob("*/certificate.json")), *CELLS[::40]]:
        kinds.get(path.name, CellRow).read(path).write(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_row_of_a_benchmark_is_born_from_a_clean_commit(path):
    row = BenchRow.read(path)
    assert row.benchmark == path.stem and row.results
    assert re.fullmatch("[0-9a-f]{40}", row.commit)
    assert row.dirty is False
    assert row.machine and row.versions["torch"] and row.threads >= 1


def test_the_picture_in_the_readme_is_of_the_run_in_its_table():
    script = runpy.run_path(str(ROOT / "scripts" / "report_picture.py"))
    readme = (ROOT / "README.md").read_text()
    assert f"]({script['PICTURE'].relative_to(ROOT)})" in readme and f"]({script['RUN'].relative_to(ROOT)})" in readme
    with Image.open(script["PICTURE"]) as picture:
        stamp = picture.text.get(script["STAMP"])
    assert stamp == script["stamp"](), "the run has changed: python scripts/report_picture.py draws it again"


def test_our_attack_finds_what_those_of_libraries_find_where_about_half_resist():
    row = json.loads((ROOT / "results" / "attacks-agreement.json").read_text())
    assert re.fullmatch("[0-9a-f]{40}", row["commit"]) and row["dirty"] is False
    found, libraries = row["results"]["rows"], row["results"]["libraries"]
    assert {each["p"] for each in found} == {"2", "inf"} and len(found) == 6 and len(libraries) == 2
    for each in found:
        assert all(0.2 <= each[name] <= 0.8 for name in ("tightlip", "tightlip, margin", *libraries))
        assert all(each["tightlip"] == pytest.approx(each[name], abs=0.01 + 1e-9) for name in libraries)
    text = (ROOT / "docs" / "theory" / "certificates.md").read_text()
    assert "cross-entropy is the weaker loss on networks held by `RowL1Ball`" in text
    assert all(each["tightlip, margin"] < each["tightlip"] for each in found if "RowL1Ball" in each["network"])


def test_each_question_of_the_log_stands_there_once_with_its_row():
    entries = re.split(r"^### ", (ROOT / "LOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    questions = [entry.partition("\n")[0] for entry in entries]
    assert len(set(questions)) == len(questions)
    assert [question for question, entry in zip(questions, entries, strict=True) if "* **Row.**" not in entry] == []
