"""Files that are written whole or not at all, folders that stay made, and how a file is known again.

A name that was given is on the disk when its folder has been flushed, and what a file holds when the file has been. So:

    write a neighbor ▸ flush it ▸ give it the name ▸ flush the folder

whatever is lost or torn that was not flushed, the name is that of the earlier file or of the new one, whole.
"""

import contextlib
import errno
import glob
import hashlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from .errors import TightlipError

_NUMBERS = itertools.count()

_WRITING: set[str] = set()
"""Neighbors that this process is writing, by name: another of its number may have left some before it."""

_NO_SUCH_THING = {errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What systems say that cannot open folders, or flush them; all else is a disk that fails."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a neighbor to write to, which takes the place of ``path`` at the end; on any error nothing is left.

    Each call has a neighbor of its own, so that writers at the same time leave the file of one of them, whole. What is
    written is on the disk before it gets its name, and the name before this returns.

    Raises:
        TightlipError: if the folder is absent or nothing can be written there.
    """
    if not path.name or path.is_dir():
        raise TightlipError(f"{path} cannot be written to (Is a directory): give the name of a file")
    partial = path.with_name(f"{_prefix(path)}{os.getpid()}-{next(_NUMBERS)}.partial")
    try:
        _WRITING.add(partial.name)
        _remove_abandoned(path)
        partial.touch()
        yield partial
        put_in_place(partial, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is a RuntimeError in torch.save
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        advice = "choose another place or make room" if path.parent.is_dir() else f"make the folder {path.parent} first"
        raise TightlipError(f"{path} cannot be written to ({reason}): {advice}") from error
    finally:
        discard(partial)
        _WRITING.discard(partial.name)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file that is written its name: what it holds is on the disk before, and the name when this returns.

    Raises:
        OSError: if the disk fails; the name is then of the earlier file or of the new one, whole.
    """
    _flush(partial)
    partial.replace(path)
    _flush_folder(path.parent)


def make_folder(folder: Path, anew: bool = False) -> None:
    """Make a folder that is not there, and those above it; their names are on the disk when this returns.

    Raises:
        TightlipError: if that cannot be done.
        FileExistsError: if it is there, and was to be made anew.
    """
    try:
        absent = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=not anew)
        for place in absent:
            _flush_folder(place.parent)
    except OSError as error:
        if anew and isinstance(error, FileExistsError):
            raise
        raise TightlipError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from error


def discard(path: Path) -> None:
    """Remove a file that nobody needs any more; one that is gone, or that the disk does not let go, is no matter."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal.

    Raises:
        TightlipError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TightlipError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error


def _prefix(path: Path) -> str:
    return f".{path.name}.{socket.gethostname()}-"


def _remove_abandoned(path: Path) -> None:
    """What killed processes of this machine have left of ``path``."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*.partial"):
        process = left.name.removeprefix(_prefix(path)).partition("-")[0]
        if process.isdecimal() and left.name not in _WRITING and not _lives(int(process)):
            discard(left)


def _lives(process: int) -> bool:
    if process == os.getpid():  # and what is asked about is not of its own
        return False
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system has such a thing."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
