"""An experiment of three short cells, each of which goes on where it was stopped, and shares with the others."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tightlip.experiments.protocol import Outcome, Preset
from tightlip.experiments.shelf import Progress, kept
from tightlip.provenance import write_json

STEPS = 4


@dataclass(frozen=True)
class Config:
    number: int = 0


GRID = {"number": (0, 1, 2)}
SMOKE = PAPER = Preset()


def run(config: Config, seed: int) -> Outcome:
    shared = kept({"walk": "of all"}, partial(_walk, seed))["path"]
    own = kept({"walk": config.number}, partial(_walk, config.number))["path"]
    paths = {"shared": shared.tolist(), "own": own.tolist()}
    return Outcome({"end": float((shared + own)[-1])}, write=lambda folder: _write(folder, paths))


def _walk(seed: int, progress: Progress) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    path = torch.zeros(1)
    if (state := progress.read()) is not None:
        generator.set_state(state["generator"])
        path = state["path"]
    while len(path) < STEPS:
        path = torch.cat([path, path[-1:] + torch.randn(1, generator=generator)])
        progress.write({"generator": generator.get_state(), "path": path})
    return {"path": path}


def _write(folder: Path, paths: dict[str, list[float]]) -> None:
    write_json(folder / "paths.json", paths)
