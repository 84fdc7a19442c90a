import json

import pytest

from tightlip.cli import main
from tightlip.experiments import EXPERIMENTS
from tightlip.experiments.protocol import Outcome, Preset
from tightlip.records import Metric


@pytest.fixture
def tiny(monkeypatch):
    """A new experiment, as one file and one entry would add it."""
    import types
    from dataclasses import make_dataclass

    module = types.ModuleType("tightlip.experiments.tiny_study", "Doubles a number.")
    module.Config = make_dataclass("Config", [("number", int, 1)], frozen=True)
    module.GRID = {"number": (1, 2)}
    module.SMOKE = module.PAPER = Preset(seeds=2)

    def run(config, seed):
        return Outcome({"double": 2.0 * config.number}, {"curve": {"x": [0, 1], "double": [0, seed + 1]}})

    module.run = run
    monkeypatch.setitem(EXPERIMENTS, "tiny_study", module)
    return module


def test_list_names_every_experiment_with_its_first_line_and_its_size(capsys, tiny):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert lines[-1].endswith("Doubles a number. Cells: 4 smoke, 4 paper.")


def test_run_computes_a_new_experiment_and_resumes_it(capsys, tiny, tmp_path):
    command = ["run", "tiny_study", "--output", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["number", "double"]
    assert out.splitlines()[2].split() == ["2", "4"]
    folder = tmp_path / "tiny_study-smoke"
    assert len(list(folder.glob("*seed*.json"))) == 4 and (folder / "report.html").exists()

    def never(config, seed):
        raise AssertionError("a row that is there is computed again")

    tiny.run = never
    assert main(command) == 0
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 0
    assert "Doubles a number." in (tmp_path / "page.html").read_text()


def test_a_dash_may_stand_for_an_underscore(capsys, tiny, tmp_path):
    assert main(["run", "tiny-study", "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny_study-smoke"}


def test_run_prints_what_the_columns_mean_and_what_they_should_be(capsys, tiny, tmp_path):
    tiny.METRICS = {"double": Metric("Twice the number.", truth=4.0)}
    assert main(["run", "tiny_study", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\ntruth   4\n" in out and "\ndouble: Twice the number.\n" in out


def test_presets_have_folders_of_their_own(tiny, tmp_path):
    assert main(["run", "tiny_study", "--output", str(tmp_path), "--preset", "paper"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny_study"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nonsense"], "no experiment is called 'nonsense': choose one of"),
        (["run", "tiny_study", "--jobs", "0"], "jobs must be an integer from 1 to 256, got 0"),
        (["run", "tiny_study", "--preset", "huge"], "see tightlip run --help"),
        (["run"], "needs the name of an experiment: choose one of group_sort_shapes, theorem_1, "),
        (["run", "tiny_study", "--output", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(capsys, tiny, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_a_failing_cell_is_exit_code_two_with_its_reason(capsys, tiny, tmp_path):
    def run(config, seed):
        raise ZeroDivisionError("by zero")

    tiny.run = run
    assert main(["run", "tiny_study", "--output", str(tmp_path)]) == 2
    assert "4 of 4 cells failed" in capsys.readouterr().err


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["seeds.txt", "sub/metrics.json"]])
def test_a_page_of_nothing_says_what_either_kind_of_folder_holds(capsys, tmp_path, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in content:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in ("neither a run nor an experiment", "metrics.json", "_seed*.json", "tightlip train", "tightlip run"):
        assert words in error


def test_a_folder_that_is_not_there_is_called_so(capsys, tmp_path):
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_folder_of_two_experiments_is_refused(capsys, tiny, tmp_path):
    assert main(["run", "tiny_study", "--output", str(tmp_path)]) == 0
    folder = tmp_path / "tiny_study-smoke"
    row = next(folder.glob("*.json"))
    other = json.loads(row.read_text()) | {"experiment": "another"}
    (folder / "another_seed0.json").write_text(json.dumps(other))
    assert main(["report", str(folder)]) == 2
    assert "mixes rows" in capsys.readouterr().err


def test_report_of_several_experiments_is_one_page(capsys, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output in ("first", "second"):
        assert main(["run", "tiny_study", "--output", output]) == 0
    folders = [f"{output}/tiny_study-smoke" for output in ("first", "second")]
    assert main(["report", *folders]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "page  report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<h2>tiny study</h2>") == 2


def test_report_of_runs_and_experiments_together_is_refused(capsys, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiny_study", "--output", "runs"]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    for others, says in (("run", "name folders of one kind"), ("nowhere", "there is no folder nowhere")):
        assert main(["report", "runs/tiny_study-smoke", others]) == 2
        error = capsys.readouterr().err
        assert says in error and len(error.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()
