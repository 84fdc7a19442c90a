"""Everything that reads a file, with a good file for each; and what a reader may do with a damaged one.

It may return, or raise one `TightlipError` of one line. It may not raise anything else, warn, run for more than some
seconds, or ask for more memory than four times the file.
"""

import atexit
import os
import random
import shutil
import signal
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which torch imports sooner or later, and that takes memory
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tightlip import MaxMin, Residual, RowL1Ball, Scale, TightlipError, fit, freeze, load, mlp, save
from tightlip.cli import main
from tightlip.cli.models import found
from tightlip.cli.report import Report
from tightlip.data import load as load_data
from tightlip.data.idx import parse
from tightlip.data.points import read_points

from .damage import damaged

TIMES, SLACK, PAGE = 4, 1 << 20, 1 << 24
"""Bytes that may be asked for: so many times the file's, and what any call needs, or one that draws a page."""

SECONDS = 20
"""Until a reader is said to hang."""


@dataclass(frozen=True)
class Reader:
    """A file's name, what writes a good one into a folder, and what reads it."""

    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    slack: int = SLACK


def _network() -> nn.Module:
    torch.manual_seed(0)
    block = Residual(nn.Linear(4, 4), MaxMin())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 4), MaxMin(), block, nn.BatchNorm1d(4), nn.Linear(4, 3), Scale(0.1)
    ).eval()


def _blobs(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(n) % 2
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0)) + 2.0 * y[:, None], y


_LOSS = nn.CrossEntropyLoss()


def _fitted(path: Path) -> object:
    torch.manual_seed(0)
    network = mlp([4, 4, 2], RowL1Ball())
    data = _blobs()
    return fit(network, _LOSS, data, data, epochs=2, progress=False, checkpoint=path)


def _resumed(path: Path) -> object:
    torch.manual_seed(0)
    network = mlp([4, 4, 2], RowL1Ball())
    data = _blobs()
    return fit(network, _LOSS, data, data, epochs=2, progress=False, checkpoint=path, resume=True)


def _csv(path: Path) -> object:
    rows = "".join(f"{i / 7:.4f};{-i};{i % 3}\n" for i in range(12))
    return path.write_text('"height";width;kind\n' + rows)


def _npz(path: Path, rows: int = 12) -> None:
    x = np.random.default_rng(0).random((rows, 4), dtype=np.float32)
    np.savez(path, x=x, y=np.arange(rows) % 3)


def _idx(path: Path) -> object:
    return path.write_bytes(b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 4, 5)) + bytes(60))


@cache
def _made(*command: str) -> Path:
    """The folder that a command wrote, of tiny data."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    _npz(home / "d.npz", 60)
    here = os.getcwd()
    os.chdir(home)
    try:
        if main([*command, "--threads", "1"]) != 0:
            raise RuntimeError(f"tightlip {' '.join(command)} failed")
    finally:
        os.chdir(here)
    return next(path for path in (home / "runs").iterdir())


def _run() -> Path:
    return _made("train", "--data", "d.npz", "--hidden", "4", "--epochs", "2", "--attack-images", "2", "--name", "r")


def _cells() -> Path:
    return _made("run", "folding")


def _distance() -> Path:
    return _made("distance", "d.npz:x", "d.npz:x", "--name", "r")


def _copied(folder: Callable[[], Path], pattern: str) -> Callable[[Path], object]:
    return lambda path: shutil.copy(next(folder().glob(pattern)), path)


def _page(folder: Callable[[], Path], pattern: str) -> Callable[[Path], object]:
    """Reads and draws the folder, one of whose files is this one."""

    def read(path: Path) -> object:
        own = next(folder().glob(pattern))
        for other in folder().iterdir():
            if other.is_file() and other != own and other.suffix != ".html":
                shutil.copy(other, path.parent / other.name)
        return Report((path.parent,))()

    return read


def _exported(path: Path) -> None:
    torch.export.save(
        torch.export.export(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (torch.ones(2, 4),)), path
    )


READERS: dict[str, Reader] = {
    "model": Reader("m.safetensors", lambda path: save(_network(), path), load),
    "held model": Reader("m.safetensors", lambda path: save(freeze(mlp([4, 4, 2])), path), load),
    "exported": Reader("m.pt2", _exported, lambda path: found(str(path))),
    "checkpoint": Reader("c.pt", _fitted, _resumed),
    "metrics": Reader("metrics.json", _copied(_run, "metrics.json"), _page(_run, "metrics.json"), PAGE),
    "certificate": Reader("certificate.json", _copied(_run, "certificate.json"), _page(_run, "certificate.json"), PAGE),
    "cell": Reader("seed0.json", _copied(_cells, "*seed*.json"), _page(_cells, "*seed*.json"), PAGE),
    "distance": Reader("distance.json", _copied(_distance, "distance.json"), _page(_distance, "distance.json"), PAGE),
    "npz": Reader("d.npz", _npz, load_data),
    "npy": Reader(
        "d.npy", lambda path: np.save(path, np.arange(24.0).reshape(6, 4)), lambda path: read_points(str(path))
    ),
    "csv": Reader("d.csv", _csv, lambda path: read_points(str(path))),
    "idx": Reader("d", _idx, lambda path: parse(path.read_bytes(), str(path))),
}


class _Allocations(TorchDispatchMode):
    """The most bytes of one tensor that an operation made."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        return result


def _size(path: Path) -> int:
    """Of the file, and of what is compressed in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return path.stat().st_size + sum(info.file_size for info in archive.infolist())
    except Exception:  # noqa: BLE001  it is no archive, or a damaged one
        return path.stat().st_size


def complaint(reader: Reader, path: Path) -> str | None:
    """What the reader of a damaged file did and may not do."""

    def hangs(*_: Any) -> None:
        raise TimeoutError(f"no answer after {SECONDS} s")

    before, size = signal.signal(signal.SIGALRM, hangs), _size(path)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        with warnings.catch_warnings(), _Allocations() as tensors:
            warnings.simplefilter("error")
            try:
                reader.read(path)
            except TightlipError as problem:
                if "\n" in str(problem) or len(str(problem)) > 600:
                    return f"a message of {len(str(problem))} characters: {str(problem)[:200]!r}"
        asked = max(tracemalloc.get_traced_memory()[1], tensors.largest)
        return None if asked <= TIMES * size + reader.slack else f"{asked:,} bytes for a file of {size:,}"
    except Exception as problem:  # noqa: BLE001  that is what is looked for
        return f"{type(problem).__name__}: {str(problem)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        tracemalloc.stop()


def damage_once(reader: Reader, good: bytes, folder: Path, seed: int) -> str | None:
    """The complaint, if there is any, about the file that the seed makes."""
    path = folder / reader.file
    content = damaged(good, random.Random(seed))
    for _ in range(3):  # at first, modules may be imported, which takes memory
        path.write_bytes(content)
        problem = complaint(reader, path)
        if problem is None or "bytes for a file" not in problem:
            break
    return problem


def good_file(reader: Reader, folder: Path) -> bytes:
    """The bytes of a file that the reader takes."""
    path = folder / reader.file
    reader.write(path)
    reader.read(path)
    return path.read_bytes()
