"""Processes of an experiment end with the one that started them, and say nothing of their own.

Each test starts three processes that import torch: that takes its seconds.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import pytest
from sweeps import some

from tightlip import TightlipError
from tightlip.experiments import EXPERIMENTS, executors, rows

SLEEPER = '''"""Cells that sleep."""
import pathlib, time
from dataclasses import dataclass
from tightlip.experiments.protocol import Outcome, Preset

@dataclass(frozen=True)
class Config:
    number: int = 0

GRID = {"number": (0, 1, 2)}
SMOKE = PAPER = Preset()

def run(config, seed):
    pathlib.Path(f"started{config.number}").touch()
    time.sleep(300)
    return Outcome({})
'''
MAIN = """
import sys, sleeper
from tightlip.cli import main
from tightlip.experiments import EXPERIMENTS
EXPERIMENTS["sleeper"] = sleeper
sys.exit(main(["run", "sleeper", "--jobs", "2"]))
"""


@pytest.fixture
def sleeper(tmp_path, monkeypatch):
    """A module of which three cells never end, and its process, started like a terminal's foreground job."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.chdir(tmp_path)
    started = []

    def start():
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def end_of(process):
    """What it wrote; its pipes end only when every process that it started is gone too."""
    return process.communicate(timeout=20)


@pytest.mark.parametrize("moment", some(["while they start"], ["while they compute"]))
def test_an_interruption_from_the_terminal_ends_all_processes_with_one_sentence(sleeper, tmp_path, moment):
    process = sleeper()
    first = process.stderr.readline()
    assert first == "sleeper: 0 of 3 cells are there already\n"
    if moment == "while they compute":
        wait_for(tmp_path / "started0")
        wait_for(tmp_path / "started1")
    else:
        time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, error = end_of(process)
    advice = "give the same command again to go on, tightlip run sleeper --jobs 2"
    assert error == f"tightlip: interrupted; complete rows are kept: {advice}\n"
    assert process.returncode == 130 and not (tmp_path / "started2").exists()


def test_processes_end_when_the_one_that_started_them_is_killed(sleeper, tmp_path):
    process = sleeper()
    wait_for(tmp_path / "started0")
    wait_for(tmp_path / "started1")
    process.terminate()
    end_of(process)
    assert process.returncode == 128 + signal.SIGTERM and not (tmp_path / "started2").exists()


class KilledProcesses:
    """A pool whose processes the system kills, without the seconds that it takes to start them."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, *_):
        future = Future()
        future.set_exception(BrokenProcessPool("terminated abruptly"))
        return future


def test_a_process_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "ProcessPoolExecutor", KilledProcesses)
    experiment = EXPERIMENTS["bjorck_convergence"]
    with pytest.raises(TightlipError, match="killed 3 times in a row, perhaps for want of memory"):
        rows.run_cells(experiment, experiment.SMOKE, tmp_path, jobs=2)
