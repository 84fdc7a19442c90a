"""What several commands share: machine options, and the places that they write to."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ..arguments import integer
from ..atomic import discard, make_folder, replacing
from ..data.folder import SUFFIXES as PICTURES
from ..errors import TightlipError


@dataclass(frozen=True)
class Machine:
    """Where and how a command computes; nothing here changes what is computed beyond rounding."""

    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU if there is one."""
    threads: int | None = None
    """Processor threads (default: torch's choice)."""
    verbose: bool = False
    """Log more, such as every epoch."""

    def prepare(self) -> str:
        """Set threads and logging; the device's name, checked."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("tightlip").setLevel(logging.DEBUG if self.verbose else logging.INFO)
        if self.threads is not None:
            torch.set_num_threads(integer("--threads", self.threads, most=4096))
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            if torch.empty(1, device=name).is_meta:
                raise RuntimeError("meta tensors hold no numbers")
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise TightlipError(
                f"--device {name} is not available here: use cpu, or cuda with a torch built for it"
            ) from error
        return name


@dataclass(frozen=True)
class Processor(Machine):
    """A `Machine` that computes on the processor alone."""

    device: str = "cpu"
    """cpu, the only one: experiments compute on the processor."""

    def prepare(self) -> str:
        """As of `Machine`; any device but the processor is refused."""
        if self.device not in ("cpu", "auto"):
            raise TightlipError(
                f"--device {self.device} is not possible here: experiments compute on the processor, as their "
                "published rows did; leave it out"
            )
        super().prepare()
        return "cpu"


def writable(folder: Path) -> Path:
    """``folder``, made if absent, proven writable.

    Raises:
        TightlipError: if it cannot be made or written to.
    """
    make_folder(folder)
    probe = folder / ".writable"
    try:
        probe.touch()
    except OSError as error:
        raise TightlipError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from error
    discard(probe)  # or another command has, that proves the same folder
    return folder


def _belongs(path: Path, source: Path) -> bool:
    """Whether writing to a path would change a source."""
    place, kept = path.resolve(), source.resolve()
    inside = kept in place.parents and place.exists() and place.suffix.lower() in (*PICTURES, ".npy")
    same = path.exists() and source.exists() and path.samefile(source)
    return same or place == kept or inside


class _Proven(Exception):  # noqa: N818  nothing went wrong
    """The file could be written."""


def replaceable(path: Path, *sources: str | Path) -> Path:
    """``path``, proven to be a file that can be written, and left as it is.

    Raises:
        TightlipError: as `replacing`, before any time is spent on what to write; or if it is one of the sources, or an
            image or array in one that is a folder.
    """
    if any(_belongs(path, Path(source)) for source in sources):
        raise TightlipError(f"{path} is read or written by this command already: give the name of another file")
    with contextlib.suppress(_Proven), replacing(path):
        raise _Proven
    return path
