"""Ranks: data-parallel in either order and bit-equal, sharded, with the work shared, killed and resumed, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conventions import killed_ranks, single_ranks
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
    "shared",
    "fully_sharded",
    "fully_sharded_and_shared",
]
SHARDED = ["sharded_optimizer", "read_while_sharded", "frozen_while_sharded"]
ONCE = sorted({*single_ranks.SCENARIOS} - {"accelerate", "distance"})


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, worker_id):
    """What both ranks report, and what became of killed ones: one run for all tests here, and for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder, script = (own if worker_id == "master" else own.parent) / "ranks", Path(__file__).with_name("ranks.py")
    folder.mkdir(exist_ok=True)
    reports = [folder / f"rank-{rank}.json" for rank in range(2)]
    with FileLock(folder / "lock"):
        if not (folder / "killed.json").exists():
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=1800, env=environment)
    return [json.loads(report.read_text()) for report in (*reports, folder / "killed.json")]


@pytest.mark.cells(few=True)
@pytest.mark.parametrize("scenario", WORKS)
def test_two_ranks_train_the_same_weights(cell, scenario, outcomes):
    for rank in outcomes[:2]:
        assert rank[f"{scenario} {cell}"] == "works"


@pytest.mark.cells(few=True)
@pytest.mark.parametrize("scenario", SHARDED)
def test_sharding_works_or_is_refused_in_a_sentence(cell, scenario, outcomes):
    for rank in outcomes[:2]:
        result = rank[f"{scenario} {cell}"]
        assert result == "works" or (result.startswith("refused: ") and "\n" not in result), result


@pytest.mark.parametrize("scenario", ONCE)
def test_work_is_shared_by_ranks_that_take_the_same_steps_and_by_no_others(scenario, outcomes):
    for rank in outcomes[:2]:
        assert rank[scenario] == "works"


def test_accelerate_wraps_or_shards_what_is_held(outcomes):
    pytest.importorskip("accelerate")
    for rank in outcomes[:2]:
        assert rank["accelerate"] == "works"


def test_a_rank_that_is_killed_changes_nothing_in_the_history_of_a_run(outcomes):
    (losses, weights), (resumed_losses, resumed_weights) = outcomes[2]
    assert len(losses) == 2 * killed_ranks.STEPS
    assert resumed_losses == losses
    assert resumed_weights == weights
    assert weights["whole"] != killed_ranks.network().state_dict()


def test_ranks_find_the_interval_that_one_process_finds(outcomes):
    assert [rank["distance"] for rank in outcomes[:2]] == [single_ranks.interval()] * 2
