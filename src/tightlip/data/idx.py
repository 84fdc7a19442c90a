"""The IDX format of MNIST: 0, 0, element type, number of dimensions, each dimension as a big-endian uint32, elements.

Read in two steps, because what is checked against a pinned hash is the file without its compression:
`unpack` (a file, gzipped or not, to raw bytes) and `parse` (raw bytes to a tensor). Only uint8 elements (type 0x08)
are known, and the length must be exact. Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tightlip.errors import TightlipError

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08


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
        raise TightlipError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error
    if len(content) > limit:
        raise TightlipError(f"{path} holds more than the {limit:,} bytes expected of it: delete it and fetch it again.")
    return content


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
