"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import TightlipError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a neighbor to write to, which takes the place of ``path`` at the end; on any error nothing is left.

    Raises:
        TightlipError: if the folder is absent or nothing can be written there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.touch()
    except OSError as error:
        raise TightlipError(f"{path} cannot be written to ({error.strerror}): choose another place") from error
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise TightlipError(f"{path} cannot be written to ({error.strerror}): choose another place") from error
    finally:
        partial.unlink(missing_ok=True)
