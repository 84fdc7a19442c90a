"""One writer at a time: a lock that the system gives back when its holder ends, in whatever way."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from .errors import TightlipError


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """While this lasts, no other process (or thread) is the sole writer of the folder or file at ``path``.

    The lock is the file ``.lock`` in the folder, or ``.NAME.lock`` beside the file. It says who holds it, and is gone
    at the end. One that a killed process has left is taken over.

    Raises:
        TightlipError: if another writer holds it, saying which; or if no lock can be made there.
    """
    file = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    if not file.parent.is_dir():
        raise TightlipError(f"{path} cannot be locked for writing: there is no folder {file.parent}, make it first")
    lock = filelock.FileLock(file, timeout=0)
    try:
        _acquire(lock, file)
    except filelock.Timeout as error:
        raise TightlipError(
            f"{path} is being written by {_holder(file)}: wait until it ends, end it, or choose another place"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TightlipError(f"{path} cannot be locked for writing ({reason}): choose another place") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
            file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # while it is held: who takes it afterwards makes another
        lock.release()


def _acquire(lock: filelock.BaseFileLock, file: Path) -> None:
    """Again, if its last holder removed the file between our opening and locking it."""
    while True:
        lock.acquire()
        if file.exists():
            return
        lock.release()


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):  # not yet written, or not to be read while it is locked
        return "another process"
