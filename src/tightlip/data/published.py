"""Published files: where each one is looked for, and whether it is the right one.

A file is looked for in this order, and the first one found is the one that is read:

    1. folders under ROOT              ROOT: the argument ``root``, or else the variable TIGHTLIP_DATA
    2. the cache                       TIGHTLIP_CACHE, or else the platform's cache folder
    3. the mirrors, into the cache     only with ``download=True``

What is read must have the pinned sha256; a file that has not is an error that names it, never a reason to look further.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from tightlip.data.download import download as download_file
from tightlip.errors import TightlipError

Place = tuple[str, Path]
"""A folder or a file, after the word that tells a result where its data came from."""

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class PublishedFile:
    """One file of a known data set.

    Fields:
        names: what it may be called on disk, in the order in which to look; the first is what a mirror calls it.
        limit: the most bytes to accept from a mirror.
        verify: called with the path of a download; a `TightlipError` refuses it.
    """

    names: tuple[str, ...]
    limit: int
    verify: Callable[[Path], object]


def locate(
    name: str,
    files: Sequence[PublishedFile],
    folders: Sequence[str],
    mirrors: Sequence[str],
    root: str | Path | None,
    download: bool,
) -> list[Place]:
    """Where each of ``files`` is, fetched into the cache if that is allowed and need be.

    Args:
        name: of the data set, and of its folder in the cache.
        files: all that the data set needs.
        folders: where under ROOT to look, in this order.
        mirrors: addresses to which a file's name is appended, in the order in which to try them.
        root: replaces the environment variable TIGHTLIP_DATA.
        download: whether to fetch what is missing.

    Raises:
        TightlipError: ROOT is no folder, or a file is missing and may not be fetched or is on no mirror.
    """
    places = list(_places(name, folders, root))
    found = [_find(file, places) for file in files]
    if None in found and not download:
        raise TightlipError(_absence(name, files, found.index(None), places))
    return [place or _fetch(name, file, mirrors) for place, file in zip(found, files, strict=True)]


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable TIGHTLIP_CACHE, or else the platform's cache folder."""
    return Path(os.environ.get("TIGHTLIP_CACHE") or user_cache_dir("tightlip", appauthor=False)).expanduser()


def check_sha256(path: Path, actual: str, expected: str) -> None:
    """Refuse, by its name, a file whose hash is not the pinned one.

    Raises:
        TightlipError: the two differ.
    """
    if actual != expected:
        raise TightlipError(
            f"{path} is not the published file (the sha256 of its content starts with {actual[:12]}, not with "
            f"{expected[:12]}): delete it and fetch it again."
        )


def unpack(path: Path, limit: int) -> bytes:
    """The file's bytes, without gzip if it was gzipped.

    Raises:
        TightlipError: the file cannot be read, its gzip stream is cut short or damaged, or it holds more than ``limit``
            bytes.
    """
    try:
        with path.open("rb") as probe:
            gzipped = probe.read(2) == _GZIP_MAGIC
        with gzip.open(path) if gzipped else path.open("rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TightlipError(f"{path} is truncated or damaged ({error}): delete it and fetch it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > limit:
        raise TightlipError(f"{path} holds more than the {limit:,} bytes expected of it: delete it and fetch it again.")
    return content


def unreadable(path: Path, error: OSError) -> TightlipError:
    """The sentence for what the operating system will not read."""
    return TightlipError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.")


def _places(name: str, folders: Sequence[str], root: str | Path | None) -> Iterator[Place]:
    """The folders to look in."""
    word, folder = ("root", root) if root is not None else ("TIGHTLIP_DATA", os.environ.get("TIGHTLIP_DATA"))
    if folder:
        folder = Path(folder).expanduser()
        if not os.path.isdir(folder):
            raise TightlipError(f"{word} is {folder}, which is not a folder: give the folder that holds {name}.")
        yield from ((word, folder / below) for below in folders)
    yield "cache", cache_folder() / name


def _find(file: PublishedFile, places: list[Place]) -> Place | None:
    candidates = ((word, folder / name) for word, folder in places for name in file.names)
    return next(((word, path) for word, path in candidates if os.path.isfile(path)), None)


def _fetch(name: str, file: PublishedFile, mirrors: Sequence[str]) -> Place:
    target = cache_folder() / name / file.names[0]
    url = download_file([f"{mirror}{target.name}" for mirror in mirrors], target, file.limit, file.verify)
    return (url.removesuffix(target.name) if url else "cache"), target


def _absence(name: str, files: Sequence[PublishedFile], missing: int, places: list[Place]) -> str:
    file = files[missing].names[0]
    return (
        f"{name} is not complete on this machine ({file} was looked for in "
        f"{', '.join(str(folder) for _, folder in places)}): set TIGHTLIP_DATA to a folder that holds "
        f"{name}/{file}{' and its companions' if len(files) > 1 else ''}, or pass download=True (--download on the "
        "command line)."
    )
