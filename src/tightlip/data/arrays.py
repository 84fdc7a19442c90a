"""Named arrays in one ``.npz`` file, or in an ``.npy`` file each: a user's own data set, and the one that comes along.

Nothing is ever unpickled. The hash is taken over the arrays (name, dtype, shape, bytes), not over the files around
them: it depends neither on the compressor nor on which of the two forms was chosen.
"""

import hashlib
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from tightlip.archives import opened
from tightlip.choices import hint
from tightlip.data.channels import channels_first
from tightlip.data.dataset import Dataset, words_for
from tightlip.errors import TightlipError

Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_INTEGER = 2**53
"""Integers up to here are float64 exactly."""

MAPPED = 2**26
"""An ``.npy`` file of more bytes is not read into memory at once."""

# All that numpy and zipfile raise on a file that is not what it says; numpy parses a header as Python.
_UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, OverflowError),
    *(SyntaxError, TypeError, LookupError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
with suppress(ImportError):  # some Pythons are built without it, and zipfile then raises RuntimeError
    import lzma

    _UNREADABLE = (*_UNREADABLE, lzma.LZMAError)


def load_arrays(path: str | Path, whole: bool = False) -> Dataset:
    """A user's data set: an ``.npz`` file, a folder of ``.npy`` files, or that folder by the path of its ``x.npy``.

    Its name is the file's stem or the folder's name, its classes are the distinct labels. The arrays are ``x`` and
    ``y``, or ``x_train`` and ``y_train``; ``x_test`` and ``y_test`` may join either pair. Other arrays are left alone.
    A data set that is to stay ``whole`` has the classes 0 to its largest label, whether or not each has examples.
    ``x`` is (n, *shape): uint8 in 0..255, or floats, which become float32, unscaled; channels of images are moved to
    the front (`channels_first`). ``y`` is (n,) or (n, 1): integers 0 to classes − 1.

    Raises:
        TightlipError: an absent, truncated or pickled file, a missing array, a dtype that cannot be taken, or whatever
            `Dataset` refuses.
    """
    path = _container(Path(path))
    with _opened(path) as file:
        arrays = _read(path, file, _choose_names(path, list(file)))
    x, y, *test = arrays.values()
    labels, test_labels = _to_labels(path, y), _to_labels(path, test[1]) if test else None
    return Dataset(
        name=path.name if path.is_dir() else path.stem,
        source=path.name,
        sha256=content_sha256(arrays),
        images=_to_images(path, x),
        labels=labels,
        test_images=_to_images(path, test[0]) if test else None,
        test_labels=test_labels,
        classes=_largest(labels, test_labels) + 1 if whole else len(labels.unique()),
        licence="the user's own",
        whole=whole,
    )


def read_npz(path: Path, names: Collection[str]) -> dict[str, Array]:
    """The arrays ``names`` of an ``.npz`` file, in that order.

    Raises:
        TightlipError: the file is absent, truncated, damaged or no ``.npz``, or an array is missing or holds objects.
    """
    with _opened(path) as file:
        return _read(path, file, names)


def read_one(path: Path, name: str | None = None) -> Array:
    """The array of an ``.npy`` file, memory-mapped if it is large, or one of an ``.npz`` file by its name.

    Without a name it is the only one.

    Raises:
        TightlipError: the file is damaged or pickled, or it is not clear which array is meant.
    """
    if path.suffix.lower() == ".npy":
        with _explained(path):
            with path.open("rb") as stream:
                size = path.stat().st_size
                if size <= MAPPED:
                    return _array(stream, size)
                _check_header(stream, size)
            return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    with _opened(path) as file:
        present = sorted(file)
        if name is None and len(present) != 1:
            held = f"{len(present)} arrays ({', '.join(present)})" if present else "no array"
            raise TightlipError(f"{path} holds {held}: say which one is meant, as {path}:{(present or ['x'])[0]}")
        chosen = present[0] if name is None else name
        if chosen not in present:
            raise TightlipError(f"{path} has no array {chosen}{hint(chosen, present)}: it holds {', '.join(present)}")
        return _read(path, file, [chosen])[chosen]


def content_sha256(arrays: Mapping[str, Array]) -> str:
    """The hash of arrays in their order: of each its name, dtype, shape and C-ordered bytes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode(errors="surrogateescape"))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Folder(Mapping[str, Any]):
    """The ``.npy`` files of a folder by their stems, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(file.stem for file in self.path.glob("*.npy")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Array:
        file = self.path / f"{name}.npy"
        with _explained(file), file.open("rb") as stream:
            return _array(stream, file.stat().st_size)


class _Members(Mapping[str, Any]):
    """The arrays of an ``.npz`` file by their names, each read when it is asked for."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self.file = file
        self.infos = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        if len(self.infos) < len(file.infolist()):
            raise ValueError("two arrays have one name")

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, name: str) -> Array:
        with self.file.open(self.infos[name]) as member:
            stream = cast(io.BufferedIOBase, member)
            if not _is_array(stream):
                raise TightlipError(
                    f"{self.file.filename} holds something else than an array as {name}: save it with numpy.savez."
                )
            return _array(stream, self.infos[name].file_size)


def _is_array(stream: io.BufferedIOBase) -> bool:
    """Whether it begins as an ``.npy`` file does; it stands at its beginning again."""
    begin = stream.read(len(np.lib.format.MAGIC_PREFIX))
    stream.seek(0)
    return begin == np.lib.format.MAGIC_PREFIX


def _array(stream: io.BufferedIOBase, size: int) -> Array:
    """The array that the ``size`` bytes of an ``.npy`` file hold."""
    _check_header(stream, size)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _check_header(stream: io.BufferedIOBase, size: int) -> None:
    """Refuse a header that promises more numbers than there are bytes for, before memory is asked for."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size - stream.tell():
        raise ValueError(f"it has fewer bytes than its shape {shape!s:.60} takes")
    stream.seek(0)


def _container(path: Path) -> Path:
    """The file or folder that holds all arrays; a folder has a name, even if it was given as "."."""
    if path.suffix.lower() == ".npy":
        if path.stem not in ("x", "x_train"):
            raise TightlipError(f"{path} is one array of several: give its folder, with x.npy and y.npy in it.")
        if not path.is_file():
            raise _absent(path)
        path = path.parent
    return Path(os.path.abspath(path)) if path.is_dir() else path


def _absent(path: Path) -> TightlipError:
    return TightlipError(f"{path} does not exist: give the path of an .npz file, or of a folder with x.npy and y.npy.")


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays by their names; nothing is read yet."""
    if path.suffix.lower() != ".npz" and path.is_dir():
        yield _Folder(path)
        return
    with _explained(path), path.open("rb") as stream:
        if _is_array(stream):
            raise TightlipError(f"{path} holds a single array: save two with numpy.savez(path, x=..., y=...).")
        with opened(path) as file:
            yield _Members(file)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever opening or reading ``path`` raises becomes one sentence."""
    try:
        yield
    except TightlipError:
        raise
    except FileNotFoundError as error:
        raise _absent(path) from error
    except _UNREADABLE as error:
        how = "numpy.save(path, x)" if path.suffix.lower() == ".npy" else "numpy.savez(path, x=..., y=...)"
        said = str(error) or type(error).__name__
        raise TightlipError(f"{path} cannot be read ({said}): save plain number arrays with {how}.") from error


def _read(path: Path, file: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
    present = sorted(file)
    missing = [name for name in names if name not in present]
    if missing:
        one_file = f"it with numpy.savez(path, {', '.join(f'{name}=...' for name in names)})"
        raise TightlipError(
            f"{path} lacks {' and '.join(missing)} (it holds {', '.join(present) or 'nothing'}): "
            f"save {'each as an .npy file of that name' if isinstance(file, _Folder) else one_file}."
        )
    arrays = {name: file[name] for name in names}
    return arrays


def _choose_names(path: Path, present: Collection[str]) -> list[str]:
    """Which arrays to read; one half of a pair asks for the other."""
    whole, train, test = ("x", "y"), ("x_train", "y_train"), ("x_test", "y_test")
    asked = [pair for pair in (whole, train, test) if set(pair) & set(present)]
    if whole in asked and train in asked:
        raise TightlipError(f"{path} holds both x, y and x_train, y_train: keep the pair that is meant.")
    return [*(train if train in asked else whole), *(test if test in asked else ())]


def _largest(*labels: Tensor | None) -> int:
    return max((int(some.max()) for some in labels if some is not None and len(some)), default=0)


def _to_images(path: Path, array: Array) -> UInt8[Tensor, "..."] | Float32[Tensor, "..."]:
    array = channels_first(array)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype.kind != "f":
        inputs, _ = words_for(array.shape[1:])
        raise TightlipError(f"{path} has {array.dtype} {inputs}: save them as uint8 (0 to 255) or as floats.")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, and Dataset says so
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _to_labels(path: Path, array: Array) -> Int64[Tensor, "..."]:
    if array.dtype.kind not in "iu":
        fit = "tightlip.fit(network, torch.nn.functional.mse_loss, (x, y))"
        numbers = f"; if they are numbers to be predicted, train in Python: {fit}" if array.dtype.kind == "f" else ""
        raise TightlipError(f"{path} has {array.dtype} labels: save them as integers 0 to classes - 1{numbers}.")
    column = array.ndim == 2 and array.shape[1] == 1  # as Keras has them
    return torch.from_numpy(np.ascontiguousarray(array[:, 0] if column else array, dtype=np.int64))
