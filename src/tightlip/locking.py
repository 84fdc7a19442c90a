"""One writer at a time: a lock that the system gives back when its holder ends, in whatever way.

The lock is a file, so that its holder can say who it is. A file can be removed while it is locked, and then another
writer would lock another file of the same name. Two things stand against that: a folder is locked itself too, where
the system can; and a writer looks again, before it writes, whether the file at the path is still its own.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from .errors import TightlipError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[Callable[[], None]]:
    """While this lasts, no other process (or thread) is the sole writer of the folder or file at ``path``.

    The lock is the file ``.lock`` in the folder, or ``.NAME.lock`` beside the file. It says who holds it, and is gone
    at the end. One that a killed process has left is taken over.

    Yields:
        What a long writer calls before it writes: if the lock file was removed, it is made again, and if another writer
        has taken its place, this raises. (Between the two moments both may believe that they are alone. A folder on a
        file system that locks folders is safe from that.)

    Raises:
        TightlipError: if another writer holds it, saying which; or if no lock can be made there.
    """
    folder = path.is_dir()
    file = path / ".lock" if folder else path.with_name(f".{path.name}.lock")
    if not file.parent.is_dir():
        raise TightlipError(f"{path} cannot be locked for writing: there is no folder {file.parent}, make it first")
    with _folder_itself(path, file) if folder else contextlib.nullcontext():
        lock = _Lock(path, file)
        lock.take()
        try:
            yield lock.look_again
        finally:
            lock.give_back()


class _Lock:
    """A locked file, known again by its words."""

    def __init__(self, path: Path, file: Path) -> None:
        self.path, self.file, self.words = path, file, ""
        self.lock = filelock.FileLock(file, timeout=0)

    def take(self) -> None:
        """Lock the file and write in it whose it is."""
        try:
            while True:
                self.lock.acquire()
                if self.file.exists():
                    break
                self.lock.release()  # its last holder removed it between our opening and locking it
        except filelock.Timeout as error:
            raise _in_use(self.path, self.file) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise TightlipError(f"{self.path} cannot be locked for writing ({reason}): choose another place") from error
        words = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "lock": uuid.uuid4().hex}
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
            self.file.write_text(json.dumps(words))
            self.words = json.dumps(words)

    def look_again(self) -> None:
        """Raise if the file at the path is another's by now; take it again if it is not there."""
        try:
            found = self.file.read_text()
        except FileNotFoundError:
            self.lock.release()
            self.take()
            return
        except OSError:  # not to be read while it is locked
            return
        if self.words and found != self.words:
            raise TightlipError(
                f"the lock of {self.path} was removed, and it is being written by {_holder(self.file)} now: this "
                "writer stops; what it wrote before stays"
            )

    def give_back(self) -> None:
        """Remove the file, if it is still the one that was locked: who takes it afterwards makes another."""
        with contextlib.suppress(OSError):
            if not self.words or self.file.read_text() in (self.words, ""):
                self.file.unlink()
        self.lock.release()


@contextlib.contextmanager
def _folder_itself(path: Path, file: Path) -> Iterator[None]:
    """The folder's own lock, where there is such a thing: nobody removes it from under a writer."""
    descriptor = None
    try:
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)  # type: ignore[arg-type]
        raise _in_use(path, file) from error
    except OSError:  # a folder that cannot be read, or a file system that does not lock folders
        pass
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _in_use(path: Path, file: Path) -> TightlipError:
    return TightlipError(
        f"{path} is being written by {_holder(file)}: wait until it ends, end it, or choose another place"
    )


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"  # not yet written, removed, or not to be read while it is locked
