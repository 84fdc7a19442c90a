"""Whether GANs with a critic of ours are as good, from rows whose answer is known."""

import runpy
from pathlib import Path

import pytest
from report.synthetic import write_cell

from tightlip import TightlipError

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "gan_verdict.py"))
PACES = [0.5, 1.0, 2.0, 4.0]

GOOD = {
    "constant": 1.0000001,
    "judge_accuracy": 0.9905,
    "critic_step_seconds": 0.02,
    "recall": 0.5,
    "recall_at_equal_seconds": 0.5,
}
FRECHET = {"clip": (20.0, 30.0, 40.0), "gradient penalty": (10.0, 12.0, 14.0)}
"""The better one's mean is 12 and its standard error 2/√3 = 1.1547."""


def rows(folder, changed=None, data="mnist", paces=PACES, seeds=3):
    """Rows of all critics; ``changed`` are metrics of ours, which have 12 at each seed."""
    for critic in (*SCRIPT["USUAL"], *SCRIPT["OURS"]):
        for seed in range(seeds):
            metrics = {name: FRECHET.get(critic, (12.0,) * 3)[seed] for name in ("frechet", "frechet_at_equal_seconds")}
            metrics = GOOD | metrics | ((changed or {}) if critic in SCRIPT["OURS"] else {})
            config = {"critic": critic, "data": data, "paces": paces}
            write_cell(folder, config, ("critic", "data"), seed, metrics, experiment="wgan")
    return folder


def misses(folder):
    return [line.asked for line in SCRIPT["lines"](folder) if not line.holds and line.critic == "orthonormal conv"]


def test_as_good_is_good_enough(tmp_path):
    assert misses(rows(tmp_path / "rows")) == []
    text = SCRIPT["table"](tmp_path / "rows")
    assert "* mnist: yes, orthonormal dense and orthonormal conv\n" in text and "**no**" not in text
    assert "| Fréchet distance, equal steps | 12 ± 0 | 13.15 at most: gradient penalty's 12 ± 1.2 | yes |" in text
    assert len([line for line in text.splitlines() if line.startswith("| mnist")]) == 16


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"frechet": 13.15}, []),  # a standard error more than the better one
        ({"frechet": 13.16}, ["Fréchet distance, equal steps"]),
        ({"frechet": None}, ["Fréchet distance, equal steps"]),
        ({"frechet_at_equal_seconds": 13.16}, ["Fréchet distance, equal time"]),
        ({"frechet": 1.0, "recall": 0.49}, ["recall, equal steps"]),
        ({"recall": 0.9, "recall_at_equal_seconds": 0.1}, ["recall, equal time"]),
        ({"constant": 1.000001}, []),
        ({"constant": 1.0000011}, ["audited constant"]),
        ({"critic_step_seconds": 0.0201}, ["milliseconds of a step"]),
        ({"judge_accuracy": 0.9899}, ["the classifier's accuracy"]),
    ],
)
def test_each_thing_that_is_asked_can_be_missed(tmp_path, changed, missed):
    assert misses(rows(tmp_path / "rows", changed)) == missed
    assert ("* mnist: no" in SCRIPT["table"](tmp_path / "rows")) == bool(missed)


def test_one_critic_is_to_hold_all_of_it_on_each_data_set(tmp_path):
    rows(tmp_path / "rows"), rows(tmp_path / "rows", {"judge_accuracy": 0.92}, "fashion-mnist")
    folder = rows(tmp_path / "rows", {"judge_accuracy": 0.99, "constant": 2.0}, "other")
    for critic, changed in (("orthonormal dense", {"recall": 0.1}), ("orthonormal conv", {"frechet": 99.0})):
        for seed in range(3):
            config = {"critic": critic, "data": "mnist", "paces": PACES}
            metrics = {"frechet": 12.0, "frechet_at_equal_seconds": 12.0} | GOOD | changed
            write_cell(folder, config, ("critic", "data"), seed, metrics, experiment="wgan")
    text = SCRIPT["table"](folder)
    assert [line for line in text.splitlines() if line.startswith("*")] == [
        "* fashion-mnist: yes, orthonormal dense and orthonormal conv",
        "* mnist: no: of each critic something does not hold",
        "* other: no: of each critic something does not hold",
    ]


def test_the_better_of_two_is_the_better_one_in_each_metric(tmp_path):
    folder = rows(tmp_path / "rows", {"recall": 0.65})
    for seed in range(3):
        config = {"critic": "clip", "data": "mnist", "paces": PACES}
        metrics = GOOD | {
            "frechet": FRECHET["clip"][seed],
            "frechet_at_equal_seconds": 12.0,
            "recall": 0.6 + 0.1 * seed,
        }
        write_cell(folder, config, ("critic", "data"), seed, metrics, experiment="wgan")
    assert misses(folder) == []  # 0.7 less a standard error of 0.1/√3
    assert "0.6423 at least: clip's 0.7 ± 0.058" in SCRIPT["table"](folder)


def test_what_is_too_little_to_compare_is_said(tmp_path):
    assert misses(rows(tmp_path / "few", paces=[1.0])) == ["paces tried"]
    with pytest.raises(TightlipError, match="the same two seeds or more"):
        SCRIPT["table"](rows(tmp_path / "single", seeds=1))
    next(rows(tmp_path / "gap").glob("*clip*seed2*")).unlink()
    with pytest.raises(TightlipError, match=r"of mnist each critic needs the same .* clip \[0, 1\], gradient"):
        SCRIPT["table"](tmp_path / "gap")
    assert "There are no rows" in SCRIPT["table"](tmp_path / "absent")
