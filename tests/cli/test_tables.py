"""`tightlip train --data table.csv`: rows of features with scales of their own, from the file to the page."""

import contextlib
import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tightlip import TightlipError, certify, data, load
from tightlip.cli import main
from tightlip.data.sources import load_whole
from tightlip.experiments import certified_run, tuning
from tightlip.experiments.classification_options import Config
from tightlip.experiments.loading import loaded, suited
from tightlip.robustness import feature_radii

NAMES = ("mass", "dose", "angle")
SCALES = np.array([4e4, 2e-3, 1.0])
KINDS = ("ash", "birch", "cedar")
QUICK = {"hidden": (16,), "epochs": 15, "eps": 0.2, "attack_steps": 3, "attack_restarts": 1}
FLAGS = ["--hidden", "16", "--epochs", "15", "--eps", "0.2", "--attack-steps", "3", "--attack-restarts", "1"]


def write_table(path, x, labels, names=(*NAMES, "tree")):
    with open(path, "w", newline="") as file:
        rows = ([*map(repr, row), label] for row, label in zip(np.asarray(x, float).tolist(), labels, strict=True))
        csv.writer(file).writerows([names, *rows])


def write_new(path, x, names):
    """Rows without classes."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *(map(repr, row) for row in np.asarray(x, float).tolist())])


@dataclass(frozen=True)
class Run:
    """A folder with a run, ``runs/r``, and what the command said."""

    folder: Path
    said: str

    def read(self, file):
        return json.loads((self.folder / "runs" / "r" / file).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A table of three kinds of trees, clusters in units that differ by a factor of 2·10⁷, and a run on it."""
    folder, said = tmp_path_factory.mktemp("trees"), io.StringIO()
    y = np.arange(120) % 3
    x = 2.0 * np.eye(3)[y] + 0.45 * np.random.default_rng(0).standard_normal((120, 3))
    write_table(folder / "trees.csv", x * SCALES + 7 * SCALES, [KINDS[label] for label in y])
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(said):
        patched.chdir(folder)
        assert main(["train", "--data", "trees.csv", *FLAGS, "--name", "r"]) == 0
    return Run(folder, said.getvalue())


@pytest.fixture(autouse=True)
def workplace(run, monkeypatch):
    monkeypatch.chdir(run.folder)


def prove(name, **options):
    """What a run leaves, without its files."""
    return certified_run.prove(Config(name, **QUICK | options), progress=False)


def hand_scaled(name):
    """The rows of a table in an .npz, scaled by hand as its training part has it, and its options for these."""
    table = data.load(name)
    train = data.split(table, 0).train.images.double()
    x = (table.images.double() - train.mean(0)) / train.std(0, correction=0)
    np.savez("scaled.npz", x=x.numpy(), y=table.labels.numpy())
    return "scaled.npz", {"batch_size": 32}


def test_a_table_needs_no_preparation(run):
    """What is certified is that of rows scaled by hand, and the model takes raw ones."""
    assert "predicted           tree (the last column), 3 classes, from 3 features" in run.said
    assert "warning" not in run.said and run.read("metrics.json")["test"]["certified"]["0.2"] > 0.8
    name, options = hand_scaled("trees.csv")
    scaled, proof = prove(name, **options), run.read("certificate.json")
    assert proof["standardized"] and not scaled.proof.standardized
    assert np.allclose(proof["radius"], scaled.proof.radius, rtol=1e-3, atol=1e-3)
    parts = data.split(data.load("trees.csv"), 0)
    certificate = certify(load("runs/r/model.safetensors"), parts.test, standardized=True)
    assert certificate.radius.tolist() == pytest.approx(proof["radius"]) and certificate.bound.constant <= 1


def test_each_feature_has_a_radius_in_its_own_unit(run):
    parts = data.split(data.load("trees.csv"), 0)
    alone = np.median(feature_radii(load("runs/r/model.safetensors"), parts.test).numpy(), 0)
    std = parts.train.images.double().std(0, correction=0).tolist()
    proof = run.read("certificate.json")
    for feature, name, radius, width in zip(proof["features"], NAMES, alone, std, strict=True):
        assert (feature["name"], feature["std"]) == (name, pytest.approx(width))
        assert feature["radius"] == radius == pytest.approx(width * np.median(proof["radius"]), rel=1e-5)
        assert re.search(rf"^  {name} +[\d.]+$", run.said, re.MULTILINE)


