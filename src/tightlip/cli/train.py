"""`tightlip train`: from data to a certified network and a page to look at."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..data.dataset import words_for
from ..decimals import exact, floored, round_up
from ..errors import TightlipError
from ..experiments.certified_run import Result, run
from ..experiments.classification_options import Config
from ..interruption import Stopped
from ..linkage import MODEL, written_about
from ..locking import sole_writer
from ..report import write
from .folders import CHECKPOINT, new_folder, pin_config, remove_if_empty, unfinished
from .options import Machine, writable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Train:
    """Train a network, prove its Lipschitz constant, certify and attack the test part, and write a page about it."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    name: str | None = None
    """Of the run and its folder (default: data, norm, activation and time; or that of a stopped run of the same
    options, which goes on)."""
    runs: Path = Path("runs")
    """Folder that run folders are made in."""
    resume: bool = False
    """Continue the run of this --name where it stopped."""
    data_root: str | None = None
    """Folder with data sets (default: the environment's TIGHTLIP_DATA)."""
    download: bool = False
    """Fetch an absent data set from its mirrors."""

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
            if begun:
                remove_if_empty(folder)
            if isinstance(problem, KeyboardInterrupt) and folder.exists():
                raise Stopped(folder.name) from problem
            raise

    def _train(self, folder: Path, device: str, resume: bool) -> str:
        page = folder / "report.html"
        if resume and (folder / "metrics.json").exists():
            write([folder], page)
            if written_about(folder / MODEL) and not (folder / MODEL).exists():
                raise TightlipError(f"{folder} is complete, but its {MODEL} is gone: restore it, or train anew")
            return f"{folder} is complete already: open {page}"
        if resume and (folder / MODEL).exists() and not (folder / CHECKPOINT).exists():
            raise TightlipError(
                f"{folder} has a {MODEL}, but no metrics.json and no checkpoint to continue from: restore "
                "metrics.json, or train under another --name"
            )
        result = run(self.config, folder, device, self.data_root, self.download, resume)
        write([folder], page)
        return _summary(self.config, result, page)

    @property
    def _stem(self) -> str:
        """What a folder without a name of its own is called, before the time."""
        network = "" if self.config.network == "mlp" else f"{self.config.network}-"
        return f"{Path(self.config.data).stem or 'data'}-{network}l{self.config.norm}-{self.config.activation}"

    def _folder(self) -> Path:
        if self.name is not None and Path(self.name).name != self.name:
            place, name = Path(self.name).parent, Path(self.name).name
            meant = f"{self.name!r}: give --runs {place} --name {name}" if name else repr(self.name)
            raise TightlipError(f"--name must be the name of one folder, and --runs its place, got {meant}")
        if self.name is None:
            if self.resume:
                raise TightlipError(
                    "--resume needs the --name of the run to continue; without either, the latest stopped run of these "
                    "options goes on"
                )
            return new_folder(self.runs, self._stem)
        folder = self.runs / self.name
        if folder.exists() and not self.resume:
            raise TightlipError(f"{folder} exists: add --resume to continue it, or choose another --name")
        if self.resume and not folder.exists():
            raise TightlipError(f"there is no run {folder} to resume: check --name and --runs")
        return writable(folder)


def _summary(config: Config, result: Result, page: Path) -> str:
    row, test, bound = result.row, result.row.test, result.certificate.bound
    eps = exact(config.radius)
    count, (inputs, _) = row.data.split["test"], words_for(row.data.shape.tolist())
    attacked = min(config.attack_images, count)
    of_those = float((result.certificate.radius[:attacked] > config.radius).double().mean())
    return "\n".join(
        [
            f"test accuracy       {floored(test.accuracy):>6}%",
            f"certified at {eps:<6} {floored(test.certified[eps]):>6}%   (proven, {config.norm}-norm)",
            f"attacked at {eps:<7} {test.attacked[eps]:7.2%}   (first {attacked} {inputs})",
            *([f"certified of those  {floored(of_those):>6}%"] if attacked < count else []),
            f"audited constant    {round_up(bound.constant, 9)}",
            f"training            {row.seconds['train']:.0f} s on {row.device}",
            f"page                {page.resolve()}",
        ]
    )
