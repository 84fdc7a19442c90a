"""`tightlip list` and `tightlip run EXPERIMENT`: the studies, cell by cell, each cell one JSON row."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..choices import unknown
from ..errors import TightlipError
from ..experiments import EXPERIMENTS
from ..experiments.cells import cells
from ..experiments.protocol import named
from ..experiments.rows import run_cells
from ..experiments.words import summary_of
from ..report import write_experiments
from ..report.rows import read_groups, text_key, text_table
from .options import Processor, writable


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

    experiment: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="EXPERIMENT", help_behavior_hint="")] = ""
    """A name that `tightlip list` shows; '-' may stand for '_'."""
    preset: Literal["smoke", "paper"] = "smoke"
    """smoke takes seconds, paper has the full sizes."""
    jobs: int = 1
    """Cells computed at once, each in a process of its own."""
    executor: Literal["processes", "ray"] = "processes"
    """Who computes cells: processes of this machine, or a Ray cluster: that of RAY_ADDRESS, or one started here."""
    output: Path = Path("runs")
    """Rows and page go to a folder in this one, named after the experiment (and -smoke)."""
    machine: Annotated[Processor, tyro.conf.arg(name="")] = field(default_factory=Processor)

    def __call__(self) -> str:
        """Run; the table of all rows and where the page is."""
        self.machine.prepare()
        name = _known(self.experiment)
        experiment = EXPERIMENTS[name]
        preset = named(experiment, self.preset)
        folder = writable(self.output / (name if self.preset == "paper" else f"{name}-{self.preset}"))
        run_cells(experiment, preset, folder, self.jobs, self.executor)
        page = folder / "report.html"
        write_experiments([folder], page)
        groups = read_groups(folder)
        parts = (text_table(groups), text_key(groups), f"page  {page.resolve()}")
        return "\n\n".join(filter(None, parts))


def _known(asked: str) -> str:
    """The name of an experiment, with '-' for '_' allowed."""
    name = asked.replace("-", "_")
    if name not in EXPERIMENTS:
        if asked:
            raise unknown("experiment", asked, EXPERIMENTS)
        raise TightlipError(f"'tightlip run' needs the name of an experiment: choose one of {', '.join(EXPERIMENTS)}")
    return name


def _count(name: str, preset: str) -> int:
    experiment = EXPERIMENTS[name]
    return sum(1 for _ in cells(experiment, named(experiment, preset)))
