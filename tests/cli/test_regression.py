"""`tightlip train --task regression`: a number from a row, and how fast the prediction can change, proven."""

import contextlib
import csv
import io
import json
import logging
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tightlip import TightlipError, lipschitz, load
from tightlip.cli import main
from tightlip.data.measured import load_measured, split_measured
from tightlip.decimals import round_nearest, round_up
from tightlip.experiments import regression_run, truth_band
from tightlip.experiments.regression_options import Config
from tightlip.records import RegressionRow, SlopesFile
from tightlip.training.checkpoint import State

FLAGS = ["--hidden", "16", "--epochs", "15", "--batch-size", "8"]
QUICK = {"hidden": (16,), "epochs": 15, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table: the price of land rises by 500 per meter of depth, falls with the distance from 3 km by 40 per m."""
    folder = tmp_path_factory.mktemp("land")
    depth, away = np.random.default_rng(0).uniform((10, 2800), (30, 3200), (80, 2)).T
    with open(folder / "land.csv", "w", newline="") as file:
        rows = zip(depth.tolist(), away.tolist(), (500 * depth - 40 * np.abs(away - 3000) + 1e5).tolist(), strict=True)
        csv.writer(file).writerows([["depth", "away", "price"], *rows])
    return folder


def write(path, names, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *np.asarray(rows).tolist()])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def workplace(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def said(folder):
    """What the command says of the run ``runs/r``."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(said):
        patched.chdir(folder)
        assert main(["train", "--task", "regression", "--data", "land.csv", *FLAGS, "--name", "r"]) == 0
    return said.getvalue()


@pytest.fixture
def row(said):
    return RegressionRow.read(Path("runs/r/metrics.json"))


@pytest.fixture
def proof(said):
    return SlopesFile.read(Path("runs/r/certificate.json"))


def prove(folder=None, resume=False, **options):
    config = Config("land.csv", **QUICK | options)
    table = load_measured("land.csv")
    parts = split_measured(table.rows, config.seed)
    return regression_run.prove(config, table, parts, folder, resume=resume, progress=False)


def test_the_command_says_what_was_predicted_how_well_and_under_which_constant(said, row):
    assert "predicted           price (the last column), from 2 features" in said
    assert f"(of {', '.join(round_nearest(one.k) for one in row.tried)}, by 13 validation rows)" in said
    assert re.search(r"^  depth +\d+", said, re.MULTILINE) and "runs/r/report.html" in said
    assert row.test.rmse < 0.5 * row.test.rmse_of_mean and row.test.mae <= row.test.rmse
    assert {*(path.name for path in Path("runs/r").iterdir())} == {
        *("model.safetensors", "certificate.json", "metrics.json", "report.html", "config.json")
    }


def test_the_model_takes_raw_rows_and_predicts_in_the_unit_of_the_target(row, proof):
    network, test = load("runs/r/model.safetensors"), split_measured(load_measured("land.csv").rows, 0).test
    prediction = network(test.inputs).squeeze(1)
    assert np.allclose(prediction, proof.prediction, rtol=1e-6) and np.array_equal(test.targets, proof.target)
    assert row.test.rmse == pytest.approx(float((prediction - test.targets).square().mean().sqrt()), rel=1e-4)
    mean = float(split_measured(load_measured("land.csv").rows, 0).train.targets.mean())
    assert row.test.rmse_of_mean == pytest.approx(float((test.targets - mean).square().mean().sqrt()))


def test_of_several_constants_the_smallest_is_kept_that_is_not_told_from_the_best(row, proof):
    better = [one.validation_rmse for one in row.tried if one.k <= row.k]
    assert better[-1] == min(better) < 1.2 * min(one.validation_rmse for one in row.tried)
    assert proof.bound.constant <= row.k < proof.bound.constant * (1 + 1e-5)
    assert [round(one.k / row.tried[1].k, 6) for one in row.tried] == [0.5, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("squares", "kept"),
    [
        ([[4.0, 4.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0]], 2.0),  # worse, for certain
        ([[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]], 1.0),  # worse in one row of four
        ([[9.0, 1.0, 9.0, 2.0], [9.0, 0.5, 8.9, 1.0]], 2.0),  # the rows differ more than the networks do
        ([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], 1.0),
        ([[1.0, 1.0, 1.0, 1.0], [4.0, 4.0, 4.0, 4.0]], 1.0),
    ],
)
def test_constants_are_told_apart_row_by_row(squares, kept):
    candidates = [
        regression_run.Candidate(slope, torch.nn.Identity(), [], torch.tensor(values))
        for slope, values in zip((1.0, 2.0), squares, strict=True)
    ]
    for order in (candidates, candidates[::-1]):
        assert regression_run.chosen(order).slope == kept


def test_slopes_are_above_what_is_searched_for_and_never_above_k_over_std(row, proof):
    network = load("runs/r/model.safetensors").double()
    x = torch.rand(2000, 2, dtype=torch.float64) * torch.tensor([40.0, 800.0]) + torch.tensor([0.0, 2600.0])
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    for place, slope in enumerate(proof.features):
        steepest = float(gradient[:, place].abs().max())
        assert 0.2 * slope.slope < steepest <= slope.slope <= row.k / slope.std * (1 + 1e-6)
    assert proof.features[0].slope > 300 and [slope.name for slope in proof.features] == ["depth", "away"]


def test_the_page_speaks_of_predictions_and_not_of_classes(said):
    body = re.sub(r"<style>.*?</style>|<meta[^>]*>", "", Path("runs/r/report.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"\b(accuracy|certified|attack\w*|image\w*|pixel\w*|class(es)? of)\b", body)
    for words in ("Predicted against true", "Which constant", "Slope at most", "price, a number", "R² is"):
        assert words in body
    assert body.count("<svg") == 3


@pytest.mark.drawn
def test_a_report_is_of_one_kind(said, capsys):
    page = Path("runs/r/report.html").read_text()
    assert main(["report", "runs/r", "--output", "again.html"]) == 0
    assert Path("again.html").read_text() == page
    Path("runs/other").mkdir(exist_ok=True)
    Path("runs/other/metrics.json").write_text('{"format": 2}')
    Path("runs/other/certificate.json").write_text("{}")
    assert main(["report", "runs/r", "runs/other"]) == 2
    assert "have pages of their own" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["runs/r", "runs/r/model.safetensors"])
def test_audit_proves_the_slope_of_a_regression(said, model, capsys):
    assert main(["audit", model, "--json"]) == 0
    audit = json.loads(capsys.readouterr().out)["audit"]
    assert audit["constant"] == lipschitz(load("runs/r/model.safetensors"), 2).constant


def test_certify_predicts_the_run_s_own_test_part_and_says_how_far_off_it_is(said, row, proof, capsys):
    assert main(["certify", "runs/r", "--eps", "0.1", "0", "--output", "told.csv"]) == 0
    out = capsys.readouterr().out
    assert "16 test rows of this run (land.csv, seed 0), price predicted; audited constant" in out
    assert f"error {round_nearest(row.test.rmse)} (root mean square), {round_nearest(row.test.mae)} (mean" in out
    assert f"within 0.1 of a row the prediction changes by at most {round_up(proof.bound.constant / 10, 4)}" in out
    assert "within 0 of a row the prediction changes by at most 0\n" in out and "one is the std of a feature;" in out
    told = read("told.csv")
    assert [float(one["prediction"]) for one in told] == proof.prediction.tolist()
    assert [float(one["true"]) for one in told] == proof.target.tolist()


def test_new_rows_are_predicted_by_the_names_of_their_columns(said, capsys):
    rows = np.random.default_rng(1).uniform((10, 2800), (30, 3200), (23, 2))
    write("new.csv", ("away", "depth"), rows[:, ::-1])
    assert main(["certify", "runs/r", "--data", "new.csv", "--norm", "inf", "--output", "told.csv"]) == 0
    out, network = capsys.readouterr().out, load("runs/r/model.safetensors")
    expected = network(torch.from_numpy(rows).float()).squeeze(1)
    told = read("told.csv")
    assert np.allclose([float(one["prediction"]) for one in told], expected, rtol=1e-6) and "true" not in told[0]
    assert "new.csv: 23 rows, price predicted" in out and "and 3 more, which --output FILE.csv writes" in out
    assert f"audited constant {round_up(lipschitz(network[1:], np.inf).constant, 9)} per standardized unit, inf" in out
    assert "error" not in out and re.search(rf"^ +0  {round_nearest(float(expected[0]), 6)}$", out, re.MULTILINE)


def test_rows_with_their_numbers_are_compared_and_those_of_the_training_are_told(said, capsys):
    lines = Path("land.csv").read_text().splitlines()
    Path("some.csv").write_text("\n".join(lines[:6]) + "\n")
    assert main(["certify", "runs/r", "--data", "some.csv"]) == 0
    out = capsys.readouterr().out
    seen = [int(count) for count in re.search(r"note: (\d) of these are training rows of runs/r, (\d)", out).groups()]
    test = split_measured(load_measured("land.csv").rows, 0).test
    own = load_measured("land.csv").rows.inputs[:5]
    assert sum(seen) == 5 - sum(bool((row == test.inputs).all(1).any()) for row in own) and "error " in out
    write("fresh.csv", ("depth", "price", "away"), [[20.0, 1e5, 3100.0]])
    assert main(["certify", "runs/r", "--data", "fresh.csv"]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "more", "sentence"),
    [
        (("depth", "far"), [], "has no column 'price', so its rows are to be predicted, and it misses 'away'"),
        (
            ("depth", "far", "price"),
            [],
            "t.csv misses 'away': give the columns that runs/r was trained on, depth, away",
        ),
        (("depth", "away", "id"), [], "it has 'id' more"),
        (("depth", "away", "price"), ["--label", "away"], "--label away is a feature of runs/r"),
        (("depth", "away"), ["--seed", "0"], "--seed is of the split of the run's own data, and --data gives others"),
        (("depth", "away"), ["--label", "price"], "has no column 'price'"),
        (("depth", "away"), ["--head", "0"], "--head is for classes, and this is a regression"),
        (("depth", "away"), ["--arithmetic", "float32"], "--arithmetic is for classes"),
        (("depth", "away"), ["--inputs", "x.npz"], "takes rows with labels of classes"),
        (("depth", "away"), ["--output", "told.json"], "so give it a name that ends in .csv"),
        (None, [], "is a regression and takes the rows of a table, and t.csv does not exist"),
        (None, ["--data", "runs/r/config.json"], "and runs/r/config.json is no table"),
    ],
)
def test_what_a_regression_cannot_predict_is_told(said, table, more, sentence, capsys):
    if table is not None:
        write("t.csv", table, np.ones((3, len(table))))
    assert main(["certify", "runs/r", "--data", "t.csv", *more]) == 2
    assert sentence in capsys.readouterr().err
    Path("t.csv").unlink(missing_ok=True)


def test_a_cell_that_is_no_number_is_told_by_its_row(said, capsys):
    Path("odd.csv").write_text("depth,away,price\n20,3000,cheap\n")
    assert main(["certify", "runs/r", "--data", "odd.csv"]) == 2
    told = "odd.csv holds 'cheap' in row 0 of the column price, which is to be predicted as a number: mend the cell, or"
    assert told in capsys.readouterr().err
    assert main(["certify", "runs/r", "--seed", "1"]) == 2
    assert "would take training rows of runs/r for test rows" in capsys.readouterr().err


def test_an_empty_column_of_the_target_is_to_be_predicted_and_another_name_can_be_given(said, capsys):
    Path("blank.csv").write_text("price,depth,away\n,20,3000\n NA ,25,2900\n")
    assert main(["certify", "runs/r", "--data", "blank.csv"]) == 0
    assert "blank.csv: 2 rows, price predicted" in (out := capsys.readouterr().out) and "error" not in out
    Path("both.csv").write_text("price,depth,away,sold\n,20,3000,1e200\n1,25,2900,-1e200\n")
    assert main(["certify", "runs/r", "--data", "both.csv", "--label", "sold"]) == 0
    wanted = "error 1e+200 (root mean square), 1e+200 (mean absolute), against the column sold"
    assert wanted in capsys.readouterr().out


def test_rows_may_be_near_one_another_and_not_beyond_what_the_network_tells(said, capsys):
    """A row and its neighbor are how a bound is looked at; float32 has to hold what a standardized network sees."""
    write("near.csv", ("depth", "away"), [[20.0, 3000.0], [20.0, 3000.0002]])
    assert main(["certify", "runs/r", "--data", "near.csv"]) == 0
    assert "changes are those of exact arithmetic, for rows as float32 holds them" in capsys.readouterr().out
    write("far.csv", ("depth", "away"), [[20.0, 3e9]])
    assert main(["certify", "runs/r", "--data", "far.csv"]) == 2
    assert "numbers in the column away so large that float32 loses what matters" in capsys.readouterr().err


def test_the_table_of_the_training_is_not_written_over(said, capsys):
    before = Path("land.csv").read_text()
    write("new.csv", ("depth", "away"), [[20.0, 3000.0]])
    for more in ([], ["--data", "new.csv"]):
        assert main(["certify", "runs/r", *more, "--output", "land.csv"]) == 2
        assert "land.csv is read or written by this command already" in capsys.readouterr().err
    assert Path("land.csv").read_text() == before


def test_a_run_with_a_constant_of_ones_own_has_a_page(capsys):
    assert main(["train", "--task", "regression", "--data", "land.csv", *FLAGS, "--k", "9000", "--name", "own"]) == 0
    assert "(--k 9000)" in capsys.readouterr().out
    page = Path("runs/own/report.html").read_text()
    assert "Predictions" in page and "Which constant" not in page


def test_data_that_changed_since_the_training_are_refused(said, capsys):
    text = Path("land.csv").read_text()
    try:
        Path("land.csv").write_text(text + "20.0,3000.0,1.0\n")
        assert main(["certify", "runs/r"]) == 2
        assert "land.csv has changed since runs/r was trained on it" in capsys.readouterr().err
        assert main(["certify", "runs/r", "--data", "some.csv"]) == 0
        assert "was trained on some of these is not known" in capsys.readouterr().out
    finally:
        Path("land.csv").write_text(text)


@pytest.mark.parametrize(("norm", "loss"), [("2", "absolute"), ("inf", "squared")])
def test_a_constant_of_ones_own_is_in_the_unit_of_the_target(norm, loss):
    """Far too small a one is attained: nothing else follows the data so well."""
    result = prove(k=500.0, norm=norm, loss=loss)
    row, bound = result.row, result.proof.bound
    assert row.k == pytest.approx(500) and bound.constant <= 500 and [one.k for one in row.tried] == [row.k]
    assert bound.constant == lipschitz(result.network[1:], float(norm)).constant and bound.input_norm == norm
    assert np.ptp(result.proof.prediction) > 500


def test_with_a_declared_noise_the_truth_is_in_the_band_and_predictions_are_off_by_no_more(capsys):
    """The table's numbers are the truth; its slope along (1, 1), in standardized units, is that of the claim."""
    assert (
        main(["train", "--task", "regression", "--data", "land.csv", *FLAGS, "--k=9000", "--noise=10", "--name=band"])
        == 0
    )
    told, proof = capsys.readouterr().out, SlopesFile.read(Path("runs/band/certificate.json"))
    band, off = proof.band, proof.band.off(proof.prediction)
    assert (band.lower <= proof.target).all() and (proof.target <= band.upper).all() and band.noise == 10
    assert (np.abs(proof.prediction - proof.target) <= off).all() and band.outside(proof.target) == 0
    half, most = round_up(float(np.median(off)), 4), round_up(float(off.max()), 4)
    assert f"predictions off by  at most {half} in half of the test rows, {most} in all" in told and "but " not in told
    page = Path("runs/band/report.html").read_text()
    assert "Where the truth can be" in page and "None of the 16 test rows refutes" in page and half in page


def test_claims_that_the_training_rows_refute_leave_a_run_without_a_band(capsys):
    assert (
        main(["train", "--task", "regression", "--data", "land.csv", *FLAGS, "--k=90", "--noise=1", "--name=no"]) == 0
    )
    told, proof = capsys.readouterr().out, SlopesFile.read(Path("runs/no/certificate.json"))
    assert re.search(r"no band +no function of slope K=90 is within noise=1 .*: declare noise ≥ \d+", told)
    assert not len(proof.band.lower) and proof.band.refuted in Path("runs/no/report.html").read_text()


def test_test_rows_can_refute_the_claims_too():
    proof = prove(k=9000.0, noise=0.0).proof
    below, above = proof.band.lower - 1, proof.band.upper + 1
    assert proof.band.outside(proof.target) == 0
    assert proof.band.outside(np.where(np.arange(16) < 3, below, proof.target)) == 3
    assert proof.band.outside(np.where(np.arange(16) < 4, above, proof.target)) == 4


def test_a_noise_below_zero_and_too_many_rows_are_refused_before_training(monkeypatch):
    with pytest.raises(TightlipError, match=r"noise=-1.0 .--noise. is impossible"):
        prove(noise=-1.0)
    monkeypatch.setattr(truth_band, "MOST_ROWS", 20)
    with pytest.raises(
        TightlipError, match=r"noise .--noise. compares all pairs of training rows, and takes 20 of them"
    ):
        prove(noise=1.0)


def test_constants_are_chosen_in_short_trainings_and_each_is_told_in_a_line(monkeypatch, caplog):
    monkeypatch.setattr(regression_run, "LEAST", 2)
    caplog.set_level(logging.INFO, "tightlip")
    row = prove(epochs=8).row
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert told[0].endswith("to choose K among 5 by validation, 2 epochs each, then 8 epochs")
    lines = [line for line in told if line.startswith("K = ")]
    assert [line.partition(": ")[0].split(" (")[1] for line in lines] == [f"{n} of 5)" for n in range(1, 6)]
    assert sum(line.startswith("epoch ") for line in told) == 6  # the last of each training
    assert not any("validation score" in line for line in told)
    assert len(row.history) == 8 and row.k in [one.k for one in row.tried]
    alone = prove(epochs=8, k=row.k).row
    assert alone.test.rmse == pytest.approx(row.test.rmse, rel=1e-3)


def test_a_run_that_stopped_goes_on_with_the_constant_that_it_was_at(tmp_path, monkeypatch):
    whole, record, calls = prove(epochs=5), State.record, []

    def stopping(state, *rows):
        record(state, *rows)
        calls.append(1)
        if len(calls) == 13:  # in the third network
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(State, "record", stopping)
        with pytest.raises(KeyboardInterrupt):
            prove(tmp_path, epochs=5)
    assert {path.name for path in tmp_path.glob("*.pt")} == {"checkpoint.pt", "checkpoint-2.pt", "checkpoint-3.pt"}
    again = prove(tmp_path, resume=True, epochs=5)
    assert (again.row.tried, again.row.k) == (whole.row.tried, whole.row.k)
    assert np.array_equal(again.proof.prediction, whole.proof.prediction)


OTHER = {
    "label": "away",
    "drop": ("away",),
    "norm": "inf",
    "k": 9e3,
    "loss": "absolute",
    "hidden": (8,),
    "activation": "relu",
    "epochs": 1,
}
OTHER |= {"batch_size": 16, "learning_rate": 0.1, "average": 0.5, "seed": 1}


def test_every_option_changes_what_is_predicted():
    """And each is tried; the data are another table, and noise is of the band alone."""
    assert {"data", "noise", *OTHER} == {field.name for field in fields(Config)}
    config = Config("land.csv", k=3e3, hidden=(16,), epochs=2, batch_size=8)

    def predicted(options):
        table = load_measured(options.data, options.label, options.drop)
        parts = split_measured(table.rows, options.seed)
        return tuple(regression_run.prove(options, table, parts, None, progress=False).proof.prediction)

    found = [predicted(replace(config, **changed)) for changed in ({}, *({name: OTHER[name]} for name in OTHER))]
    assert len(set(found)) == len(found)


def test_other_targets_are_other_columns():
    table = load_measured("land.csv", "depth")
    assert (table.feature_names, table.label) == (("away", "price"), "depth") and len(table.rows) == 80
    parts = split_measured(table.rows, 3)
    assert [len(part.targets) for part in (parts.train, parts.validation, parts.test)] == [51, 13, 16]
    every = torch.cat([part.targets for part in (parts.train, parts.validation, parts.test)])
    assert torch.equal(every.sort().values, table.rows.targets.sort().values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "t.csv does not exist"),
        ("a,y\n" + "1,red\n" * 12, "holds 'red' in row 0 of the column y, which is to be predicted as a number"),
        ("a,y\n" + "1,2\n2,inf\n" * 6, "holds 'inf' in row 1 of the column y"),
        ("a,y\n" + "1,2\n2,\n" * 6, "misses row 1 of the column y"),
        ("a,y\n" + "1,2\n2,2\n" * 6, "the column y of t.csv is 2 in every row: there is nothing to learn"),
        ("a,y\n" + "1,2\n2,3\n" * 2, "has 4 rows: a regression takes 10 at least"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(text, sentence, capsys):
    if text is not None:
        Path("t.csv").write_text(text)
    assert main(["train", "--task", "regression", "--data", "t.csv", "--name", "t"]) == 2
    assert sentence in capsys.readouterr().err and not Path("runs/t").exists()
    Path("t.csv").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "regresion"], r"--task regresion is not possible \(did you mean regression\?\)"),
        (["--task", "regression"], "a regression learns from a table: give its path by --data"),
        (["--task=regression", "--data", "land.npz"], "land.npz does not exist|land.npz is not a table"),
        (["--task", "regression", "--method", "pgd"], "has no option --method"),
        (
            ["--task", "regression", "--data", "land.csv", "--k", "0"],
            r"k=0.0 \(--k\) is impossible: it must be positive",
        ),
        (["--task", "regression", "--data", "land.csv", "--hidden", "7"], r"hidden=7 \(--hidden\) does not suit"),
        (["--data", "land.csv"], "holds numbers that are not whole.*--task regression"),
    ],
)
def test_impossible_options_are_refused(options, sentence, capsys):
    assert main(["train", *options]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_help_is_that_of_the_task(capsys):
    for arguments, has, lacks in (
        (["--task", "regression"], "--learning-rate", "--method"),
        ([], "--method", "squared"),
    ):
        with pytest.raises(SystemExit):
            main(["train", *arguments, "--help"])
        out = capsys.readouterr().out
        assert has in out and "--task" in out and lacks not in out


def test_a_regression_is_no_classification_to_go_on_with(said, capsys):
    assert main(["train", "--data", "land.csv", "--name", "r", "--resume"]) == 2
    assert "of another kind of training" in capsys.readouterr().err
    assert main(["train", "--task", "regression", "--data", "land.csv", *FLAGS, "--name", "r", "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out


def test_options_are_checked_before_anything_is_read():
    with pytest.raises(TightlipError, match="epochs=0"):
        regression_run.run(replace(Config("absent.csv"), epochs=0), Path())
