"""`tightlip train`: from data to a certified network and a page to look at."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..data.dataset import called, words_for
from ..decimals import bracketed, exact, floored, round_up
from ..errors import TightlipError
from ..experiments.certified_run import Result, run
from ..experiments.classification_options import Config
from ..interruption import Stopped
from ..linkage import MODEL, written_about
from ..locking import sole_writer
from ..report import write
from ..robustness import wilson
from .folders import CHECKPOINT, named_folder, new_folder, pin_config, remove_if_empty, unfinished
from .options import Machine

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
        usual = {"mlp", replace(self.config, method=None).way}
        words = "".join(f"{name}-" for name in (self.config.network, self.config.way) if name not in usual)
        return f"{Path(self.config.data).stem or 'data'}-{words}l{self.config.norm}-{self.config.activation}"

    def _folder(self) -> Path:
        if self.name is not None:
            return named_folder(self.runs, self.name, self.resume)
        if self.resume:
            raise TightlipError(
                "--resume needs the --name of the run to continue; without either, the latest stopped run of these "
                "options goes on"
            )
        return new_folder(self.runs, self._stem)


def _summary(config: Config, result: Result, page: Path) -> str:
    row, certificate, eps = result.row, result.certificate, config.radius
    proven = f"proven, {config.norm}-norm"
    return "\n".join(
        [
            _line("test accuracy", floored(row.test.accuracy), certificate.interval(0), "95% Wilson intervals"),
            _worst(result, 0.0),
            _line(f"certified at {exact(eps)}", floored(certificate.accuracy(eps)), certificate.interval(eps), proven),
            _worst(result, eps),
            *_attacked(result, eps),
            f"audited constant    {round_up(certificate.bound.constant, 9)}",
            f"training            {row.seconds['train']:.0f} s on {row.device}",
            f"page                {page.resolve()}",
        ]
    )


def _attacked(result: Result, eps: float) -> Iterator[str]:
    """The accuracy under attack, and the certified one of the same inputs where these are not all."""
    count, share = result.attacked.images, result.row.test.attacked[exact(eps)]
    interval, radius = wilson(round(share * count), count), result.certificate.radius
    nearest = f"{share:.2%}".removesuffix("%")
    yield _line(f"attacked at {exact(eps)}", nearest, interval, f"first {count} {_inputs(result)}")
    if count < len(radius):
        certified = int((radius[:count] > eps).sum())
        yield _line("certified of those", floored(certified / count), wilson(certified, count))


def _worst(result: Result, eps: float) -> str:
    worst = result.certificate.worst_class(eps)
    name = called(worst.label, result.row.data.class_names)
    note = f"class {name}, {worst.support} {_inputs(result)}"
    return _line("worst class", floored(worst.accuracy), worst.interval(), note)


def _inputs(result: Result) -> str:
    return words_for(result.row.data.shape.tolist())[0]


def _line(words: str, share: str, interval: tuple[float, float], note: str = "") -> str:
    """An accuracy, what the test part tells of it, and how it was come by."""
    return f"{words:<19} {share:>6}%   {bracketed(interval):<18}{f' ({note})' if note else ''}".rstrip()
