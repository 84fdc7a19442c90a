"""Whoever computes cells, the rows are the same, and a cell whose process is killed is computed again.

One test starts a cluster, whose processes import torch: that takes its seconds.
"""

import os
import sys
import types
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tightlip import TightlipError
from tightlip.experiments import executors
from tightlip.experiments.protocol import Preset
from tightlip.experiments.rows import run_cells


@pytest.fixture
def mortal(monkeypatch):
    """An experiment, under a name by which other processes import it too."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delitem(sys.modules, "mortal", raising=False)
    import mortal

    return mortal


def numbers(rows):
    return [replace(row, seconds={}, config={"number": row.config["number"]}) for row in rows]


class Pools:
    """Pools that compute here; so many of them break at the second cell."""

    def __init__(self, breaks):
        self.breaks, self.made = breaks, 0

    def __call__(self, *_):
        self.made += 1
        self.broken = False
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, attempt, cell):
        future = Future()
        if self.broken or (cell.config["number"] == 1 and self.made <= self.breaks):
            self.broken = True  # the pool's other processes are gone too
            future.set_exception(BrokenProcessPool("terminated abruptly"))
        else:
            future.set_result(attempt(cell))
        return future


def test_the_cell_of_a_process_that_was_killed_is_computed_again_by_another_pool(mortal, tmp_path, monkeypatch):
    pools = Pools(breaks=executors.LIVES - 1)
    monkeypatch.setattr(executors, "ProcessPoolExecutor", pools)
    rows = run_cells(mortal, Preset(), tmp_path, jobs=2)
    assert [row.config["number"] for row in rows] == [0, 1, 2]
    assert pools.made == executors.LIVES


def test_cells_whose_processes_are_killed_every_time_are_given_up_and_rows_are_kept(mortal, tmp_path, monkeypatch):
    pools = Pools(breaks=100)
    monkeypatch.setattr(executors, "ProcessPoolExecutor", pools)
    with pytest.raises(TightlipError, match="killed 3 times in a row"):
        run_cells(mortal, Preset(), tmp_path, jobs=2)
    # The cell that ends gives the others their lives back: it is seen in the first pool, or as late as the third.
    assert executors.LIVES <= pools.made < 2 * executors.LIVES
    assert len(list(tmp_path.glob("number=0_*.json"))) == 1


def test_ray_computes_the_same_rows_and_survives_a_killed_process(mortal, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        there = run_cells(mortal, Preset({"folder": str(tmp_path)}), Path("there"), 2, "ray")
        torch.set_num_threads(1)
        own = run_cells(mortal, Preset(), Path("own"))
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "grave").exists()
    assert [replace(row, threads=1) for row in numbers(there)] == numbers(own)


class Ray(types.ModuleType):
    """As much of Ray as is called; it ends every cell by ``error``."""

    def __init__(self, error=None, refusal=None):
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=OSError, RayTaskError=ZeroDivisionError)
        self.error, self.refusal, self.ended = error, refusal, False

    def init(self, **_):
        if self.refusal is not None:
            raise self.refusal

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": executors.LIVES - 1}
        return lambda function: types.SimpleNamespace(remote=lambda *_: object())

    def wait(self, running):
        assert len(running) <= 2
        return running[:1], running[1:]

    def get(self, _):
        raise self.error

    def shutdown(self):
        self.ended = True


def test_what_ray_cannot_compute_is_a_sentence_for_each_cell(mortal, tmp_path, monkeypatch):
    lost = ZeroDivisionError()
    lost.cause = ImportError("no module named tightlip")
    for error, words in ((OSError(), "was killed 3 times"), (lost, "no module named tightlip")):
        ray = Ray(error)
        monkeypatch.setitem(sys.modules, "ray", ray)
        with pytest.raises(TightlipError, match=f"3 of 3 cells failed.*number=2.*{words}"):
            run_cells(mortal, Preset(), tmp_path, 2, "ray")
        assert ray.ended


def test_a_cluster_that_cannot_be_reached_is_a_sentence(mortal, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray(refusal=ConnectionError("nobody at host:6379")))
    with pytest.raises(TightlipError, match="no Ray cluster could be started or reached: nobody at host:6379"):
        run_cells(mortal, Preset(), tmp_path, 2, "ray")


def test_without_ray_a_sentence_says_how_to_get_it(mortal, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TightlipError, match=r"pip install -e '\.\[cluster\]'"):
        run_cells(mortal, Preset(), tmp_path, 2, "ray")


def test_an_unknown_executor_is_refused_before_anything_is_written(mortal, tmp_path):
    with pytest.raises(TightlipError, match="did you mean ray"):
        run_cells(mortal, Preset(), tmp_path / "none", 2, "rey")
    assert not (tmp_path / "none").exists()
