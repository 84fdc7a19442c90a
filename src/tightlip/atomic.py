"""Files that are written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from .errors import TightlipError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a neighbor to write to, which takes the place of ``path`` at the end; on any error nothing is left.

    Raises:
        TightlipError: if the folder is absent or nothing can be written there.
    """
    if not path.name or path.is_dir():
        raise TightlipError(f"{path} cannot be written to (Is a directory): give the name of a file")
    partial = path.with_name(f".{path.name}.partial")  # the next write takes over what a killed process left
    try:
        partial.touch()
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is a RuntimeError in torch.save
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TightlipError(f"{path} cannot be written to ({reason}): choose another place or make room") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
