"""How an experiment is described and run: a grid of cells, one JSON row a cell, resumable cell by cell.

An experiment is a module of this folder with five names:

    Config    a frozen dataclass: all that determines a cell's numbers, except for the seed
    GRID      the fields that span the table, each with its values
    SMOKE     a `Preset` that takes seconds
    PAPER     a `Preset` with the full sizes
    run       (config, seed) -> metrics: numbers, and optionally "curve", columns of equal length to be drawn, and
              "surface", an object of "x", "y" and "z" (a list for each x of a number for each y)

and up to three that tell a stranger what is seen (so do the strings below the fields of Config):

    METRICS      each metric: a `Metric`, or its words alone
    CURVES       each column of the curve in words
    TRUE_CURVES  columns of the curve whose true values are known, as functions of the first column

`run_cells` works through the product of the grid and the seeds. A row that is there already, with the same config and
seed, is not computed again; so an interrupted run goes on where it stopped.
"""

import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from tqdm import tqdm

from ..arguments import integer
from ..choices import chosen
from ..errors import TightlipError
from ..locking import sole_writer
from ..provenance import commit, provenance
from ..records import FORMAT, CellRow, read_fields
from ..records.cell import DRAWINGS
from ..records.metric import FILE
from .words import definition_of, name_of

logger = logging.getLogger(__name__)

Outcomes = Generator[tuple["Cell", str | None], None, None]
"""Cells as they end, each with the reason why it failed, or None."""


@dataclass(frozen=True)
class Preset:
    """What a preset changes: fields that all cells share, how many seeds, and other values for axes of the grid.

    ``name`` is what its rows say they were made with; `named` gives it.
    """

    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    name: str = ""


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
    preset: str = ""
    place: int = 0

    @property
    def file(self) -> str:
        """Its file's name: the values on the axes, the seed, and a hash of the whole config."""
        options = json.dumps(self.config, sort_keys=True)
        words = [f"{axis}={self.config[axis]}" for axis in self.axes]
        digest = hashlib.sha256(options.encode()).hexdigest()[:8]
        return "_".join([*words, f"seed{self.seed}", digest]).replace("/", "-").replace(" ", "") + ".json"

    @property
    def words(self) -> str:
        """What a person would call it: 'schedule=bjorck1 start=gaussian seed 0'."""
        return " ".join([*(f"{axis}={self.config[axis]}" for axis in self.axes), f"seed {self.seed}"])


def named(experiment: Experiment, name: str) -> Preset:
    """The preset of an experiment that is called smoke or paper, with its name.

    Raises:
        TightlipError: for any other name.
    """
    return replace(chosen("preset", name, {"smoke": experiment.SMOKE, "paper": experiment.PAPER}), name=name)


def _name(experiment: Experiment, preset: Preset) -> str:
    """A preset's own name, else that of the experiment's preset that it is, or alone is equal to."""
    held = {"paper": experiment.PAPER, "smoke": experiment.SMOKE}
    same = [name for name, other in held.items() if other is preset]
    equal = [name for name, other in held.items() if other == preset]
    return preset.name or (same + equal * (len(equal) == 1) + ["other"])[0]


def cells(experiment: Experiment, preset: Preset) -> Iterator[Cell]:
    """Every cell of a preset, in the order of the grid; seeds innermost."""
    grid = {**experiment.GRID, **preset.grid}
    name = _name(experiment, preset)
    for place, values in enumerate(itertools.product(*grid.values())):
        config = experiment.Config(**{**preset.shared, **dict(zip(grid, values, strict=True))})
        options = _as_json(config)
        for seed in range(preset.seeds):
            yield Cell(name_of(experiment), options, tuple(grid), seed, name, place)


def _as_json(config: Any) -> dict[str, Any]:
    """The options as a file holds them.

    Raises:
        TightlipError: for numbers that JSON does not have.
    """
    try:
        return json.loads(json.dumps(asdict(config), allow_nan=False))  # type: ignore[no-any-return]
    except ValueError as error:
        raise TightlipError(f"a row keeps finite numbers only, so use None for others, got {config}") from error


def run_cells(experiment: Experiment, preset: Preset, folder: Path, jobs: int = 1) -> list[CellRow]:
    """Compute every missing cell into ``folder``, each in a file of its own; all rows, in the order of the grid.

    Args:
        experiment: A module as described above.
        preset: Which cells.
        folder: Where the rows are; made if absent.
        jobs: Processes at once; they share torch's threads, and end when this process does.

    Raises:
        TightlipError: if cells failed, naming each with its reason; the others' rows are written. If another process
            is at work in the folder.
    """
    integer("jobs", jobs, most=256)
    todo = list(cells(experiment, preset))
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        definition_of(experiment).write(folder / FILE)
        there = [_row_there(cell, folder) for cell in todo]
        missing = [cell for cell, row in zip(todo, there, strict=True) if row is None]
        _tell_of(name_of(experiment), there)
        failed = _compute(experiment, missing, folder, min(jobs, max(1, len(missing))), len(todo))
        if failed:
            raise TightlipError(f"{len(failed)} of {len(todo)} cells failed, the others are kept: {'; '.join(failed)}")
    rows = [read_row(folder / cell.file, cell) for cell in todo]
    return [row for row in rows if row is not None]


