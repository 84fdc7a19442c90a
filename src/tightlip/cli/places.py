"""What a path on the command line means: the folder of a run stands for its model, and a file in it for the folder."""

from pathlib import Path

from ..choices import hint
from ..errors import TightlipError
from ..linkage import ABOUT, MODEL
from ..report.distance import DISTANCE

_OF_A_RUN = (MODEL, *ABOUT, DISTANCE, "config.json", "report.html")
_MOST = 5
"""Folders that an error names."""


def folder_meant(path: Path) -> Path:
    """The folder of a run or of an experiment, where one of the files that are written there is given."""
    written = path.name in _OF_A_RUN or path.match("*seed*.json")
    return path.parent if written and path.is_file() else path


def model_meant(path: Path) -> Path:
    """The model in the folder of a run, where the folder is given, or another of the files that are written there.

    Raises:
        TightlipError: if there is none, or no such path.
    """
    folder = path.parent if path.name in (*ABOUT, "config.json", "report.html") and path.is_file() else path
    if not folder.is_dir():
        if not path.exists() and (near := _near(path)):
            raise TightlipError(f"there is no file {path}{near}: give the {MODEL} of a run")
        return path
    if not (folder / MODEL).is_file():
        began = (folder / "config.json").is_file()
        advice = f"its run is not finished: {go_on(folder)}" if began else runs_in(folder)
        raise TightlipError(f"{folder} holds no {MODEL}: {advice or 'give a model, or the folder of a run'}")
    return folder / MODEL


def is_stopped(folder: Path) -> bool:
    """Whether a run began there and has not come to its numbers."""
    began = any((folder / name).is_file() for name in ("config.json", "checkpoint.pt"))
    return began and not any((folder / name).exists() for name in ABOUT)


def go_on(folder: Path) -> str:
    """The command that continues the run of a folder."""
    return f"tightlip train --resume --name {folder.name}"


def runs_in(folder: Path) -> str:
    """The runs, distances and experiments that are in a folder, in words; '' if there are none."""
    found = sorted({path.parent for name in ABOUT for path in folder.glob(f"*/{name}")})
    found += sorted({path.parent for name in (DISTANCE, "*seed*.json") for path in folder.glob(f"*/{name}")} - {*found})
    names = ", ".join(map(str, found[:_MOST])) + (", …" if len(found) > _MOST else "")
    return f"there is {names} in it" if found else ""


def absent(path: Path) -> TightlipError:
    """The sentence for a folder that is not there."""
    if path.exists():
        return TightlipError(f"{path} is a file of neither a run nor an experiment: name the folder of one")
    return TightlipError(
        f"there is no folder {path}{_near(path)}: name one that 'tightlip train' or 'tightlip run' has written"
    )


def _near(path: Path) -> str:
    """' (did you mean runs/mine?)', of what lies beside."""
    beside = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return hint(str(path), beside)
