"""What cells of one run share, and where a long one goes on after an interruption: files in a folder of the run.

    with shelf(folder):                          # `rows` does this for every cell
        found = kept({"data": "mnist", …}, make)   # made once for the folder, else read again

What is kept is a dictionary of tensors and plain values. A file that is absent, damaged, of other options or of another
commit is as good as none: what it would hold is made again. Where no folder is known nothing is kept.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..atomic import discard, make_folder, replacing
from ..provenance import commit
from ..training.identity import identity

NAME = "unfinished"
"""Of the folder, in that of the rows."""

_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@dataclass(frozen=True)
class Progress:
    """A file of a computation that may be interrupted; without a path nothing is kept."""

    path: Path | None
    key: str

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None."""
        try:
            file = torch.load(self.path, weights_only=True) if self.path else {}
            known = file.pop("sha256", None) == identity(file, "a file of unfinished work") and file["key"] == self.key
        except Exception:  # noqa: BLE001  torch raises a dozen kinds for damaged files, and each means: begin again
            return None
        return file["content"] if known else None  # type: ignore[no-any-return]

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace the file, whole or not at all.

        Raises:
            TightlipError: if it cannot be written.
        """
        if self.path is None:
            return
        make_folder(self.path.parent)
        file: dict[str, Any] = {"key": self.key, "content": dict(content)}
        with replacing(self.path) as partial:
            torch.save(file | {"sha256": identity(file, "a file of unfinished work")}, partial)


@contextmanager
def shelf(folder: Path) -> Iterator[None]:
    """Within, `kept` keeps what it makes in a folder of ``folder``."""
    token = _FOLDER.set(folder / NAME)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def clear(folder: Path) -> None:
    """Remove all that was kept, when every cell has its row."""
    shutil.rmtree(folder / NAME, ignore_errors=True)


def kept(key: Mapping[str, Any], make: Callable[[Progress], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` returned for this key in this folder, now or before.

    Args:
        key: All that determines it, as JSON has it.
        make: Takes a `Progress`, which it may write to as it goes on, and read when it begins.
    """
    words = json.dumps([dict(key), commit()[0]], sort_keys=True)
    folder, name = _FOLDER.get(), hashlib.sha256(words.encode()).hexdigest()[:16]
    whole, part = (
        Progress(None if folder is None else folder / f"{name}.{suffix}", words) for suffix in ("pt", "part.pt")
    )
    found = whole.read()
    if found is None:
        found = make(part)
        whole.write(found)
    if part.path is not None:
        discard(part.path)
    return found
