"""The known data sets as a table, where their files are looked for, and `load`.

A file is looked for in this order, and the first one found is the one that is read:

    1. ROOT/NAME, ROOT, ROOT/TORCHVISION_NAME/raw    ROOT: the argument ``root``, or else the variable TIGHTLIP_DATA
    2. the cache                                     TIGHTLIP_CACHE, or else the platform's cache folder
    3. the mirrors, into the cache                   only with ``download=True``

gzipped (``.gz``) or not. Whatever is read must have the pinned sha256 once decompressed; a file that has not is an
error that names it, never a reason to look further, and no data set ever stands in for another.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from platformdirs import user_cache_dir

from tightlip.data.arrays import content_sha256, load_arrays, read_npz
from tightlip.data.dataset import Dataset
from tightlip.data.download import download as download_file
from tightlip.data.idx import parse, unpack
from tightlip.errors import TightlipError

_GZIP_SLACK = 1 << 16  # by so many bytes a gzipped file may exceed what it holds
_MNIST_LICENCE = "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"


def load(name: str | Path, root: str | Path | None = None, download: bool = False) -> Dataset:
    """A known data set, or a user's own.

    Args:
        name: a name in `SPECS` (``mnist5k`` comes with the package), or the path of an ``.npz`` file (`load_arrays`).
        root: folder with the files of a known data set; replaces the environment variable TIGHTLIP_DATA.
        download: fetch missing files of a known data set from its mirrors into the cache.

    Raises:
        TightlipError: an unknown name, files that are missing, damaged or not the published ones, mirrors that all
            fail, or data that `Dataset` refuses.
    """
    if str(name) in SPECS:
        return SPECS[str(name)].load(root, download)
    if str(name).endswith(".npz"):
        return load_arrays(name)
    raise TightlipError(
        f"{str(name)!r} is no known data set: ask for one of {', '.join(sorted(SPECS))}, "
        "or give the path of an .npz file."
    )


class Spec(Protocol):
    """What the table holds: anything that can load itself."""

    def load(self, root: str | Path | None, download: bool) -> Dataset:
        """The complete, verified data set, or a `TightlipError`."""
        ...


@dataclass(frozen=True)
class PackagedSpec:
    """A data set that the package ships: an ``.npz`` file of ``images`` (n, h, w) and ``labels`` (n,)."""

    name: str
    file: Path
    sha256: str
    classes: int
    licence: str

    def load(self, root: str | Path | None = None, download: bool = False) -> Dataset:
        """The data set; neither argument matters, because nothing can be missing.

        Raises:
            TightlipError: the file is damaged or altered.
        """
        arrays = read_npz(self.file, ("images", "labels"))
        _check_sha256(self.file, content_sha256(arrays), self.sha256)
        images, labels = (torch.from_numpy(array) for array in arrays.values())
        return Dataset(
            name=self.name,
            source="package",
            sha256=self.sha256,
            images=images.unsqueeze(1),
            labels=labels.long(),
            test_images=None,
            test_labels=None,
            classes=self.classes,
            licence=self.licence,
        )


@dataclass(frozen=True)
class RawFile:
    """A published file by what it holds when decompressed: its ``sha256`` and its ``size`` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class IdxSpec:
    """Four IDX files.

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
        places = list(_places(self, root))
        found = [_find(file, places) for file in self.files]
        if None in found and not download:
            raise TightlipError(self._absence(self.files[found.index(None)], places))
        located = [place or self._download(file) for place, file in zip(found, self.files, strict=True)]
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

    def _download(self, file: RawFile) -> tuple[str, Path]:
        target = cache_folder() / self.name / f"{file.name}.gz"
        urls = [f"{mirror}{file.name}.gz" for mirror in self.mirrors]
        url = download_file(urls, target, file.size + _GZIP_SLACK, partial(_verified, file))
        return (url.removesuffix(target.name) if url else "cache"), target

    def _absence(self, file: RawFile, places: list[tuple[str, Path]]) -> str:
        return (
            f"{self.name} is not complete on this machine ({file.name}.gz was looked for in "
            f"{', '.join(str(folder) for _, folder in places)}): set TIGHTLIP_DATA to a folder that holds "
            f"{self.name}/{file.name}.gz and its companions, or pass download=True (--download on the command line)."
        )


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable TIGHTLIP_CACHE, or else the platform's cache folder."""
    return Path(os.environ.get("TIGHTLIP_CACHE") or user_cache_dir("tightlip", appauthor=False)).expanduser()


def _places(spec: IdxSpec, root: str | Path | None) -> Iterator[tuple[str, Path]]:
    """The folders to look in, each with the word that tells a result where its data came from."""
    word, folder = ("root", root) if root is not None else ("TIGHTLIP_DATA", os.environ.get("TIGHTLIP_DATA"))
    if folder:
        folder = Path(folder).expanduser()
        if not os.path.isdir(folder):
            raise TightlipError(f"{word} is {folder}, which is not a folder: give the folder that holds {spec.name}.")
        yield word, folder / spec.name
        yield word, folder
        yield word, folder / spec.torchvision / "raw"
    yield "cache", cache_folder() / spec.name


def _find(file: RawFile, places: list[tuple[str, Path]]) -> tuple[str, Path] | None:
    candidates = ((word, folder / f"{file.name}{suffix}") for word, folder in places for suffix in (".gz", ""))
    return next(((word, path) for word, path in candidates if os.path.isfile(path)), None)


def _verified(file: RawFile, path: Path) -> bytes:
    """The file's content without compression, if it is the published one."""
    content = unpack(path, file.size)
    _check_sha256(path, hashlib.sha256(content).hexdigest(), file.sha256)
    return content


def _check_sha256(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise TightlipError(
            f"{path} is not the published file (the sha256 of its content starts with {actual[:12]}, not with "
            f"{expected[:12]}): delete it and fetch it again."
        )


def _four(*sha256: str) -> tuple[RawFile, RawFile, RawFile, RawFile]:
    """MNIST's four files, which Fashion-MNIST repeats in name and size: images are 16 + 784 n bytes, labels 8 + n."""
    train_images, train_labels, test_images, test_labels = sha256
    return (
        RawFile("train-images-idx3-ubyte", train_images, 16 + 784 * 60_000),
        RawFile("train-labels-idx1-ubyte", train_labels, 8 + 60_000),
        RawFile("t10k-images-idx3-ubyte", test_images, 16 + 784 * 10_000),
        RawFile("t10k-labels-idx1-ubyte", test_labels, 8 + 10_000),
    )


SPECS: dict[str, Spec] = {
    "mnist5k": PackagedSpec(
        name="mnist5k",
        file=Path(__file__).with_name("mnist5k.npz"),
        sha256="e0c7857eb56dfee7b052e66ec26d1f5e2d7d8eb81a9c91cbc16b9bc18852797f",
        classes=10,
        licence=f"{_MNIST_LICENCE}; a selection, see mnist5k.LICENSE.txt",
    ),
    "mnist": IdxSpec(
        name="mnist",
        torchvision="MNIST",
        files=_four(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        classes=10,
        licence=_MNIST_LICENCE,
    ),
    "fashion-mnist": IdxSpec(
        name="fashion-mnist",
        torchvision="FashionMNIST",
        files=_four(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        classes=10,
        licence="MIT, Zalando SE",
    ),
}
"""Every known data set by its name; one more is one more entry."""
