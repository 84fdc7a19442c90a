"""Everything that a resumed run needs, in one file that is replaced whole."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..atomic import replacing
from ..errors import TightlipError

FORMAT = 2
"""Of the file."""


def writable(checkpoint: Path | str | None) -> Path | None:
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


class State:
    """Network, optimizer and schedule, the rows so far, and the weights of the best one."""

    def __init__(self, network: nn.Module, engine: Optimizer, scheduler: LRScheduler | None, path: Path | None) -> None:
        self.network, self.path = network, path
        self.parts: dict[str, Any] = {"network": network, "optimizer": engine} | (
            {"scheduler": scheduler} if scheduler else {}
        )
        self.key: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"score": -math.inf}

    def record(self, row: dict[str, float]) -> None:
        """Add a row; its weights are the best if none scored more. Without a score the last row is the best."""
        self.history.append(row)
        score = row.get("validation_score", math.inf)
        if score >= self.best["score"]:
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = {"score": score, "network": weights}
        if self.path is None:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"format": FORMAT, "key": self.key, "history": self.history, "best": self.best}
        with replacing(self.path) as partial_file:
            torch.save(state, partial_file)

    def restore(self, device: str | torch.device) -> None:
        """Go back to what the file holds.

        Raises:
            TightlipError: if it cannot be read, or belongs to a run of another `key`, naming what differs.
        """
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)  # type: ignore[arg-type]
            known, key = state["format"] == FORMAT, dict(state["key"])
        except Exception as error:
            raise TightlipError(f"{self.path} cannot be read as a checkpoint: delete it to start afresh") from error
        if not known:
            raise TightlipError(f"{self.path} belongs to another run, of another version of tightlip: delete it")
        differing = [name for name in sorted({*key, *self.key}) if key.get(name) != self.key.get(name)]
        if differing:
            raise TightlipError(
                f"{self.path} belongs to another run, whose {', '.join(differing)} differed: resume with the same "
                "options, data and network, or delete it"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history, self.best = state["history"], state["best"]
