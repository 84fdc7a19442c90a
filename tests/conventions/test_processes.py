"""Two ranks: data-parallel in either order, and bit-equal; sharded parameters and optimizers work or are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

WORKS = [
    "constrained_first",
    "constrained_after",
    "with_momentum",
    "bucket_views",
    "static_graph",
    "held_before_it_is_wrapped",
    "held_through_the_wrapper",
    "frozen_weight",
    "unused_parameters",
    "accumulation_without_synchronizing",
]
SHARDED = ["sharded_optimizer", "fully_sharded", "read_while_sharded", "frozen_while_sharded"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, worker_id):
    """What both ranks report: one run for all tests of this file, and for all workers, who wait for it."""
    own = tmp_path_factory.getbasetemp()
    folder, script = (own if worker_id == "master" else own.parent) / "ranks", Path(__file__).with_name("ranks.py")
    folder.mkdir(exist_ok=True)
    reports = [folder / f"rank-{rank}.json" for rank in range(2)]
    with FileLock(folder / "lock"):
        if not all(report.exists() for report in reports):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=1800, env=environment)
    return [json.loads(report.read_text()) for report in reports]


@pytest.mark.cells(few=True)
@pytest.mark.parametrize("scenario", WORKS)
def test_two_ranks_train_the_same_weights(cell, scenario, outcomes):
    for rank in outcomes:
        assert rank[f"{scenario} {cell}"] == "works"


@pytest.mark.cells(few=True)
@pytest.mark.parametrize("scenario", SHARDED)
def test_sharding_works_or_is_refused_in_a_sentence(cell, scenario, outcomes):
    for rank in outcomes:
        result = rank[f"{scenario} {cell}"]
        assert result == "works" or (result.startswith("refused: ") and "\n" not in result), result
