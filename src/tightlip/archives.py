"""Zip archives, such as ``.npz`` and ``.pt2`` files are, whose members are no longer than the file allows.

A directory that promises a member of a gigabyte costs a gigabyte before its first byte is read. What is stored takes
its own length in the file; what is deflated is at most 1,032 times as long as what it takes there.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFLATED_MOST = 1032
"""Bytes that deflate makes of one, at most. Source: Deutsch 1996 (RFC 1951), a match of 258 bytes in two bits."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, to be read; damage that is met while it is read is a ``BadZipFile`` too.

    Raises:
        zipfile.BadZipFile: if it is none, or promises more than the file holds.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            size = path.stat().st_size
            for info in file.infolist():
                _check(info, size)
            yield file
    except (zlib.error, struct.error, EOFError, NotImplementedError) as problem:
        raise zipfile.BadZipFile(str(problem)) from problem


def _check(info: zipfile.ZipInfo, size: int) -> None:
    most = {zipfile.ZIP_STORED: info.compress_size, zipfile.ZIP_DEFLATED: DEFLATED_MOST * info.compress_size}
    if info.compress_size > size or info.file_size > most.get(info.compress_type, info.file_size):
        raise zipfile.BadZipFile(f"a zip file that promises more of {info.filename!r:.40} than it holds")
    if info.flag_bits & 1:
        raise zipfile.BadZipFile("an encrypted zip file")
