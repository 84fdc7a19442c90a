"""Files that are written whole or not at all, and how a file is known again."""

import contextlib
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
        _remove_abandoned(path)
        partial.touch()
        yield partial
        _flush(partial)
        partial.replace(path)
        with contextlib.suppress(OSError):  # some systems have no folders to open; the file is whole in any case
            _flush(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is a RuntimeError in torch.save
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TightlipError(f"{path} cannot be written to ({reason}): choose another place or make room") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


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
        if process.isdecimal() and not _lives(int(process)):
            with contextlib.suppress(OSError):
                left.unlink()


def _lives(process: int) -> bool:
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
