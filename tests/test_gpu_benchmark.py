"""The script for an hour on a GPU runs from end to end where there is none, so that no minute there is lost."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = str(Path(__file__).parents[1] / "benchmarks" / "gpu.py")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The row of a small run on the processor with these arguments."""

    def ran(*arguments):
        path = tmp_path / "gpu.json"
        small = ["--device", "cpu", "--small", "--rounds", "1", "--output", str(path)]
        monkeypatch.setattr(sys, "argv", [SCRIPT, *small, *arguments])
        runpy.run_path(SCRIPT, run_name="__main__")
        return json.loads(path.read_text())["results"]

    return ran


def test_every_part_runs_and_finds_no_wrong_number(run):
    found = run()
    assert [name for name, part in found.items() if "failed" in part] == []
    assert all(part["wrong"] == 0 for name, part in found["sorting"].items() if name != "seconds")
    constants = [value for name, value in found["sets"].items() if name != "seconds"]
    assert max(constants) <= 1 + 5e-6
    assert found["certificates"]["constants_differ"] == 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_part_that_fails_is_named_and_the_others_run(run, monkeypatch):
    monkeypatch.setattr("tightlip.certify", lambda *_: 1 / 0)
    found = run("--only", "certificates", "rates")
    assert found["certificates"]["failed"] == "ZeroDivisionError: division by zero"
    assert found["rates"]["float32_tflops"] > 0


def test_parts_that_would_begin_too_late_are_left_out_by_name(run):
    assert run("--only", "rates", "--minutes", "0")["rates"] == {"left out": "there was no time"}
