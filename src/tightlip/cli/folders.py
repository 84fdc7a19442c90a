"""The folder of a run: a new one, or the one of a run that was stopped, with the options that it began with."""

import contextlib
import itertools
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..atomic import discard, make_folder
from ..errors import TightlipError
from ..experiments.pace import PACE
from ..locking import sole_writer
from ..provenance import commit, versions, write_json
from .options import writable

logger = logging.getLogger(__name__)


@runtime_checkable
class Options(Protocol):
    """The options of a training, as a dataclass."""

    @property
    def resolved(self) -> dict[str, Any]:
        """By name, with their defaults."""
        ...


CONFIG, CHECKPOINT = "config.json", "checkpoint.pt"


def unfinished(runs: Path, stem: str, config: Options) -> Iterator[Path]:
    """Stopped runs of the very same options and the same version, called ``stem`` and a time; the latest first.

    Runs that another process is at work on are left to it.
    """
    found = [path.parent for path in runs.glob(f"*/{CHECKPOINT}") if not (path.parent / "metrics.json").exists()]
    for folder in sorted(found, key=lambda folder: _time(folder / CHECKPOINT), reverse=True):
        named = re.fullmatch(rf"{re.escape(stem)}-\d{{8}}-\d{{6}}(-\d+)?", folder.name)
        if named and _began(folder, type(config)) == (config.resolved, _made_with()) and _is_free(folder):
            yield folder


def new_folder(runs: Path, stem: str) -> Path:
    """A folder called ``stem`` and the time, and a number where that is taken; made."""
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        folder = writable(runs) / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            make_folder(folder, anew=True)
            break
    return folder


def named_folder(runs: Path, name: str, resume: bool) -> Path:
    """The folder of this name: one that is there if a run is resumed, and a new one if not; made.

    Raises:
        TightlipError: if the name is a path, or the folder is there, or is not.
    """
    if Path(name).name != name:
        place, last = Path(name).parent, Path(name).name
        meant = f"{name!r}: give --runs {place} --name {last}" if last else repr(name)
        raise TightlipError(f"--name must be the name of one folder, and --runs its place, got {meant}")
    folder = runs / name
    if folder.exists() and not resume:
        raise TightlipError(f"{folder} exists: add --resume to continue it, or choose another --name")
    if resume and not folder.exists():
        raise TightlipError(f"there is no run {folder} to resume: check --name and --runs")
    return writable(folder)


def pin_config(folder: Path, config: Options, resume: bool) -> None:
    """Write the options into a new folder; a resumed run must have those that it began with.

    Raises:
        TightlipError: if they differ, or cannot be read.
    """
    path = folder / CONFIG
    if not resume or not path.exists():
        write_json(path, vars(config) | {"made_with": _made_with()})
        return
    began = _began(folder, type(config))
    if began is None:
        raise TightlipError(
            f"{path} is damaged, or of another kind of training: delete {folder} and train again, or choose another "
            "--name"
        )
    options, (stored, made_with) = config.resolved, began
    if changed := [key for key in options if options[key] != stored[key]]:
        was = ", ".join(f"{key}={stored[key]}" for key in changed)
        raise TightlipError(f"{folder} began with {was}: resume it with the same options")
    if made_with not in (None, _made_with()):
        logger.info("%s began with another version (%s)", folder, ", ".join(_differing(made_with)))


def remove_if_empty(folder: Path) -> None:
    """Nothing half-written: a run that failed before its first checkpoint leaves no folder, if the disk lets it go."""
    with contextlib.suppress(OSError):
        if all(path.name in (CONFIG, PACE) for path in folder.iterdir()):
            discard(folder / CONFIG)
            discard(folder / PACE)
            folder.rmdir()


def _began(folder: Path, kind: type[Any]) -> tuple[dict[str, Any], Any] | None:
    """The options of a run, of this kind, and what it was made with, None of an earlier version; None if unreadable."""
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        made_with = stored.pop("made_with", None)
        options: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        return kind(**{**getattr(kind, "BEFORE", {}), **options}).resolved, made_with
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _made_with() -> dict[str, Any]:
    """What the numbers of a run depend on beside its options: the commit, and versions."""
    head, dirty = commit()
    return {"commit": head, "dirty": dirty, **versions()}


def _differing(made_with: Any) -> list[str]:
    now, then = _made_with(), made_with if isinstance(made_with, dict) else {}
    return [f"{name} {then.get(name)}" for name in now if then.get(name) != now[name]]


def _is_free(folder: Path) -> bool:
    """Whether no other process writes there."""
    try:
        with sole_writer(folder):
            return True
    except TightlipError:
        return False


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0
