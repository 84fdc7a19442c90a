"""Cells of which the second is killed the first time that it is computed: it leaves a file behind."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from tightlip.experiments.protocol import Outcome, Preset


@dataclass(frozen=True)
class Config:
    number: int = 0
    folder: str = ""


GRID = {"number": (0, 1, 2)}
SMOKE = PAPER = Preset()


def run(config: Config, seed: int) -> Outcome:
    grave = Path(config.folder) / "grave"
    if config.folder and config.number == 1 and not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    drawn = torch.randn(3, generator=torch.Generator().manual_seed(config.number))
    return Outcome({"sum": float(drawn.sum()), "threads": torch.get_num_threads()})
