"""Tiny runs of `train`, `run` and `distance` in processes of their own, and what they leave.

Processes are forked from a server that has imported everything, so that one costs what it computes.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from red_team import cells
from red_team.disk import Before, Disk
from tqdm import tqdm

from tightlip import wasserstein1
from tightlip.cli import distance, main
from tightlip.experiments import EXPERIMENTS
from tightlip.transport import search

SECONDS = 300
"""After which a process is given up."""

FEW = ["tightlip.cli.experiment", "tightlip.report.figures", "matplotlib.backends.backend_svg"]
MANY = [*FEW, "tightlip.cli.distance", "tightlip.cli.train", "torch._dynamo"]  # torch loads it when a training begins
"""What the server imports where few processes are asked of it, and where many are."""

COMMANDS = {
    name: line.split()
    for name, line in {
        "run": "run cells --output runs --preset paper --threads 1",
        "distance": "distance a.npy b.npy --tolerance 0.01 --threads 1 --runs runs --name cells",
        "train": "train --data stripes.npz --hidden 8 --epochs 4 --threads 1 --attack-images 2 --attack-steps 1 "
        "--attack-restarts 1 --runs runs --name cells",
    }.items()
}
"""Each writes into runs/cells; the quickest first."""


@dataclass(frozen=True)
class Life:
    """How a process fared: what it ended with (a signal is negative), and what it said last."""

    code: int
    said: str
    processor: float
    """Seconds that it computed."""


@dataclass(frozen=True)
class Whole:
    """What a command leaves that nothing disturbed, and what that took."""

    left: dict[str, Any]
    processor: float
    operations: int


def serve(modules: list[str]) -> None:
    """The server that is to come imports these."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)


serve(FEW)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder to run in, with data in it; in memory where that is possible."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name).resolve()
        generator = np.random.default_rng(0)
        y = np.arange(60) % 3
        x = generator.integers(0, 60, (60, 6, 6), dtype=np.uint8) + (60 * y[:, None, None]).astype(np.uint8)
        np.savez(folder / "stripes.npz", x=x, y=y)
        np.save(folder / "a.npy", generator.normal(size=(60, 3)))
        np.save(folder / "b.npy", generator.normal(size=(50, 3)) + 0.3)
        yield folder


def words(command: str, folder: Path) -> list[str]:
    """The command line; a run that has begun is resumed."""
    begun = command != "run" and (folder / "runs" / "cells").exists()
    return [*COMMANDS[command], *(["--resume"] if begun else [])]


def lived(task: Callable[..., None], *arguments: Any) -> Life:
    """A process that does this; `task` takes a file for what it says, and these."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.NamedTemporaryFile() as said:
        process = context.Process(target=_alone, args=(said.name, task, arguments))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            return Life(1, "it hangs", 0.0)
        told, _, processor = Path(said.name).read_text().partition("\n#")
        code = process.exitcode
        process.close()
    return Life(code, told, float(processor or "0"))


def _alone(said: str, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """In the process: everything that is said goes into the file."""
    with open(said, "a") as file, open(os.devnull, "w") as nowhere:
        os.dup2(file.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and killed ones would leave it
    torch.set_num_threads(1)
    EXPERIMENTS["cells"] = cells
    search.PATIENCE = search.SPARSE = distance.EVERY = 0.0
    task(*arguments)


def live(command: str, folder: Path, before: Before | None = None, years: float = 0, moment: float = 0) -> None:
    """The command, in this process, which ends with its code.

    Before each operation on a file ``before`` is called; the clock is so many years off; and after so many seconds of
    the processor, unless that is 0, the system ends the process.
    """
    began = time.process_time()
    with wrong_clock(years):
        signal.setitimer(signal.ITIMER_PROF, moment)  # its signal ends a process that does not listen to it
        code = called(command, folder, None if before is None else Disk(folder, before))
        signal.setitimer(signal.ITIMER_PROF, 0)
    leave(code, f"\n#{time.process_time() - began}")


def called(command: str, folder: Path, disk: Disk | None = None) -> int:
    """The command, in this process; its code."""
    os.chdir(folder)
    line = words(command, folder)
    with contextlib.nullcontext() if disk is None else disk.watched():
        return main(line)


def leave(code: int, said: str) -> None:
    """End this process at once, after a last word."""
    sys.stderr.write(said)
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def wrong_clock(years: float) -> Iterator[None]:
    """In here the time of day is so many years off."""
    real, local, written, off = time.time, time.localtime, time.strftime, years * 365 * 86400
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + off)
        patch.setattr(time, "localtime", lambda at=None: local(real() + off if at is None else at))
        patch.setattr(
            time, "strftime", lambda words, at=None: written(words, local(real() + off) if at is None else at)
        )
        yield


@functools.cache
def whole(command: str) -> Whole:
    """What it leaves where nothing happens."""
    with place() as folder:
        life = lived(_counted, command, folder)
        assert life.code == 0, life.said
        return Whole(left(command, folder), life.processor, int((folder / "operations").read_text()))


def _counted(command: str, folder: Path) -> None:
    disk, began = Disk(folder), time.process_time()
    code = called(command, folder, disk)
    (folder / "operations").write_text(str(len(disk.operations)))
    leave(code, f"\n#{time.process_time() - began}")


def left(command: str, folder: Path) -> dict[str, Any]:
    """What must be the same however often it was stopped: every name, models byte by byte, numbers to the last bit."""
    root = folder / "runs"
    found: dict[str, Any] = {str(path.relative_to(root)): None for path in sorted(root.rglob("*"))}
    for name in found:
        path = root / name
        if path.suffix == ".json":
            row = json.loads(path.read_text())
            _refuse_negative(row, name)
            found[name] = _timeless(row)
        if path.name in ("model.safetensors", "certificate.json"):
            found[name] = path.read_bytes()
    if command == "distance":  # it is stopped by the clock, so that only what is proven can be compared
        row = json.loads((root / "cells" / "distance.json").read_text())
        found["cells/distance.json"] = None
        true = _true_distance()
        held = row["lower"] <= true[1] and true[0] <= row["upper"] <= row["lower"] / 0.99 + 1e-12
        found["proven"] = held and row["history"]["seconds"] == sorted(row["history"]["seconds"])
    return found


@functools.cache
def _true_distance() -> tuple[float, float]:
    with place() as folder:
        found = wasserstein1(np.load(folder / "a.npy"), np.load(folder / "b.npy"), tolerance=0, progress=False)
    return found.lower, found.upper


def _timeless(value: Any) -> Any:
    """Without what the clock and the machine say."""
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items() if name not in _OF_THE_CLOCK}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


_OF_THE_CLOCK = {"seconds", "cpu_seconds", "commit", "dirty", "made_with"}


def _refuse_negative(value: Any, where: str) -> None:
    """Durations."""
    if isinstance(value, dict):
        for name, inner in value.items():
            numbers = inner if isinstance(inner, list) else inner.values() if isinstance(inner, dict) else [inner]
            bad = name in ("seconds", "cpu_seconds") and any((number or 0) < 0 for number in numbers)
            assert not bad, f"{name} of {where} is negative: {inner}"
            _refuse_negative(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _refuse_negative(inner, where)


def age(folder: Path, years: float) -> None:
    """All files were written so many years from now."""
    for path in folder.rglob("*"):
        os.utime(path, times=(time.time() + years * 365 * 86400,) * 2)
