"""`tightlip list` and `tightlip run EXPERIMENT`: the studies, cell by cell, each cell one JSON row."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import TightlipError
from ..experiments import EXPERIMENTS
from ..experiments.grid import cells, run_cells, summary_of
from ..report import write_experiment
from ..report.rows import read_groups, text_table
from .options import Machine, writable


@dataclass(frozen=True)
class List:
    """List the experiments that `tightlip run` knows."""

    def __call__(self) -> str:
        """Run; the list."""
        width = max(map(len, EXPERIMENTS))
        return "\n".join(
            f"{name:{width}}  {summary_of(experiment)} "
            f"Cells: {_count(name, 'smoke')} smoke, {_count(name, 'paper')} paper."
            for name, experiment in EXPERIMENTS.items()
        )


@dataclass(frozen=True)
class Run:
    """Run an experiment; cells whose rows are there already are not computed again."""

    experiment: tyro.conf.Positional[str]
    """A name that `tightlip list` shows."""
    preset: Literal["smoke", "paper"] = "smoke"
    """smoke takes seconds, paper has the full sizes."""
    jobs: int = 1
    """Cells computed at once, each in a process of its own."""
    output: Path = Path("runs")
    """Rows and page go to a folder in this one, named after the experiment (and -smoke)."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    def __call__(self) -> str:
        """Run; the table of all rows and where the page is."""
        self.machine.prepare()
        if self.experiment not in EXPERIMENTS:
            known = ", ".join(EXPERIMENTS)
            raise TightlipError(f"no experiment is called {self.experiment!r}: choose one of {known}")
        experiment = EXPERIMENTS[self.experiment]
        preset = experiment.PAPER if self.preset == "paper" else experiment.SMOKE
        name = self.experiment if self.preset == "paper" else f"{self.experiment}-{self.preset}"
        folder = writable(self.output / name)
        run_cells(experiment, preset, folder, self.jobs)
        page = folder / "report.html"
        write_experiment(folder, page)
        return f"{text_table(read_groups(folder))}\n\npage  {page.resolve()}"


def _count(name: str, preset: str) -> int:
    experiment = EXPERIMENTS[name]
    return sum(1 for _ in cells(experiment, experiment.PAPER if preset == "paper" else experiment.SMOKE))