def test_the_page_speaks_of_rows_and_features(run):
    page = (run.folder / "runs/r/report.html").read_text()
    body = re.sub(r"<style>.*?</style>|attack_images|<meta[^>]*>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(image|pixel|picture)s?\b", body, re.IGNORECASE)
    for words in ("test rows", "tree predicted from 3 features", ">mass<", ">dose<", "standard deviations", "cedar"):
        assert words in body
    assert body.count("<svg") == 4


def test_scales_that_no_norm_suits_are_warned_of_where_nothing_is_standardized():
    result = prove("trees.csv", standardize="no", epochs=1, attack_images=1)
    (warning,) = result.row.warnings
    assert "from mass (4" in warning and "to dose (0.00" in warning and warning.endswith("give --standardize yes")
    assert not result.proof.standardized and [feature.std for feature in result.proof.features] == [None] * 3


def test_arrays_of_rows_are_standardized_where_that_is_asked(run):
    table = data.load("trees.csv")
    np.savez("trees.npz", x=table.images.numpy(), y=table.labels.numpy())
    result = prove("trees.npz", standardize="yes", batch_size=32)
    assert np.allclose(result.proof.radius, run.read("certificate.json")["radius"])
    assert [feature.name for feature in result.proof.features] == ["feature 0", "feature 1", "feature 2"]
    np.savez("images.npz", x=np.zeros((9, 1, 4, 4), np.float32), y=np.arange(9) % 3)
    with pytest.raises(TightlipError, match=r"standardize=yes \(--standardize\) is for rows"):
        loaded(Config("images.npz", standardize="yes"))


def test_certify_takes_the_run_s_own_rows(run, capsys):
    assert main(["certify", "runs/r", "--eps", "0.2", "--output", "radii.json"]) == 0
    out, radii = capsys.readouterr().out, json.loads(Path("radii.json").read_text())
    assert "on 24 test examples of this run" in out and "standardized units" in out and "  dose " in out
    assert radii["radius"] == run.read("certificate.json")["radius"] and radii["standardized"]
    assert [feature["name"] for feature in radii["features"]] == [*NAMES]


def test_a_run_that_left_columns_out_takes_tables_with_them_and_without(capsys):
    rows = data.load("trees.csv")
    x, names = rows.images.double().numpy(), [KINDS[label] for label in rows.labels.tolist()]
    id = np.arange(len(x))[:, None] % 7
    write_table("numbered.csv", np.hstack([id, x]), names, ("id", *NAMES, "tree"))
    assert main(["train", "--data", "numbered.csv", "--drop", "id", *FLAGS, "--runs", "kept", "--name", "dropped"]) == 0
    assert main(["certify", "kept/dropped", "--eps", "0.2"]) == 0
    said = capsys.readouterr().out
    assert json.loads(Path("kept/dropped/metrics.json").read_text())["data"]["feature_names"] == [*NAMES]
    for table in ("numbered.csv", "trees.csv"):
        assert main(["certify", "kept/dropped", "--data", table, "--eps", "0.2"]) == 0
        said = capsys.readouterr().out
        assert f"all {len(x)} examples of {table}" in said
    write_new("new.csv", np.hstack([x, id]), (*NAMES, "id"))
    assert main(["certify", "kept/dropped", "--data", "new.csv", "--eps", "0.2"]) == 0
    assert f"{len(x)} rows, tree predicted" in capsys.readouterr().out
    write_new("new.csv", np.hstack([x, id]), (*NAMES, "other"))
    assert main(["certify", "kept/dropped", "--data", "new.csv", "--eps", "0.2"]) == 2
    assert "has 'other' more" in capsys.readouterr().err


def test_rows_without_classes_are_predicted_by_name(capsys):
    rows = data.split(data.load("trees.csv"), 0).test
    x = rows.images.double().numpy()
    certificate = certify(load("runs/r/model.safetensors"), rows.images, standardized=True)
    write_new("new.csv", x[:, [2, 0, 1]], ("angle", "mass", "dose"))
    assert main(["certify", "runs/r", "--data", "new.csv", "--eps", "0.2", "--output", "told.csv"]) == 0
    said = capsys.readouterr().out
    with open("told.csv", newline="") as file:
        told = list(csv.DictReader(file))
    assert [row["class"] for row in told] == [KINDS[label] for label in certificate.prediction.tolist()]
    assert [float(row["radius"]) for row in told] == certificate.radius.tolist()
    assert re.search(rf"^ +0  {told[0]['class']} +{told[0]['radius'][:4]}", said, re.MULTILINE)
    assert "24 rows, tree predicted" in said and "and 4 more, which --output FILE.csv writes" in said
    assert f"stays the same within 0.2: {100 * certificate.accuracy(0.2):.2f}"[:-1] in said


