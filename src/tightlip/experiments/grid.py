"""How an experiment is described and run: a grid of cells, one JSON row a cell, resumable cell by cell.

An experiment is a module of this folder with five names:

    Config    a frozen dataclass: all that determines a cell's numbers, except for the seed
    GRID      the fields that span the table, each with its values
    SMOKE     a `Preset` that takes seconds
    PAPER     a `Preset` with the full sizes
    run       (config, seed) -> metrics: numbers, and optionally "curve", columns of equal length to be drawn

`run_cells` works through the product of the grid and the seeds. A row that is there already, with the same config and
seed, is not computed again; so an interrupted run goes on where it stopped.
"""

import hashlib
import itertools
import json
import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from tqdm import tqdm

from ..errors import TightlipError
from ..provenance import certificate_of_birth, write_json

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Preset:
    """What a preset changes: fields that all cells share, how many seeds, and other values for axes of the grid."""

    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@runtime_checkable
class Experiment(Protocol):
    """What a module must hold to be one (see above); its docstring's first line is what `tightlip list` shows."""

    __name__: str
    __doc__: str | None
    Config: type
    GRID: Mapping[str, Sequence[Any]]
    SMOKE: Preset
    PAPER: Preset

    def run(self, config: Any, seed: int) -> dict[str, Any]:
        """The metrics of one cell."""
        ...


@dataclass(frozen=True)
class Cell:
    """One row of an experiment, computed or not."""

    experiment: str
    config: dict[str, Any]
    axes: tuple[str, ...]
    seed: int

    @property
    def file(self) -> str:
        """Its file's name: the values on the axes, the seed, and a hash of the whole config."""
        options = json.dumps(self.config, sort_keys=True)
        words = [f"{axis}={self.config[axis]}" for axis in self.axes]
        digest = hashlib.sha256(options.encode()).hexdigest()[:8]
        return "_".join([*words, f"seed{self.seed}", digest]).replace("/", "-").replace(" ", "") + ".json"


def name_of(experiment: Experiment) -> str:
    """The last part of the module's name."""
    return experiment.__name__.rpartition(".")[2]


def summary_of(experiment: Experiment) -> str:
    """The first line of the module's docstring."""
    return (experiment.__doc__ or "").strip().partition("\n")[0]


def cells(experiment: Experiment, preset: Preset) -> Iterator[Cell]:
    """Every cell of a preset, in the order of the grid; seeds innermost."""
    grid = {**experiment.GRID, **preset.grid}
    for values in itertools.product(*grid.values()):
        config = experiment.Config(**{**preset.shared, **dict(zip(grid, values, strict=True))})
        options = json.loads(json.dumps(asdict(config)))
        for seed in range(preset.seeds):
            yield Cell(name_of(experiment), options, tuple(grid), seed)


def run_cells(experiment: Experiment, preset: Preset, folder: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Compute every missing cell into ``folder``, each in a file of its own; all rows, in the order of the grid.

    Args:
        experiment: A module as described above.
        preset: Which cells.
        folder: Where the rows are; made if absent.
        jobs: Processes at once; they share torch's threads.

    Raises:
        TightlipError: if cells failed, naming each with its reason; the others' rows are written.
    """
    if not 1 <= jobs <= 256:
        raise TightlipError(f"jobs = {jobs} cannot compute: give a number from 1 to 256")
    todo = list(cells(experiment, preset))
    missing = [cell for cell in todo if read_row(folder / cell.file, cell) is None]
    logger.info("%s: %d of %d cells are there already", name_of(experiment), len(todo) - len(missing), len(todo))
    failed = _compute(experiment, missing, folder, min(jobs, max(1, len(missing))))
    if failed:
        raise TightlipError(f"{len(failed)} of {len(todo)} cells failed, the others are kept: {'; '.join(failed)}")
    rows = [read_row(folder / cell.file, cell) for cell in todo]
    return [row for row in rows if row is not None]


def _compute(experiment: Experiment, missing: list[Cell], folder: Path, jobs: int) -> list[str]:
    """Why cells failed."""
    failed = []
    with tqdm(total=len(missing), unit="cell", disable=None if missing else True) as bar:
        if jobs == 1:
            outcomes: Iterator[tuple[Cell, str | None]] = (
                (cell, _attempt(experiment, cell, folder)) for cell in missing
            )
            failed = [_told(bar, cell, problem) for cell, problem in outcomes]
        else:
            threads = max(1, torch.get_num_threads() // jobs)
            spawn = multiprocessing.get_context("spawn")  # forked processes hang in OpenMP
            with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (threads,)) as pool:
                futures = {pool.submit(_attempt, experiment.__name__, cell, folder): cell for cell in missing}
                failed = [_told(bar, futures[future], future.result()) for future in as_completed(futures)]
    return [problem for problem in failed if problem is not None]


def _told(bar: Any, cell: Cell, problem: str | None) -> str | None:
    bar.update()
    logger.log(logging.INFO if bar.disable else logging.DEBUG, "%s: %s", cell.file, problem or "done")
    return None if problem is None else f"{cell.file}: {problem}"


def _attempt(experiment: Experiment | str, cell: Cell, folder: Path) -> str | None:
    """Compute and write one row; why that failed, or None. (Modules do not pickle, so workers get their names.)."""
    module: Any = __import__(experiment, fromlist=["run"]) if isinstance(experiment, str) else experiment
    began = time.perf_counter()
    try:
        metrics = module.run(module.Config(**cell.config), cell.seed)
    except (TightlipError, ArithmeticError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    row = {
        "format": FORMAT,
        "command": "run",
        "experiment": cell.experiment,
        "summary": summary_of(module),
        "axes": list(cell.axes),
        "config": cell.config,
        "seed": cell.seed,
        "data": metrics.pop("data", {"name": "synthetic", "sha256": None}),
        "metrics": metrics,
        "seconds": {"total": round(time.perf_counter() - began, 3)},
        **certificate_of_birth("cpu"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / cell.file, row)
    return None


def read_row(path: Path, cell: Cell) -> dict[str, Any] | None:
    """The row of this very cell, or None if it is not there or the file is damaged."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        same = (row["format"], row["experiment"], row["config"], row["seed"]) == (
            FORMAT,
            cell.experiment,
            cell.config,
            cell.seed,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return row if same else None
