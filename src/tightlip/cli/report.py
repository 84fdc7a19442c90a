"""`tightlip report FOLDER…`: the page of one run, or several side by side, of distances, or of experiments' rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import TightlipError
from ..linkage import ABOUT, MODEL, written_about
from ..records import is_regression, read_fields
from ..report import write, write_distances, write_experiments, write_regressions
from ..report.distance import DISTANCE
from ..report.rows import is_experiment
from .options import replaceable
from .places import absent, folder_meant, go_on, is_stopped, runs_in


@dataclass(frozen=True)
class Report:
    """Make one self-contained page from the JSON of one or more folders: of runs, of distances, or of experiments."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(help_behavior_hint="")]
    """Run folders, e.g. runs/first runs/second, or folders of distances or experiments; a file in one stands for it."""
    output: Path | None = None
    """The page to write (default: report.html in the only folder, else ./report.html)."""

    def __call__(self) -> str:
        """Run; where the page is."""
        if not self.runs:
            raise TightlipError("'tightlip report' needs a folder: name what 'tightlip train' or 'tightlip run' wrote")
        named = [folder_meant(path) for path in self.runs]
        page = self.output or (named[0] / "report.html" if len(named) == 1 else Path("report.html"))
        stopped = [folder for folder in named if is_stopped(folder)]
        folders = [folder for folder in named if folder not in stopped]
        if not folders:
            raise TightlipError(f"{_unfinished(stopped[0])}, and there is no other")
        distances = [folder for folder in folders if (folder / DISTANCE).is_file()]
        runs = [folder for folder in folders if folder not in distances and not is_experiment(folder)]
        for folder in runs:
            _check(folder)
        _refuse_mixed(folders, runs, distances)
        regressions = [folder for folder in runs if is_regression(read_fields(folder / "metrics.json"))]
        _refuse_mixed(folders, regressions)
        make = (
            write_regressions if regressions else write if runs else write_distances if distances else write_experiments
        )
        if self.output is not None:
            replaceable(
                page, *(folder / name for folder in folders for name in (MODEL, *ABOUT, DISTANCE, "config.json"))
            )
        make(folders, page)
        return "\n".join([f"page  {page}", *map(_left_out, stopped), *filter(None, map(_unseen, runs))])


def _refuse_mixed(folders: list[Path], *kinds: list[Path]) -> None:
    if any(0 < len(kind) < len(folders) for kind in kinds):
        raise TightlipError(
            "runs of classifiers, of regressions, distances and experiments have pages of their own: name folders of "
            "one kind"
        )


def _left_out(folder: Path) -> str:
    return f"note  {_unfinished(folder)}: it is left out"


def _unfinished(folder: Path) -> str:
    return f"{folder} holds a run that is not finished ({go_on(folder)})"


def _unseen(folder: Path) -> str | None:
    """What the page cannot vouch for: numbers about a model that is not there."""
    if written_about(folder / MODEL) and not (folder / MODEL).exists():
        return f"note  {folder / MODEL} is not there, so it could not be compared with what certificate.json says"
    return None


def _check(folder: Path) -> None:
    """Refuse what holds nothing of a run either."""
    if not folder.is_dir():
        raise absent(folder)
    if not any((folder / name).exists() for name in ABOUT):
        advice = runs_in(folder)
        raise TightlipError(
            f"{folder} holds neither a run nor an experiment{f', but {advice}' if advice else ''}: a run's folder has "
            f"{' and '.join(ABOUT)}, written by 'tightlip train', an experiment's a *_seed*.json for each row, written "
            "by 'tightlip run'"
        )