@pytest.mark.parametrize(
    ("names", "more", "sentence"),
    [
        (
            ("angle", "mass", "weight"),
            [],
            "has no column 'tree', so its rows are to be predicted, and it misses 'dose'",
        ),
        (("angle", "mass", "dose", "id"), [], "it has 'id' more: give the columns that runs/r was trained on, mass,"),
        (NAMES, ["--output", "radii.json"], "so give it a name that ends in .csv"),
        (NAMES, ["--inputs", "inputs.npz"], "takes rows with labels of classes: leave it out"),
        (NAMES, ["--label", "tree"], "has no column 'tree'"),
    ],
)
def test_rows_to_be_predicted_have_the_columns_of_the_training(names, more, sentence, capsys):
    write_new("new.csv", np.ones((3, len(names))), names)
    assert main(["certify", "runs/r", "--data", "new.csv", *more]) == 2
    assert sentence in capsys.readouterr().err


def test_other_rows_are_taken_by_the_names_of_their_columns(capsys):
    rows, order = data.split(data.load("trees.csv"), 0).test, [2, 0, 1]
    given = rows.images.double().numpy()[:, order], [KINDS[label] for label in rows.labels.tolist()]
    write_table("others.csv", *given, ("angle", "mass", "dose", "tree"))
    assert main(["certify", "runs/r", "--data", "others.csv", "--eps", "0.2"]) == 0
    certificate = certify(load("runs/r/model.safetensors"), rows, standardized=True)
    assert f"certified at 0.2: {100 * certificate.accuracy(0.2):.2f}"[:-1] in capsys.readouterr().out
    for names, sentence in (
        (("angle", "mass", "weight", "tree"), "has no column 'dose', and runs/r was trained on mass, dose, angle"),
        (("angle", "mass", "dose", "kind"), "has no column 'tree'"),
    ):
        write_table("others.csv", *given, names)
        assert main(["certify", "runs/r", "--data", "others.csv"]) == 2
        assert sentence in capsys.readouterr().err


def test_a_row_of_another_class_is_refused_by_its_name(capsys):
    write_table("odd.csv", [[1, 2, 3]], ["elm"])
    assert main(["certify", "runs/r", "--data", "odd.csv"]) == 2
    assert "odd.csv has a class elm, and the run's classes are 0 = ash, 1 = birch, 2 = cedar" in capsys.readouterr().err


def test_tables_have_options_of_their_own_where_none_are_given():
    table = load_whole("trees.csv")
    config = suited(Config("trees.csv"), table, 86)
    assert (config.sizes.hidden, config.batch, config.passes, config.standardize) == ((64, 64), 32, 100, "yes")
    config = suited(Config("trees.csv", hidden=(9,), epochs=3, standardize="no"), table, 86)
    assert (config.sizes.hidden, config.batch, config.passes, config.standardize) == ((9,), 32, 3, "no")
    config = suited(Config("mnist5k"), data.load("mnist5k"), 3600)
    assert (config.sizes.hidden, config.batch, config.passes, config.standardize) == ((512,) * 3, 128, 50, None)


def test_a_label_that_is_not_there_leaves_no_folder(capsys):
    assert main(["train", "--data", "trees.csv", "--label", "bark"]) == 2
    assert "no column 'bark'" in capsys.readouterr().err and [*Path("runs").iterdir()] == [Path("runs/r")]


def test_margins_are_tuned_on_standardized_rows():
    outcome = tuning.run(tuning.Config("trees.csv", hidden=(16,), epochs=10, eps=(0.2,)), 0)
    assert outcome.metrics["accuracy"] > 0.8 and outcome.metrics["constant"] <= 1


@pytest.mark.parametrize(("name", "epochs"), [("wine", 30), ("breast_cancer", 8)])
def test_a_published_table_is_as_good_as_scaled_by_hand(name, epochs):
    """Within a point in accuracy and certified accuracy."""
    sets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    found = getattr(sets, f"load_{name}")()
    write_table(f"{name}.csv", found.data, found.target_names[found.target], [*found.feature_names, "target"])
    quick = {"epochs": epochs, "attack_images": 1}
    scaled, options = hand_scaled(f"{name}.csv")
    raw, by_hand = prove(f"{name}.csv", **quick), prove(scaled, **options, **quick)
    assert abs(raw.row.test.accuracy - by_hand.row.test.accuracy) <= 0.01 and raw.row.test.accuracy > 0.9
    assert abs(raw.row.test.certified["0.2"] - by_hand.row.test.certified["0.2"]) <= 0.01
    assert len(raw.proof.features) == len(found.feature_names) and raw.row.warnings == ()
