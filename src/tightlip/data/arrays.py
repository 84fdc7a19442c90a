"""Named arrays in one ``.npz`` file: a user's own data set, and the one that the package ships.

Nothing is ever unpickled. The hash of such a file is taken over the arrays (name, dtype, shape, bytes), not over the
zip around them, so that it does not depend on the compressor.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy.lib.npyio import NpzFile
from torch import Tensor

from tightlip.data.dataset import Dataset
from tightlip.errors import TightlipError

Array = np.ndarray[Any, np.dtype[Any]]
# All that numpy and zipfile raise on a file that is not what it says.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def load_arrays(path: str | Path) -> Dataset:
    """A user's data set out of one ``.npz`` file; its name is the file's stem, its classes the distinct labels.

    The arrays are ``x`` and ``y``, or ``x_train`` and ``y_train``; ``x_test`` and ``y_test`` may join either pair.
    Other arrays are left alone. ``x`` is (n, *shape): uint8 in 0..255, or floats, which become float32, unscaled.
    ``y`` is (n,): integers 0 to classes − 1.

    Raises:
        TightlipError: an absent, truncated or pickled file, a missing array, a dtype that cannot be taken, or whatever
            `Dataset` refuses.
    """
    path = Path(path)
    with _opened(path) as file:
        arrays = _read(path, file, _choose_names(path, file.files))
    x, y, *test = arrays.values()
    labels = _to_labels(path, y)
    return Dataset(
        name=path.stem,
        source=path.name,
        sha256=content_sha256(arrays),
        images=_to_images(path, x),
        labels=labels,
        test_images=_to_images(path, test[0]) if test else None,
        test_labels=_to_labels(path, test[1]) if test else None,
        classes=len(labels.unique()),
        licence="the user's own",
    )


def read_npz(path: Path, names: Collection[str]) -> dict[str, Array]:
    """The arrays ``names`` of an ``.npz`` file, in that order.

    Raises:
        TightlipError: the file is absent, truncated, damaged or no ``.npz``, or an array is missing or holds objects.
    """
    with _opened(path) as file:
        return _read(path, file, names)


def content_sha256(arrays: Mapping[str, Array]) -> str:
    """The hash of arrays in their order: of each its name, dtype, shape and C-ordered bytes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    """The open file; whatever opening or reading it raises becomes one sentence."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, NpzFile):
                raise TightlipError(f"{path} holds a single array: save two with numpy.savez(path, x=..., y=...).")
            with file:
                yield file
    except TightlipError:
        raise
    except FileNotFoundError as error:
        raise TightlipError(f"{path} does not exist: give the path of an .npz file.") from error
    except _UNREADABLE as error:
        raise TightlipError(
            f"{path} cannot be read ({error}): save plain number arrays with numpy.savez(path, x=..., y=...)."
        ) from error


def _read(path: Path, file: NpzFile, names: Collection[str]) -> dict[str, Array]:
    missing = [name for name in names if name not in file.files]
    if missing:
        raise TightlipError(
            f"{path} lacks {' and '.join(missing)} (it holds {', '.join(sorted(file.files)) or 'nothing'}): "
            f"save it with numpy.savez(path, {', '.join(f'{name}=...' for name in names)})."
        )
    arrays = {name: file[name] for name in names}
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise TightlipError(f"{path} holds something else than an array as {foreign[0]}: save it with numpy.savez.")
    return arrays


def _choose_names(path: Path, present: Collection[str]) -> list[str]:
    """Which arrays to read; one half of a pair asks for the other."""
    whole, train, test = ("x", "y"), ("x_train", "y_train"), ("x_test", "y_test")
    asked = [pair for pair in (whole, train, test) if set(pair) & set(present)]
    if whole in asked and train in asked:
        raise TightlipError(f"{path} holds both x, y and x_train, y_train: keep the pair that is meant.")
    return [*(train if train in asked else whole), *(test if test in asked else ())]


def _to_images(path: Path, array: Array) -> UInt8[Tensor, "..."] | Float32[Tensor, "..."]:
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype.kind != "f":
        raise TightlipError(f"{path} has {array.dtype} images: save them as uint8 (0 to 255) or as floats.")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, and Dataset says so
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _to_labels(path: Path, array: Array) -> Int64[Tensor, "..."]:
    if array.dtype.kind not in "iu":
        raise TightlipError(f"{path} has {array.dtype} labels: save them as integers 0 to classes - 1.")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
