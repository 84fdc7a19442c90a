"""`tightlip train` from the first option to the page."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from processes import Started

from tightlip.cli import main
from tightlip.cli.train import Train
from tightlip.decimals import bracketed, floored
from tightlip.robustness import wilson

QUICK = [
    "--hidden",
    "16",
    "--batch-size",
    "32",
    "--attack-images",
    "5",
    "--attack-steps",
    "3",
    "--attack-restarts",
    "1",
]
FILES = {"model.safetensors", "certificate.json", "metrics.json", "report.html", "config.json"}


@pytest.fixture(autouse=True)
def stripes(tmp_path, monkeypatch):
    """A working folder with one tiny data set: three classes of 6×6 images."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = generator.integers(0, 60, (90, 1, 6, 6), dtype=np.uint8)
    for label in range(3):
        x[y == label, :, 2 * label] += 180
    np.savez("stripes.npz", x=x, y=y)


def train(*options):
    return main(["train", "--data", "stripes.npz", *QUICK, *options])


def metrics(name="r"):
    return json.loads(Path(f"runs/{name}/metrics.json").read_text())


def test_help_reads_well(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for word in ("--data", "--norm", "{2,inf}", "--seed", "--threads", "--device", "--resume", "mnist5k", "--download"):
        assert word in out
    assert "--config" not in out and "--machine" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_the_commands_are_listed(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out = capsys.readouterr().out
    assert caught.value.code == 0 and all(command in out for command in ("train", "certify", "report"))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "tightlip"


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_a_run_leaves_its_files_and_says_where_the_page_is(capsys, norm):
    assert train("--name", "r", "--norm", norm, "--epochs", "3", "--seed", "4") == 0
    out, err = capsys.readouterr()
    assert set(os.listdir("runs/r")) == FILES and err == ""
    row = metrics()
    (eps, certified), (_, attacked) = row["test"]["certified"].popitem(), row["test"]["attacked"].popitem()
    assert (
        f"{floored(row['test']['accuracy'])}%" in out and f"certified at {eps}" in out and "runs/r/report.html" in out
    )
    assert f"{floored(certified)}%" in out and f"{attacked:.2%}" in out
    assert (row["name"], row["seed"], row["config"]["norm"], len(row["history"])) == ("r", 4, norm, 3)


def test_where_the_attack_saw_only_some_the_certified_share_of_those_is_told(capsys):
    train("--name", "r", "--epochs", "3", "--eps", "0.1")
    certificate = json.loads(Path("runs/r/certificate.json").read_text())
    count = sum(radius > 0.1 for radius in certificate["radius"][:5])
    line = f"certified of those  {floored(count / 5):>6}%   {bracketed(wilson(count, 5))}\n"
    assert line in capsys.readouterr().out
    main(["train", "--data", "stripes.npz", *QUICK, "--attack-images", "18", "--epochs", "1"])
    assert "certified of those" not in capsys.readouterr().out  # it saw all


def test_each_accuracy_has_its_interval_and_its_worst_class(capsys):
    """All follow from the radii and labels that the run has written."""
    train("--name", "r", "--epochs", "2", "--eps", "0.2", "--seed", "1")
    out = capsys.readouterr().out.splitlines()
    written = json.loads(Path("runs/r/certificate.json").read_text())
    radius, label = np.array([np.inf if r is None else r for r in written["radius"]]), np.array(written["label"])
    for line, eps in ((0, 0.0), (2, 0.2)):
        above = radius > eps
        shares = [(above[label == c].mean(), c) for c in range(3)]
        least, worst = min(shares)
        assert f"{floored(above.mean())}%   {bracketed(wilson(int(above.sum()), 18))}" in out[line]
        assert out[line + 1] == (
            f"worst class         {floored(least):>6}%   {bracketed(wilson(round(6 * least), 6)):<18} "
            f"(class {worst}, 6 images)"
        )
    (standing,) = metrics()["test"]["attacked"].values()
    assert f"{standing:.2%}   {bracketed(wilson(round(5 * standing), 5))}" in out[4]
    assert out[0].endswith("(95% Wilson intervals)")


@pytest.mark.parametrize(("norm", "options"), [("2", ["--offset", "0.8"]), ("inf", ["--a", "0.1", "--k", "1000"])])
def test_a_default_that_is_spelled_out_is_the_same_option(norm, options, capsys):
    train("--name", "r", "--epochs", "1", "--norm", norm)
    assert train("--name", "r", "--epochs", "1", "--norm", norm, "--resume", *options) == 0
    assert "complete" in capsys.readouterr().out
    stored = json.loads(Path("runs/r/config.json").read_text())
    old = stored | {"offset": 0.8, "temperature": 0.25, "a": 0.1}  # as versions wrote it that had no None
    Path("runs/r/config.json").write_text(json.dumps(old))
    assert train("--name", "r", "--epochs", "1", "--norm", norm, "--resume") == 0
    options[-1] = "7"
    assert train("--name", "r", "--epochs", "1", "--norm", norm, "--resume", *options) == 2
    assert "began with" in capsys.readouterr().err


def test_a_run_without_a_name_is_called_after_data_norm_activation_and_time():
    assert train("--epochs", "1") == 0
    (name,) = os.listdir("runs")
    assert name.startswith("stripes-l2-maxmin-20")
    assert metrics(name)["name"] == name


def test_resume_of_a_complete_run_says_so_and_changes_nothing(capsys):
    train("--name", "r", "--epochs", "1")
    before = {name: Path(f"runs/r/{name}").read_bytes() for name in FILES}
    capsys.readouterr()
    assert train("--name", "r", "--epochs", "1", "--resume") == 0
    assert "complete" in capsys.readouterr().out
    assert before == {name: Path(f"runs/r/{name}").read_bytes() for name in os.listdir("runs/r")}


def test_resume_makes_the_page_that_a_killed_run_did_not_get_to():
    train("--name", "r", "--epochs", "1")
    os.remove("runs/r/report.html")
    assert train("--name", "r", "--epochs", "1", "--resume") == 0
    assert os.path.exists("runs/r/report.html")


def test_a_killed_process_resumes_to_the_result_of_an_uninterrupted_one():
    options = ["train", "--data", "stripes.npz", *QUICK, "--epochs", "60", "--threads", "1"]
    program = "import sys; from tightlip.cli import main; sys.exit(main())"
    with Started("-c", program, *options, "--name", "killed") as process:
        late = time.monotonic() + 60
        while not os.path.exists("runs/killed/checkpoint.pt") and process.poll() is None and time.monotonic() < late:
            time.sleep(0.01)
    assert os.path.exists("runs/killed/checkpoint.pt") and not os.path.exists("runs/killed/metrics.json")
    assert main([*options, "--name", "killed", "--resume"]) == 0
    assert main([*options, "--name", "whole"]) == 0

    def history(name):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in metrics(name)["history"]]

    assert history("killed") == history("whole")
    for file in ("model.safetensors", "certificate.json"):
        assert Path(f"runs/killed/{file}").read_bytes() == Path(f"runs/whole/{file}").read_bytes()
    assert set(os.listdir("runs/killed")) == FILES


def test_data_that_changed_since_the_run_began_are_refused_on_resume(monkeypatch, capsys):
    """Else half of the training belongs to one sha256 and the metrics name another."""
    from tightlip.experiments import certified_run

    original = certified_run.freeze

    def killed(network):
        raise KeyboardInterrupt

    monkeypatch.setattr(certified_run, "freeze", killed)
    assert train("--name", "r", "--epochs", "1") == 130
    monkeypatch.setattr(certified_run, "freeze", original)
    arrays = np.load("stripes.npz")
    np.savez("stripes.npz", x=255 - arrays["x"], y=arrays["y"])
    assert train("--name", "r", "--epochs", "1", "--resume") == 2
    assert capsys.readouterr().err.count("\n") in (1, 2)


def test_every_option_has_a_default_and_the_default_is_the_demo():
    defaults = Train().config
    assert (defaults.data, defaults.norm, defaults.activation, defaults.seed) == ("mnist5k", "2", "maxmin", 0)
    assert (defaults.constant, defaults.radius) == (1.0, 0.3)


def test_the_infinity_norm_defaults_to_the_papers_network():
    from tightlip.experiments.classification_options import Config

    assert (Config(norm="inf").constant, Config(norm="inf").radius) == (1000.0, 0.05)
    assert Config(norm="inf", a=0.3).radius == 0.15


@pytest.mark.skipif("TIGHTLIP_DATA" not in os.environ, reason="TIGHTLIP_DATA names no folder with the full MNIST")
def test_full_mnist_trains_with_its_own_test_part():
    options = ["--hidden", "32", "--epochs", "1", "--batch-size", "512", "--shift", "0"]
    assert main(["train", "--data", "mnist", "--name", "r", *QUICK, *options]) == 0
    row = metrics()
    assert row["data"]["split"] == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert row["test"]["accuracy"] > 0.8