def _row_there(cell: Cell, folder: Path) -> CellRow | None:
    """A cell's row, if it has one; one of an earlier version gets what it lacks, its numbers stay."""
    path = folder / cell.file
    row = read_row(path, cell)
    if row is None:
        return None
    whole = replace(row, preset=row.preset or cell.preset, place=cell.place if row.place is None else row.place)
    if (row.preset, row.place) != (whole.preset, whole.place) or read_fields(path).values["format"] != FORMAT:
        whole.write(path)
    return whole


def _tell_of(name: str, there: Sequence[CellRow | None]) -> None:
    rows, now = [row for row in there if row is not None], commit()[0]
    logger.info("%s: %d of %d cells are there already", name, len(rows), len(there))
    others = sum(row.commit != now for row in rows)
    if others:
        logger.info("%d of them are of another commit: to compute them again, delete their files", others)


def _compute(experiment: Experiment, missing: list[Cell], folder: Path, jobs: int, total: int) -> list[str]:
    """Why cells failed."""
    there = total - len(missing)
    outcomes = _here(experiment, missing, folder) if jobs == 1 else _elsewhere(experiment, missing, folder, jobs)
    with closing(outcomes), tqdm(total=total, initial=there, unit="cell", disable=None if missing else True) as bar:
        told = [
            _told(bar, cell, problem, f"{place} of {total}")
            for place, (cell, problem) in enumerate(outcomes, there + 1)
        ]
    return [problem for problem in told if problem is not None]


def _told(bar: Any, cell: Cell, problem: str | None, place: str) -> str | None:
    bar.update()
    logger.log(logging.INFO if bar.disable else logging.DEBUG, "%s: %s, %s", cell.words, problem or "done", place)
    return None if problem is None else f"{cell.words}: {problem}"


def _here(experiment: Experiment, missing: list[Cell], folder: Path) -> Outcomes:
    for cell in missing:
        logger.debug("%s: computing", cell.words)
        yield cell, _attempt(experiment, cell, folder)


def _elsewhere(experiment: Experiment, missing: list[Cell], folder: Path, jobs: int) -> Outcomes:
    """In ``jobs`` processes, which leave when a pipe closes: as this one ends, in whatever way, or is interrupted."""
    spawn = multiprocessing.get_context("spawn")  # forked processes hang in OpenMP
    theirs, ours = spawn.Pipe(duplex=False)
    options = (max(1, torch.get_num_threads() // jobs), theirs)
    with theirs, ours, ProcessPoolExecutor(jobs, spawn, _begin, options) as pool:
        try:
            with _uninterrupted():
                futures = {pool.submit(_attempt, experiment.__name__, cell, folder): cell for cell in missing}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise TightlipError(
                "a process was killed, perhaps for want of memory; complete rows are kept: run again with fewer jobs"
            ) from error
        except BaseException:
            ours.close()
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started in here never hears Ctrl-C, not even while it imports; this process hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(threads: int, pipe: Connection) -> None:
    """What a process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(pipe,), daemon=True).start()
    torch.set_num_threads(threads)


def _leave_with(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def _attempt(experiment: Experiment | str, cell: Cell, folder: Path) -> str | None:
    """Compute and write one row; why that failed, or None. (Modules do not pickle, so workers get their names.)."""
    module: Any = __import__(experiment, fromlist=["run"]) if isinstance(experiment, str) else experiment
    began = time.perf_counter()
    try:
        metrics = module.run(module.Config(**cell.config), cell.seed)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told, and the other cells go on
        return f"{type(error).__name__}: {error}"
    drawings = {kind: metrics.pop(kind) for kind in DRAWINGS if kind in metrics}
    row = CellRow(
        command="run",
        experiment=cell.experiment,
        preset=cell.preset,
        place=cell.place,
        axes=cell.axes,
        config=cell.config,
        seed=cell.seed,
        data=metrics.pop("data", {"name": "synthetic", "sha256": None}),
        metrics=metrics,
        drawings=drawings,
        true_curves=_true_curves(module, drawings),
        seconds={"total": round(time.perf_counter() - began, 3)},
        **provenance("cpu"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    row.write(folder / cell.file)
    return None


def _true_curves(experiment: Experiment, drawings: Mapping[str, Any]) -> dict[str, list[float]]:
    """What the columns of a curve should be, where that is known."""
    x: list[float] = next(iter(drawings.get("curve", {}).values()), [])
    known = getattr(experiment, "TRUE_CURVES", {})
    return {name: [float(truth(value)) for value in x] for name, truth in known.items()} if x else {}


def read_row(path: Path, cell: Cell) -> CellRow | None:
    """The row of this very cell, or None if it is not there or the file is damaged."""
    try:
        row = CellRow.read(path)
    except TightlipError:
        return None
    same = (row.experiment, row.config, row.seed) == (cell.experiment, cell.config, cell.seed)
    return row if same else None
