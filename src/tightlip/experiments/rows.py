"""The rows of an experiment: one JSON file for each cell, resumable cell by cell.

`run_cells` works through the product of the grid and the seeds. A row that is there already, with the same config and
seed, is not computed again; so an interrupted run goes on where it stopped.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import integer
from ..atomic import make_folder
from ..choices import chosen
from ..errors import TightlipError
from ..locking import sole_writer
from ..provenance import commit, provenance
from ..records import FORMAT, CellRow, read_fields
from ..records.metric import FILE
from .cells import Cell, cells, config_of
from .clusters import on_ray
from .executors import Executor, Outcomes, here, processes
from .protocol import Experiment, Outcome, Preset
from .shelf import clear, shelf
from .words import definition_of, name_of

logger = logging.getLogger(__name__)

EXECUTORS: dict[str, Executor] = {"processes": processes, "ray": on_ray}
"""Who computes cells: processes of this machine, this very one for a single job; or a Ray cluster."""


def run_cells(
    experiment: Experiment, preset: Preset, folder: Path, jobs: int = 1, executor: str = "processes"
) -> list[CellRow]:
    """Compute every missing cell into ``folder``, each in a file of its own; all rows, in the order of the grid.

    Args:
        experiment: A module as described above.
        preset: Which cells.
        folder: Where the rows are; made if absent.
        jobs: Cells at once, each in a process of its own; these share torch's threads, and end when this one does.
        executor: A name of `EXECUTORS`.

    Raises:
        TightlipError: if cells failed, naming each with its reason; the others' rows are written. If another process
            is at work in the folder. If the executor is unknown, or is not installed.
    """
    integer("jobs", jobs, most=256)
    compute = chosen("executor", executor, EXECUTORS)
    todo = list(cells(experiment, preset))
    make_folder(folder)
    with sole_writer(folder):
        definition_of(experiment).write(folder / FILE)
        there = [_row_there(cell, folder) for cell in todo]
        missing = [cell for cell, row in zip(todo, there, strict=True) if row is None]
        _tell_of(name_of(experiment), there)
        jobs = min(jobs, max(1, len(missing)))
        if compute is processes and jobs == 1:
            outcomes = here(partial(_attempt, experiment, folder), missing)
        else:  # modules do not pickle, so other processes get names
            outcomes = compute(jobs, partial(_attempt, experiment.__name__, folder.resolve()), missing)
        failed = _failed(outcomes, len(todo), len(missing))
        if failed:
            raise TightlipError(f"{len(failed)} of {len(todo)} cells failed, the others are kept: {'; '.join(failed)}")
        clear(folder)
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


def _failed(outcomes: Outcomes, total: int, missing: int) -> list[str]:
    """Have the cells computed; why some failed."""
    there = total - missing
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


def _attempt(experiment: Experiment | str, folder: Path, cell: Cell) -> str | None:
    """Compute and write one row; why that failed, or None."""
    logger.debug("%s: computing", cell.words)
    module: Any = __import__(experiment, fromlist=["run"]) if isinstance(experiment, str) else experiment
    began = time.perf_counter()
    try:
        with shelf(folder):
            outcome: Outcome = module.run(config_of(module, cell.config), cell.seed)
        if outcome.write is not None:
            make_folder(folder / cell.stem)
            outcome.write(folder / cell.stem)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told, and the other cells go on
        return f"{type(error).__name__}: {error}"
    row = CellRow(
        command="run",
        experiment=cell.experiment,
        preset=cell.preset,
        place=cell.place,
        axes=cell.axes,
        config=cell.config,
        seed=cell.seed,
        data=dict(outcome.data),
        metrics=dict(outcome.metrics),
        drawings=dict(outcome.drawings),
        true_curves=_true_curves(module, outcome.drawings),
        seconds={"total": round(time.perf_counter() - began, 3)},
        **provenance("cpu"),
    )
    make_folder(folder)
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
