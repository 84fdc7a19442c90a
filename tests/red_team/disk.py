"""A disk that fails, or loses its power, between two operations of a program on the files of one folder.

What was flushed is on the disk. All else may be there or not when the power is back: of the names that were given or
taken in a folder since that was flushed any part, and of a file that was not flushed nothing, or half, or zeros.
"""

import builtins
import contextlib
import errno
import io
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Tree = dict[str, bytes | None]
"""Files and what they hold; None is a folder."""

MAKING = {"mkdir", "open", "fsync", "replace"}
"""Operations that a full disk refuses; files can still be removed."""

TORN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda held: b"",
    "half": lambda held: held[: len(held) // 2],
    "zeros": lambda held: bytes(len(held)),
}
"""What is found of a file that was not flushed."""

Before = Callable[[int, str, str], None]
"""(number, operation, path) → what happens before it is done: nothing, or an error, or the end."""


def nothing(count: int, operation: str, path: str) -> None:
    """A disk that works."""


@dataclass(frozen=True)
class Failing:
    """The disk fails at an operation, or from it on."""

    at: int
    number: int
    """Of the error."""
    lasting: bool = False

    def __call__(self, count: int, operation: str, path: str) -> None:
        due = count >= self.at if self.lasting else count == self.at
        if due and (self.number != errno.ENOSPC or operation in MAKING):
            raise OSError(self.number, os.strerror(self.number), path)


