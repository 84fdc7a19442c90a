"""`tightlip train`: from data to a certified network and a page to look at."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..data.dataset import words_for
from ..decimals import exact, floored, round_up
from ..errors import TightlipError
from ..experiments.classification import Config, Result, run
from ..linkage import MODEL, written_about
from ..locking import sole_writer
from ..provenance import write_json
from ..report import write
from .options import Machine, writable


@dataclass(frozen=True)
class Train:
    """Train a network, prove its Lipschitz constant, certify and attack the test part, and write a page about it."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    name: str | None = None
    """Of the run and its folder (default: data, norm and time)."""
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
        folder, begun = self._folder(), False
        try:
            with sole_writer(folder):
                _pin_config(folder / "config.json", self.config, self.resume)
                begun = True
                return self._train(folder, device)
        except BaseException:
            if begun:
                _remove_if_empty(folder)
            raise

    def _train(self, folder: Path, device: str) -> str:
        page = folder / "report.html"
        if self.resume and (folder / "metrics.json").exists():
            write([folder], page)
            if written_about(folder / MODEL) and not (folder / MODEL).exists():
                raise TightlipError(f"{folder} is complete, but its {MODEL} is gone: restore it, or train anew")
            return f"{folder} is complete already: open {page}"
        if self.resume and (folder / MODEL).exists() and not (folder / "checkpoint.pt").exists():
            raise TightlipError(
                f"{folder} has a {MODEL}, but no metrics.json and no checkpoint to continue from: restore "
                "metrics.json, or train under another --name"
            )
        result = run(self.config, folder, device, self.data_root, self.download, self.resume)
        write([folder], page)
        return _summary(self.config, result, page)

    def _folder(self) -> Path:
        if self.name is not None and Path(self.name).name != self.name:
            raise TightlipError(f"--name must be the name of one folder, and --runs its place, got {self.name!r}")
        if self.resume and self.name is None:
            raise TightlipError("--resume needs the --name of the run to continue")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        data = Path(self.config.data).stem or "data"
        folder = self.runs / (self.name or f"{data}-l{self.config.norm}-{self.config.activation}-{stamp}")
        if folder.exists() and not self.resume:
            raise TightlipError(f"{folder} exists: add --resume to continue it, or choose another --name")
        if self.resume and not folder.exists():
            raise TightlipError(f"there is no run {folder} to resume: check --name and --runs")
        return writable(folder)


def _pin_config(path: Path, config: Config, resume: bool) -> None:
    """A resumed run must have the options that it began with."""
    options = config.resolved
    if resume and path.exists():
        try:
            stored = json.loads(path.read_text())
            began = Config(**{**stored, "hidden": tuple(stored["hidden"])}).resolved
        except (ValueError, TypeError, KeyError) as error:
            raise TightlipError(f"{path} is damaged: delete {path.parent} and train again") from error
        changed = [key for key in options if options[key] != began[key]]
        if changed:
            was = ", ".join(f"{key}={began[key]}" for key in changed)
            raise TightlipError(f"{path.parent} began with {was}: resume it with the same options")
        return
    write_json(path, asdict(config))


def _remove_if_empty(folder: Path) -> None:
    """Nothing half-written: a run that failed before its first checkpoint leaves no folder."""
    if not any(path.name != "config.json" for path in folder.iterdir()):
        (folder / "config.json").unlink(missing_ok=True)
        folder.rmdir()


def _summary(config: Config, result: Result, page: Path) -> str:
    test, bound = result.metrics["test"], result.certificate.bound
    eps = exact(config.radius)
    count, (inputs, _) = result.metrics["data"]["split"]["test"], words_for(result.metrics["data"]["shape"])
    attacked = min(config.attack_images, count)
    of_those = float((result.certificate.radius[:attacked] > config.radius).double().mean())
    return "\n".join(
        [
            f"test accuracy       {floored(test['accuracy']):>6}%",
            f"certified at {eps:<6} {floored(test['certified'][eps]):>6}%   (proven, {config.norm}-norm)",
            f"attacked at {eps:<7} {test['attacked'][eps]:7.2%}   (first {attacked} {inputs})",
            *([f"certified of those  {floored(of_those):>6}%"] if attacked < count else []),
            f"audited constant    {round_up(bound.constant, 9)}",
            f"training            {result.metrics['seconds']['train']:.0f} s on {result.metrics['device']}",
            f"page                {page.resolve()}",
        ]
    )
