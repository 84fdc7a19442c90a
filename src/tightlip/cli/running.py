"""What every training on the command line has: a folder of its own, that a stopped run goes on in."""

import abc
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import TightlipError
from ..experiments.leaving import clear
from ..interruption import Stopped
from ..linkage import MODEL, written_about
from ..locking import sole_writer
from .folders import CHECKPOINT, named_folder, new_folder, pin_config, remove_if_empty, unfinished
from .options import Machine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Running(abc.ABC):
    """A command that trains; a subclass has a ``config``, and says how a run is called, computed and shown."""

    config: Any
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    name: str | None = None
    """Of the run and its folder (default: of the data, what differs from the defaults, and the time; or that of a
    stopped run of the same options, which goes on)."""
    runs: Path = Path("runs")
    """Folder that run folders are made in."""
    resume: bool = False
    """Continue the run of this --name where it stopped."""

    @property
    @abc.abstractmethod
    def _stem(self) -> str:
        """What a folder without a name of its own is called, before the time."""

    @abc.abstractmethod
    def _compute(self, folder: Path, device: str, resume: bool) -> str:
        """Train into the folder and make its page; the sentences to print."""

    @abc.abstractmethod
    def _show(self, folder: Path, page: Path) -> None:
        """Make the page of what is in the folder."""

    def __call__(self) -> str:
        """Run; the sentence to print."""
        device = self.machine.prepare()
        for folder in self._stopped():
            logger.info("%s: going on with this stopped run of the same options (for a new one give --name)", folder)
            try:
                return self._at(folder, device, resume=True)
            except TightlipError as problem:
                if str(folder / CHECKPOINT) not in str(problem):
                    raise
                logger.info("%s; so a new run begins", problem)
        return self._at(self._folder(), device, self.resume)

    def _stopped(self) -> Iterator[Path]:
        """Runs to go on with that were given no name, and stopped."""
        return iter(()) if self.name is not None or self.resume else unfinished(self.runs, self._stem, self.config)

    def _at(self, folder: Path, device: str, resume: bool) -> str:
        """Train in this folder."""
        begun = False
        try:
            with sole_writer(folder):
                pin_config(folder, self.config, resume)
                begun = True
                return self._train(folder, device, resume)
        except BaseException as problem:
            if begun or not resume:  # a new folder is nobody else's
                remove_if_empty(folder)
            if isinstance(problem, KeyboardInterrupt) and folder.exists():
                raise Stopped(folder.name) from problem
            raise

    def _train(self, folder: Path, device: str, resume: bool) -> str:
        page = folder / "report.html"
        if resume and (folder / "metrics.json").exists():
            self._show(folder, page)
            if written_about(folder / MODEL) and not (folder / MODEL).exists():
                raise TightlipError(f"{folder} is complete, but its {MODEL} is gone: restore it, or train anew")
            clear(folder)  # of a run that was killed at the very end
            return f"{folder} is complete already: open {page}"
        if resume and (folder / MODEL).exists() and not (folder / CHECKPOINT).exists():
            raise TightlipError(
                f"{folder} has a {MODEL}, but no metrics.json and no checkpoint to continue from: restore "
                "metrics.json, or train under another --name"
            )
        return self._compute(folder, device, resume)

    def _folder(self) -> Path:
        if self.name is not None:
            return named_folder(self.runs, self.name, self.resume)
        if self.resume:
            raise TightlipError(
                "--resume needs the --name of the run to continue; without either, the latest stopped run of these "
                "options goes on"
            )
        return new_folder(self.runs, self._stem)
