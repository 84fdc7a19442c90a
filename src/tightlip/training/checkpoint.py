"""Everything that a resumed run needs, in one file that is replaced whole, and read only as it was written."""

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..atomic import replacing
from ..errors import TightlipError
from ..torch_files import written_by_torch
from .identity import identity

FORMAT = 3
"""Of the file."""

_OURS = {"format", "key", "best"}
"""What checkpoints of every format hold, and at least two of them where one was damaged."""


def writable(checkpoint: Any) -> Path | None:
    """The path, if a file can be written there.

    Raises:
        TightlipError: if its folder is absent or closed, or it is a folder itself.
    """
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | os.PathLike):
        raise TightlipError(f"checkpoint must be a path, got a {type(checkpoint).__name__}: give a Path or a str")
    path = Path(checkpoint)
    if not path.name or path.is_dir():
        raise TightlipError(f"{path} cannot be written to (Is a directory): give the name of a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise TightlipError(f"{path} cannot be written to: its folder is absent or closed; make it or choose another")
    return path


class _ForeignError(TightlipError):
    """A file of torch.save that is somebody else's."""


def _foreign(path: Path) -> _ForeignError:
    return _ForeignError(f"{path} is a torch file (torch.save) that fit did not write: name another path")


class State:
    """Network, average, optimizer, schedule and the order's generators, the rows so far, and the best one's weights."""

    def __init__(
        self,
        network: nn.Module,
        engine: Optimizer,
        scheduler: LRScheduler | None,
        generators: Sequence[torch.Generator] = (),
        path: Path | None = None,
        average: nn.Module | None = None,
    ) -> None:
        self.network, self.path, self.generators = network, path, generators
        self.parts: dict[str, Any] = {"optimizer": engine} | ({"scheduler": scheduler} if scheduler else {})
        self.parts |= {"average": average} if average is not None else {}
        self.parts["network"] = network  # last: what fails before it leaves the network as it is
        self.key: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"score": -math.inf}
        self.still_sole: Callable[[], None] = lambda: None

    def record(self, row: dict[str, float], judged: nn.Module) -> None:
        """Add a row; the weights ``judged`` are the best if none scored more. Without a score the last are."""
        self.history.append(row)
        score = row.get("validation_score", math.inf)
        if score >= self.best["score"]:
            weights = {name: value.detach().clone() for name, value in judged.state_dict().items()}
            self.best = {"score": score, "network": weights}
        if self.path is None:
            return
        state = self._state()
        self.still_sole()
        with replacing(self.path) as partial_file:
            torch.save(state, partial_file)

    def begin(self, resume: bool, device: torch.device) -> None:
        """Go back to what the file holds, if there is one and the caller asks for it.

        Raises:
            TightlipError: if there is one and nobody asks for it, since it would be overwritten; if it cannot be read,
                or belongs to a run of another `key`, naming what differs; if a state cannot be kept in a file.
        """
        if self.path is None:
            return
        self._refuse_unreadable()
        if not self.path.exists():
            return
        if not resume:
            raise TightlipError(f"{self.path} exists and would be overwritten: {self._instead()}")
        self._restore(self._read(device))

    def _state(self) -> dict[str, Any]:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"format": FORMAT, "key": self.key, "history": self.history, "best": self.best}
        state["generators"] = [generator.get_state() for generator in self.generators]
        return state | {"sha256": identity(state, "the checkpoint")}

    def _refuse_unreadable(self) -> None:
        """Before an epoch is spent: files are read without running code of theirs, so not every object can be kept."""
        for name, part in self.parts.items():
            if name in ("network", "average"):
                continue
            file = io.BytesIO()
            try:
                torch.save(part.state_dict(), file)
                torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            except Exception as problem:
                raise TightlipError(
                    f"the state of the {name} cannot be kept in a checkpoint ({str(problem).splitlines()[0]}): choose "
                    "another, or leave checkpoint out"
                ) from problem

    def _read(self, device: torch.device) -> dict[str, Any]:
        """What the file holds, if it is what was written, by this run's recipe."""
        assert self.path is not None
        try:
            content = io.BytesIO(self.path.read_bytes())
        except OSError as error:
            raise TightlipError(f"{self.path} cannot be read ({error.strerror}): check its permissions") from error
        state: Any = None
        try:
            state = torch.load(content, map_location=device, weights_only=True)
            if not isinstance(state, dict) or len(_OURS & state.keys()) < 2:
                raise _foreign(self.path)
            version, key = state["format"], dict(state["key"])
        except (MemoryError, torch.OutOfMemoryError, TightlipError):
            raise
        except Exception as error:
            if state is None and written_by_torch(self.path):
                raise _foreign(self.path) from error
            raise TightlipError(f"{self.path} cannot be read as a checkpoint: delete it to start afresh") from error
        if version != FORMAT:
            raise TightlipError(f"{self.path} belongs to another run, of another version of tightlip: delete it")
        differing = [name for name in sorted({*key, *self.key}) if key.get(name) != self.key.get(name)]
        if differing:
            raise TightlipError(
                f"{self.path} belongs to another run, whose {', '.join(differing)} differed: resume with the same "
                "options, data and network, or delete it"
            )
        if state.pop("sha256", None) != identity(state, "the checkpoint"):
            raise TightlipError(
                f"{self.path} is damaged, as a checkpoint that was changed after it was written: restore it, or delete "
                "it to start afresh"
            )
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for generator, position in zip(self.generators, state["generators"], strict=True):
            generator.set_state(position.cpu())
        self.history, self.best = state["history"], state["best"]

    def _instead(self) -> str:
        """What a caller may want who names a file that exists."""
        try:
            done = len(self._read(torch.device("cpu"))["history"])
        except _ForeignError:
            return "it is a torch file that fit did not write, so name another path"
        except TightlipError:
            advice = "it is not of this very training, so name another file (resume=True continues the same one)"
            return f"{advice}, or delete it"
        return f"add resume=True to go on from epoch {done} of this very training, or delete it"
