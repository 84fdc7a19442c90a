"""The IDX format of MNIST: 0, 0, element type, number of dimensions, each dimension as a big-endian uint32, elements.

Only uint8 elements (type 0x08) are known, and the length must be exact. What is checked against a pinned hash is each
file without its compression. Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tightlip.data.dataset import Dataset
from tightlip.data.published import PublishedFile, check_sha256, locate, unpack
from tightlip.errors import TightlipError

_UINT8 = 0x08
_GZIP_SLACK = 1 << 16  # by so many bytes a gzipped file may exceed what it holds


@dataclass(frozen=True)
class RawFile:
    """A published file by what it holds when decompressed: its ``sha256`` and its ``size`` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class IdxSpec:
    """Four IDX files, each gzipped (``.gz``) or not, in ROOT/NAME, ROOT or ROOT/TORCHVISION/raw.

    Fields:
        files: training images (n, h, w), training labels (n,), test images, test labels.
        mirrors: addresses to which a file's name and ``.gz`` are appended, in the order in which to try them.
        torchvision: what torchvision calls the folder.
    """

    name: str
    torchvision: str
    files: tuple[RawFile, RawFile, RawFile, RawFile]
    mirrors: tuple[str, ...]
    classes: int
    licence: str

    @property
    def sha256(self) -> str:
        """The hash of the four files' hashes, in hexadecimal, a line each."""
        return hashlib.sha256("".join(f"{file.sha256}\n" for file in self.files).encode()).hexdigest()

    def load(self, root: str | Path | None = None, download: bool = False) -> Dataset:
        """The data set from wherever its files are found; images become (n, 1, h, w).

        Raises:
            TightlipError: a file is missing, damaged or not the published one, or every mirror failed.
        """
        folders = (self.name, ".", f"{self.torchvision}/raw")
        located = locate(self.name, [_published(file) for file in self.files], folders, self.mirrors, root, download)
        images, labels, test_images, test_labels = (
            parse(_verified(file, path), str(path)) for (_, path), file in zip(located, self.files, strict=True)
        )
        return Dataset(
            name=self.name,
            source=", ".join(dict.fromkeys(source for source, _ in located)),
            sha256=self.sha256,
            images=images.unsqueeze(1),
            labels=labels.long(),
            test_images=test_images.unsqueeze(1),
            test_labels=test_labels.long(),
            classes=self.classes,
            licence=self.licence,
        )


def parse(content: bytes, name: str) -> UInt8[Tensor, "*shape"]:
    """The tensor that uncompressed IDX bytes hold; ``name`` is for the errors.

    Raises:
        TightlipError: a wrong magic number, other elements than uint8, or a length that the header does not explain.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise TightlipError(f"{name} is not an IDX file (it starts with {content[:4].hex(' ')}): give the original.")
    element, dimensions = content[2], content[3]
    if element != _UINT8:
        raise TightlipError(f"{name} has IDX elements of type 0x{element:02x}: convert it to uint8 (0x08).")
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise TightlipError(f"{name} ends inside its IDX header of {dimensions} dimensions: fetch the file again.")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise TightlipError(
            f"{name} says that it holds {shape} uint8 elements, {math.prod(shape):,} bytes, but "
            f"{len(content) - start:,} follow its header: fetch the file again."
        )
    elements = np.frombuffer(content, dtype=np.uint8, offset=start)
    return torch.from_numpy(elements.reshape(shape).copy())


def _published(file: RawFile) -> PublishedFile:
    return PublishedFile((f"{file.name}.gz", file.name), file.size + _GZIP_SLACK, partial(_verified, file))


def _verified(file: RawFile, path: Path) -> bytes:
    """The file's content without compression, if it is the published one."""
    content = unpack(path, file.size)
    check_sha256(path, hashlib.sha256(content).hexdigest(), file.sha256)
    return content
