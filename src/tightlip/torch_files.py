"""Files of ``torch.save``, told from others without reading what they hold."""

import zipfile
from pathlib import Path

_BEFORE_ZIP = bytes.fromhex("8002 8a0a 6cfc9c46f9206aa85019")
"""How a file of ``torch.save(_use_new_zipfile_serialization=False)`` begins: a pickled magic number."""


def written_by_torch(path: Path) -> bool:
    """Whether a file is one of ``torch.save``; false for one that is cut off or cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(_BEFORE_ZIP)) == _BEFORE_ZIP:
                return True
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False
