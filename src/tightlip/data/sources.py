"""The known data sets as a table, and `load`.

Where their files are looked for stands in `published`. Nothing is fetched unless that is asked for, whatever is read
must have the pinned sha256, and no data set ever stands in for another.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from tightlip.choices import hint
from tightlip.data.arrays import content_sha256, load_arrays, read_npz
from tightlip.data.cifar import CifarSpec
from tightlip.data.dataset import Dataset
from tightlip.data.folder import load_folder
from tightlip.data.idx import IdxSpec, RawFile
from tightlip.data.labeled import SUFFIXES as TABLES
from tightlip.data.labeled import dropped, load_table
from tightlip.data.published import check_sha256
from tightlip.errors import TightlipError

_MNIST_LICENCE = "CC BY-SA 3.0, Yann LeCun and Corinna Cortes"


def load(
    name: str | Path,
    root: str | Path | None = None,
    download: bool = False,
    label: str | None = None,
    drop: Sequence[str] | None = None,
) -> Dataset:
    """A known data set, or a user's own.

    Args:
        name: a name in `SPECS` (``mnist5k`` comes with the package); or the path of an ``.npz`` file, of a folder with
            ``x.npy`` and ``y.npy``, or of that ``x.npy`` (`load_arrays`); or of a ``.csv``, ``.tsv`` or ``.parquet``
            table (`load_table`); or the path of a folder of images (`load_folder`). A folder that holds any ``.npy``
            file is one of arrays.
        root: folder with the published files of a known data set; replaces the environment variable TIGHTLIP_DATA.
        download: fetch missing files of a known data set from its mirrors into the cache.
        label: of a table the column that holds the classes; None is the last.
        drop: of a table the columns that are left out, such as numbers of customers.

    Raises:
        TightlipError: an unknown name, a ``root`` for data that are elsewhere, columns of what is no table, files
            that are missing, damaged or not the published ones, mirrors that all fail, or data that `Dataset` refuses.
    """
    if not isinstance(name, str | Path):
        raise TightlipError(f"name must be that of a data set, or a path, got a value of type {type(name).__name__}.")
    spec = SPECS.get(str(name))
    _refuse_root(name, root)
    _refuse_columns(name, label, drop)
    return _read_own(name, whole=False, label=label, drop=drop) if spec is None else spec.load(root, download)


def load_whole(
    path: str, root: str | None = None, label: str | None = None, drop: Sequence[str] | None = None
) -> Dataset:
    """A user's own data, to be looked at whole and never split: one example is enough.

    Raises:
        TightlipError: as `load`.
    """
    _refuse_root(path, root)
    _refuse_columns(path, label, drop)
    return _read_own(path, whole=True, label=label, drop=drop)


def is_table(name: str | Path) -> bool:
    """Whether data of this name are a table: rows of features whose columns have names."""
    return str(name) not in SPECS and str(name).lower().endswith(TABLES)


def _refuse_columns(name: str | Path, label: str | None, drop: Sequence[str] | None) -> None:
    for option, given in (("label", label), ("drop", ", ".join(dropped(drop)) or None)):
        if given is not None and not is_table(name):
            raise TightlipError(
                f"{option}={given} (--{option}) is a column of a table ({', '.join(TABLES)}), and {name} is none: "
                "leave it out"
            )


def _refuse_root(name: str | Path, root: str | Path | None) -> None:
    spec = SPECS.get(str(name))
    if root is not None and (spec is None or isinstance(spec, PackagedSpec)):
        why = "comes with the package" if spec else "is read where it is"
        raise TightlipError(f"root={root} (--data-root) is where published files are, and {name} {why}: leave it out.")


def _read_own(name: str | Path, whole: bool, label: str | None, drop: Sequence[str] | None) -> Dataset:
    if is_table(name) and os.path.isfile(name):
        return load_table(Path(name), label, whole, drop)
    if str(name).lower().endswith((".npz", ".npy")):
        return load_arrays(name, whole)
    if os.path.isdir(name):
        return load_arrays(name, whole) if any(Path(name).glob("*.npy")) else load_folder(name, whole)
    raise _unknown(str(name))


def _unknown(name: str) -> TightlipError:
    """The sentence for what is neither a known name nor a path that can be read."""
    path = Path(name)
    if path.is_file():
        return TightlipError(
            f"{name} is a {path.suffix or 'single'} file, and data are read from .npz, .csv, .tsv and .parquet files "
            f"and folders: load it in Python, and save it with numpy.savez('{path.stem}.npz', x=inputs, y=labels)."
        )
    where = f"{name} does not exist" if path.suffix or len(path.parts) > 1 else f"no data set is called {name!r}"
    return TightlipError(
        f"{where}{hint(name, SPECS)}: choose one of {', '.join(sorted(SPECS))}, or give the path of an "
        ".npz, .csv, .tsv or .parquet file, of a folder with x.npy and y.npy, or of a folder of images with a "
        "subfolder a class."
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
        """The data set; nothing can be missing.

        Raises:
            TightlipError: the file is damaged or altered.
        """
        arrays = read_npz(self.file, ("images", "labels"))
        check_sha256(self.file, content_sha256(arrays), self.sha256)
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
    "cifar10": CifarSpec(
        name="cifar10",
        archive="cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170_052_171,
        train=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        test="cifar-10-batches-bin/test_batch.bin",
        records=10_000,
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        classes=10,
        licence="unspecified by its authors (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images)",
    ),
}
"""Every known data set by its name; one more is one more entry."""
