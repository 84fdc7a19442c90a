"""CIFAR-10 in its binary version: batches of records in one ``.tar.gz``, nothing pickled.

A record is 3073 bytes: the label, then 32 × 32 pixels of red, of green, of blue, each row by row. The archive is
checked against its pinned hash before anything in it is looked at, and even so its members are read one after the other
in memory, by name and exact size, and never extracted.
Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

import hashlib
import io
import tarfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from tightlip.data.dataset import Dataset
from tightlip.data.published import PublishedFile, check_sha256, locate, unpack, unreadable
from tightlip.errors import TightlipError

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
"""Bytes of a label and its image."""

_TAR_SLACK = 1 << 20  # for the archive's headers, its padding and its readme
# All that tarfile raises on a stream that is not what it says; deep chains of headers end in a RecursionError.
_UNREADABLE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class CifarSpec:
    """An archive of batches, in ROOT/NAME or ROOT; every batch holds ``records`` records.

    Fields:
        archive: the name of the ``.tar.gz`` file.
        sha256: of that file as it is, compressed.
        size: of that file in bytes, the most to accept from a mirror.
        train: the members that make up the training part, in this order.
        test: the member that is the test part.
        mirrors: addresses to which the archive's name is appended, in the order in which to try them.
    """

    name: str
    archive: str
    sha256: str
    size: int
    train: tuple[str, ...]
    test: str
    records: int
    mirrors: tuple[str, ...]
    classes: int
    licence: str

    def load(self, root: str | Path | None = None, download: bool = False) -> Dataset:
        """The data set from wherever its archive is found; images are (n, 3, 32, 32).

        Raises:
            TightlipError: the archive is missing, damaged or not the published one, or every mirror failed.
        """
        published = PublishedFile((self.archive,), self.size, self._verify)
        [(source, path)] = locate(self.name, [published], (self.name, "."), self.mirrors, root, download)
        self._verify(path)
        names, size = (*self.train, self.test), self.records * RECORD
        members = read_members(path, unpack(path, len(names) * size + _TAR_SLACK), names, size)
        images, labels = parse([members[name] for name in self.train], str(path), self.classes)
        test_images, test_labels = parse([members[self.test]], str(path), self.classes)
        return Dataset(
            name=self.name,
            source=source,
            sha256=self.sha256,
            images=images,
            labels=labels,
            test_images=test_images,
            test_labels=test_labels,
            classes=self.classes,
            licence=self.licence,
        )

    def _verify(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(path, error) from error
        check_sha256(path, actual, self.sha256)


def read_members(path: Path, content: bytes, names: Collection[str], size: int) -> dict[str, bytes]:
    """The members ``names`` of an uncompressed tar archive, each ``size`` bytes; ``path`` is for the errors.

    Raises:
        TightlipError: it is no tar archive, or a member is missing, no plain file, or of another size.
    """
    found = {}
    try:
        # "r|": forwards only, so that no header can send the reader back and around in circles.
        with tarfile.open(fileobj=io.BytesIO(content), mode="r|") as archive:
            for member in archive:
                if member.name in names:
                    found[member.name] = _read(path, archive, member, size)
    except TightlipError:
        raise
    except _UNREADABLE as error:
        raise TightlipError(f"{path} cannot be read as a tar archive ({error}): fetch it again.") from error
    if missing := [name for name in names if name not in found]:
        raise TightlipError(f"{path} lacks {', '.join(missing)}: give the binary version, and not the one for Python.")
    return found


def parse(batches: Sequence[bytes], name: str, classes: int) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    """The images and labels of all records of ``batches``, in their order; ``name`` is for the errors.

    Raises:
        TightlipError: a label outside [0, classes).
    """
    records = np.concatenate([np.frombuffer(batch, dtype=np.uint8).reshape(-1, RECORD) for batch in batches])
    images, labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in (records[:, 1:], records[:, 0]))
    if (foreign := labels[labels >= classes]).numel():
        raise TightlipError(f"{name} has the label {int(foreign[0])}, but {classes} classes: fetch it again.")
    return images.reshape(-1, *SHAPE), labels.long()


def _read(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> bytes:
    file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None:
        raise TightlipError(f"{path} holds {member.name} as something else than a plain file: fetch it again.")
    if member.size != size:
        raise TightlipError(f"{path} holds {member.size:,} bytes of {member.name}, not {size:,}: fetch it again.")
    return file.read()