@dataclass(frozen=True)
class Killing:
    """The process is killed before an operation."""

    at: int

    def __call__(self, count: int, operation: str, path: str) -> None:
        if count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Disk:
    """The operations in a folder, one after the other; within `watched` each is told, and may fail."""

    root: Path
    before: Before = nothing
    operations: list[tuple[str, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Python's operations on files pass here; what other languages write is seen where one of these follows."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("mkdir", "rmdir", "unlink", "remove", "replace", "rename", "fsync"):
                patch.setattr(os, name, self._passing(name, getattr(os, name)))
            patch.setattr(os, "open", self._passing("open", os.open, lambda flags=0, *_, **__: flags & os.O_CREAT))
            opened = self._passing("open", io.open, lambda mode="r", *_, **__: set(mode) & set("wax+"))
            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            yield

    def _passing(
        self, name: str, original: Callable[..., Any], counts: Callable[..., Any] = lambda *_, **__: True
    ) -> Callable[..., Any]:
        kind = {"remove": "unlink", "rename": "replace"}.get(name, name)

        def operation(path: Any, *others: Any, **named: Any) -> Any:
            place = _place(path, named.get("dir_fd"))
            if not f"{place}/".startswith(f"{self.root}/") or not counts(*others, **named):
                return original(path, *others, **named)
            self.passed(kind, place)
            done = original(path, *others, **named)
            self.done(kind, place, _place(others[0]) if kind == "replace" else place)
            return done

        return operation

    def passed(self, kind: str, place: str) -> None:
        """An operation is about to be done."""
        self.operations.append((kind, place))
        self.before(len(self.operations), kind, place)

    def done(self, kind: str, place: str, target: str) -> None:
        """An operation was done."""


def _place(path: Any, folder: int | None = None) -> str:
    """The path, of a descriptor too."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return os.path.join(_place(folder), path) if folder is not None else os.path.abspath(os.fspath(path))


class Ledger(Disk):
    """A disk that knows what of it is flushed, and so what may be found after the power was lost."""

    def __init__(self, root: Path, seen: Callable[["Ledger"], None] = lambda ledger: None) -> None:
        super().__init__(root)
        self.seen, self.numbers = seen, itertools.count()
        self.known: dict[int, int] = {}  # files by the system's number, which it gives again
        self.held: dict[int, bytes | None] = {}  # what each file holds
        self.names: dict[str, int] = {}  # as programs see them
        self.pending: list[tuple[str, dict[str, int | None]]] = []  # changes of names, with their folder
        self._look()
        self.kept, self.pending = self.names, []  # names as they are on the disk
        self.flushed = dict(self.held)
        self.whole = {path: {self.held[file]} for path, file in self.names.items()}  # what each name was given to

    def passed(self, kind: str, place: str) -> None:
        """The power may be lost here."""
        self.seen(self)
        super().passed(kind, place)

    def done(self, kind: str, place: str, target: str) -> None:
        """Take note of what is flushed, and of what a name was given to."""
        self._look()
        path = os.path.relpath(target, self.root)
        if kind == "replace":
            self.whole.setdefault(path, set()).add(self.held[self.names[path]])
        if kind == "fsync" and os.path.isdir(target):
            for folder, change in self.pending:
                if folder == path:
                    self.kept = _changed(self.kept, change)
            self.pending = [(folder, change) for folder, change in self.pending if folder != path]
        elif kind == "fsync":
            self.flushed[self.names[path]] = self.held[self.names[path]]

    def states(self) -> Iterator[Tree]:
        """What may be found now, if the power is lost."""
        self._look()
        for chosen in _choices([change for _, change in self.pending]):
            names = self.kept
            for change in chosen:
                names = _changed(names, change)
            names = {path: file for path, file in names.items() if _reachable(path, names)}
            for torn in TORN.values():
                yield {path: self._found(file, torn) for path, file in names.items()}

    def lost(self, tree: Tree) -> list[str]:
        """What is wrong with a state: files that have their name and are not whole."""
        return [
            path
            for path, held in tree.items()
            if held is not None and not _hidden(path) and held not in self.whole.get(path, ())
        ]

    def absent(self) -> list[str]:
        """What is there now, and would not be there, or not as it is, after the power was lost."""
        trees = list(self.states())
        return [
            path
            for path, file in self.names.items()
            if not _hidden(path) and any(tree.get(path, b"?") != self.held[file] for tree in trees)
        ]

    def _found(self, file: int, torn: Callable[[bytes], bytes]) -> bytes | None:
        held = self.held[file]
        return held if held is None or self.flushed.get(file) == held else torn(held)

    def _look(self) -> None:
        """What has changed since: names as programs see them, and what files hold."""
        there = {path: os.stat(self.root / path).st_ino for path in _below(self.root)}
        self.known = {
            inode: self.known[inode] if inode in self.known else next(self.numbers) for inode in set(there.values())
        }
        now = {path: self.known[inode] for path, inode in there.items()}
        for path, file in now.items():
            self.held[file] = None if (self.root / path).is_dir() else (self.root / path).read_bytes()
        changes: dict[str, dict[str, int | None]] = {}
        for path in now.keys() | self.names.keys():
            if now.get(path) != self.names.get(path):
                changes.setdefault(os.path.dirname(path) or ".", {})[path] = now.get(path)
        self.pending += changes.items()
        self.names = now


def _below(root: Path) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in root.rglob("*"))


def _changed(names: dict[str, int], change: dict[str, int | None]) -> dict[str, int]:
    return {path: file for path, file in (names | change).items() if file is not None}


def _choices(changes: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Parts of them, in their order: all parts of a few, of many none, all, each alone, and all but each."""
    count = len(changes)
    if count <= 3:
        kept = list(itertools.product((False, True), repeat=count))
    else:
        alone = [tuple(place == one for place in range(count)) for one in range(count)]
        kept = [(False,) * count, (True,) * count, *alone, *(tuple(not flag for flag in one) for one in alone)]
    for flags in kept:
        yield [change for change, flag in zip(changes, flags, strict=True) if flag]


def _reachable(path: str, names: dict[str, int]) -> bool:
    above = os.path.dirname(path)
    return not above or (above in names and _reachable(above, names))


def _hidden(path: str) -> bool:
    """Whether it has no name yet that anybody reads, or is a lock."""
    return os.path.basename(path).startswith(".")


def put(tree: Tree, root: Path) -> None:
    """Make a folder of what was found."""
    for path, held in sorted(tree.items()):
        if held is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(held)
