"""One file from the first mirror that gives exactly the right bytes, put in place whole or not at all.

Under a file lock, into ``NAME.part``, checked, flushed, then named: a reader sees the complete, verified file or none,
however many processes ask at once and however a download ends.
"""

import logging
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from tightlip.atomic import put_in_place
from tightlip.errors import TightlipError

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without a byte after which a mirror is given up."""

LOCK_TIMEOUT = 600.0
"""Seconds to wait for another process that downloads into the same folder."""

_CHUNK = 1 << 16


def download(urls: Sequence[str], target: Path, limit: int, verify: Callable[[Path], object]) -> str | None:
    """Fetch ``target`` from the first of ``urls`` whose bytes pass ``verify``.

    Args:
        urls: the mirrors' addresses of this one file, in the order in which to try them.
        target: where the file goes; its folder is made.
        limit: the most bytes to accept from a mirror.
        verify: called with the path of the complete download, before that gets its name; a `TightlipError` refuses it.

    Returns:
        The address that served, or None if another process had put the file in place meanwhile.

    Raises:
        TightlipError: every mirror failed (with each one's reason), or the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / ".lock", timeout=LOCK_TIMEOUT):
            return None if target.is_file() else _first_good(urls, target, limit, verify)
    except filelock.Timeout as error:
        raise TightlipError(
            f"{target.parent} was locked by another download for {LOCK_TIMEOUT:.0f} s: wait for that one, or end it."
        ) from error
    except OSError as error:
        raise TightlipError(
            f"{target} cannot be written ({error.strerror}): set TIGHTLIP_CACHE to a folder that can, or "
            "download the file yourself and set TIGHTLIP_DATA to its folder."
        ) from error


def _first_good(urls: Sequence[str], target: Path, limit: int, verify: Callable[[Path], object]) -> str:
    part = target.with_name(target.name + ".part")
    failures = []
    try:
        for url in urls:
            reason = _try(url, part, limit, verify)
            if reason is None:
                put_in_place(part, target)
                logger.info("downloaded %s from %s", target, url)
                return url
            logger.warning("%s: %s", url, reason)
            failures.append(f"{url} ({reason})")
    finally:
        part.unlink(missing_ok=True)
    raise TightlipError(
        f"{target.name} could not be downloaded, every mirror failed: {'; '.join(failures)}. Try again later, or set "
        "TIGHTLIP_DATA to a folder that has the file."
    )


def _try(url: str, part: Path, limit: int, verify: Callable[[Path], object]) -> str | None:
    """Why this mirror's file cannot be taken, or None if ``part`` now holds it."""
    try:
        _fetch(url, part, limit)
        verify(part)
    except _MirrorError as error:
        return str(error)
    except TightlipError as error:
        logger.debug("%s", error)
        return "it sent a truncated or altered file"
    return None


class _MirrorError(Exception):
    """One mirror failed; the next one may not."""


def _fetch(url: str, part: Path, limit: int) -> None:
    """Stream ``url`` into ``part``; a fault of the mirror is a `_MirrorError`, one of the disk stays an `OSError`."""
    response = _ask_mirror(lambda: urllib.request.urlopen(url, timeout=TIMEOUT))
    total = response.length
    progress = tqdm(total=total, desc=part.stem, unit="B", unit_scale=True, disable=None)
    with response, progress, part.open("wb") as file:
        while chunk := _ask_mirror(lambda: response.read(_CHUNK)):
            if file.tell() + len(chunk) > limit:
                raise _MirrorError(f"it sends more than the {limit:,} bytes expected")
            file.write(chunk)
            progress.update(len(chunk))
        if total is not None and file.tell() != total:
            raise _MirrorError(f"it was cut short after {file.tell():,} of {total:,} bytes")


def _ask_mirror(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (OSError, HTTPException) as error:
        raise _MirrorError(" ".join(str(error).split()) or type(error).__name__) from error
