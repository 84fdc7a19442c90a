"""A sample as points: whatever a file, a folder of images, or a class of a data set holds, as rows of numbers.

    mnist:3, cifar10                  a class of a data set, or all of it
    x.npy, arrays.npz:x               an array (n, …), each of its n entries a point; (n,) are numbers
    table.csv, table.parquet          a row is a point
    folder                            an image is a point

Numbers are taken as they are; images of 8 bits become [0, 1], as everywhere, wherever their channels stand.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightlip.atomic import sha256
from tightlip.choices import hint
from tightlip.data.arrays import Array, content_sha256, read_one
from tightlip.data.channels import channels_first, is_image
from tightlip.data.dataset import Dataset, to_unit_floats
from tightlip.data.folder import read_images
from tightlip.data.sources import SPECS, load
from tightlip.data.standardization import standardized
from tightlip.data.tables import Table, read_csv, read_parquet
from tightlip.errors import TightlipError
from tightlip.tensors import as_tensor
from tightlip.transport.points import exactly

TABLES = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
ARRAYS = (".npy", ".npz")
KINDS = "an .npy, .npz, .csv or .parquet file, a folder of images, or a class of a data set, such as mnist5k:3"

AS_STORED, PIXELS = "the numbers as they are", "pixels from 0 to 1"
"""In what unit coordinates are."""

DEVIATIONS = "standard deviations of each coordinate, over both samples"

FARTHEST = 1e300
"""The largest number that can be drawn, with room around it."""

PIECE = 2**20
"""So many numbers are looked at together."""


@dataclass(frozen=True, eq=False)
class Points:
    """A sample that is ready to be compared.

    Fields:
        given: what named it.
        values: (n, …), a tensor or an array, which may be memory-mapped.
        sha256: of the file, or of what the data set or the folder holds.
        unit: of the coordinates, in words.
        rows: (n,), which rows of its source these are.
        part: of the data set: train or test.
        columns: names of the coordinates, where they have any.
        names: of the rows of the source, such as names of files.
    """

    given: str
    values: Tensor | Array
    sha256: str
    unit: str
    rows: Array
    part: str | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one point."""
        return tuple(self.values.shape[1:])

    @property
    def size(self) -> int:
        """How many coordinates a point has."""
        return math.prod(self.shape)

    def called(self, row: int) -> str:
        """The name of one of these points: that of its file, or its number in the source."""
        source = int(self.rows[row])
        return self.names[source] if self.names else f"row {source}"

    def at(self, index: Array) -> "Points":
        """Those points alone."""
        return replace(self, values=self.values[index], rows=self.rows[index])

    def flat(self, index: Array | slice = slice(None)) -> Tensor:
        """Points as float64 rows (n, d), exactly.

        Raises:
            TightlipError: for numbers that float64 has not.
        """
        values = self.values[index]
        some = values if isinstance(values, Tensor) else as_tensor(np.asarray(values), self.given)
        return exactly(some, self.given).reshape(len(some), self.size)


def read_points(given: str, part: str | None = None, root: str | None = None, download: bool = False) -> Points:
    """What a path or the name of a data set, with a class if only that is meant, holds.

    Args:
        given: such as ``x.npy``, ``arrays.npz:x``, ``table.csv``, a folder, ``mnist5k:3`` or ``mnist``.
        part: of a data set that has two: train, if None, or test.
        root: folder with published data sets; replaces TIGHTLIP_DATA.
        download: fetch missing files of a data set.

    Raises:
        TightlipError: for anything that is not there, damaged, empty, no numbers, NaN or infinite; a class that does
            not exist; options that do not apply.
    """
    path, name = _parted(given)
    if is_published(given):
        found = _of_dataset(given, path, name, part, root, download)
    else:
        _refuse_options(given, part, root)
        found = _of_path(given, Path(path), name)
    if not found.values.shape[0] or not found.size:
        raise TightlipError(f"{given} is empty: give one point at least")
    return found


def is_published(given: str) -> bool:
    """Whether this names a known data set, or a class of one, and no file of that name."""
    return _parted(given)[0] in SPECS and not os.path.exists(given)


def path_of(given: str) -> Path:
    """Where it is read from; for the name of a data set, a path that is not there."""
    return Path(_parted(given)[0])


def limited(points: Points, limit: int | None, generator: torch.Generator) -> Points:
    """At most so many of the points, drawn at random, in their order."""
    if limit is None or limit >= len(points):
        return points
    return points.at(torch.randperm(len(points), generator=generator)[:limit].sort().values.numpy())


def refuse_unlike(a: Points, b: Points) -> None:
    """Refuse points of two spaces.

    Raises:
        TightlipError: for another number of coordinates, names of columns, or units.
    """
    if a.shape != b.shape:
        sizes = f"{_sized(a.shape)} in {a.given} and of {_sized(b.shape)} in {b.given}"
        raise TightlipError(f"points are of {sizes}: a distance takes the same coordinates in both")
    if a.columns and b.columns and a.columns != b.columns:
        lone = [name for name in a.columns if name not in b.columns]
        how = f"{lone[0]!r} is only in {a.given}" if lone else "they are in another order"
        raise TightlipError(f"{a.given} and {b.given} have other columns ({how}): give the same ones, in one order")
    if a.unit != b.unit:
        raise TightlipError(f"{a.given} has {a.unit}, and {b.given} has {b.unit}: bring both to one unit")


def in_deviations(a: Points, b: Points) -> tuple[Points, Points]:
    """Each coordinate divided by its standard deviation over both samples; one that never changes is left.

    Raises:
        TightlipError: for numbers that float64 has not.
    """
    both = standardized(torch.cat((a.flat(), b.flat())))
    x, y = (part.reshape(-1, *a.shape) for part in both.split([len(a), len(b)]))
    return replace(a, values=x, unit=DEVIATIONS), replace(b, values=y, unit=DEVIATIONS)


def refuse_non_finite(points: Points) -> None:
    """Refuse NaN and infinity, and what no picture has room for, looking at a piece at a time.

    Raises:
        TightlipError: with the number of rows, and the first of them.
    """
    bad: list[int] = []
    size = max(1, PIECE // points.size)
    for first in range(0, len(points), size):
        values = np.asarray(points.values[first : first + size])
        if values.dtype.kind == "f":
            finite = np.isfinite(values).reshape(len(values), -1).all(1)
            bad += (first + np.flatnonzero(~finite)).tolist()
            if not bad and float(np.abs(values).max()) > FARTHEST:
                raise TightlipError(f"{points.given} holds numbers beyond {FARTHEST:g}: give it in another unit")
    if bad:
        raise TightlipError(
            f"{len(bad)} of {len(points)} rows of {points.given} hold NaN or infinity, the first of them "
            f"{points.called(bad[0])}: mend or drop them"
        )


def _parted(given: str) -> tuple[str, str | None]:
    """What stands before and after the last colon, where that names a part of something."""
    head, colon, name = given.rpartition(":")
    named = colon and not os.path.exists(given) and (head in SPECS or head.lower().endswith(".npz"))
    return (head, name) if named else (given, None)


def _refuse_options(given: str, part: str | None, root: str | None) -> None:
    if part is not None:
        raise TightlipError(f"--part {part} is of data sets with two parts, and {given} has none: leave it out")
    if root is not None:
        raise TightlipError(f"--data-root is where published files are, and {given} is read where it is: leave it out")


def _of_path(given: str, path: Path, name: str | None) -> Points:
    if path.is_dir():
        names, pixels = read_images(path)
        digest = content_sha256(dict(zip(names, pixels, strict=True)))
        return _points(given, to_unit_floats(torch.from_numpy(pixels)), digest, PIXELS, names=names)
    if not path.exists():
        raise _absent(given)
    kind = path.suffix.lower()
    if kind in ARRAYS:
        return _of_array(given, path, read_one(path, name))
    if kind in TABLES:
        table: Table = TABLES[kind](path)
        return _points(given, table.values, sha256(path), AS_STORED, columns=table.columns)
    raise TightlipError(f"{path} is a {path.suffix or 'single'} file: give {KINDS}")


def _of_array(given: str, path: Path, array: Array) -> Points:
    if array.dtype.kind not in "iuf":
        raise TightlipError(f"{given} holds {array.dtype} and not numbers: convert it first")
    if not array.ndim:
        raise TightlipError(f"{given} is a single number: give points (n, …)")
    array = channels_first(array[:, None] if array.ndim == 1 else array)
    if array.dtype == np.uint8 and is_image(array.shape[1:]):
        return _points(given, to_unit_floats(torch.from_numpy(np.array(array))), sha256(path), PIXELS)
    return _points(given, array, sha256(path), AS_STORED)


def _of_dataset(given: str, name: str, label: str | None, part: str | None, root: str | None, download: bool) -> Points:
    dataset = load(name, root, download)
    images, labels, part = _part(dataset, part)
    rows = np.arange(len(labels))
    if label is not None:
        rows = rows[labels.numpy() == _class(dataset, label)]
    unit = PIXELS if images.dtype == torch.uint8 else AS_STORED
    points = _points(given, to_unit_floats(images[rows]), dataset.sha256, unit, part=part)
    return replace(points, rows=rows)


def _part(dataset: Dataset, part: str | None) -> tuple[Tensor, Tensor, str | None]:
    """Inputs and labels of a part, and its name; of the whole where there is only one."""
    if dataset.test_images is None or dataset.test_labels is None:
        if part is not None:
            raise TightlipError(
                f"{dataset.name} has no {part} part of its own: leave --part out, and it is taken whole"
            )
        return dataset.images, dataset.labels, None
    if part == "test":
        return dataset.test_images, dataset.test_labels, part
    return dataset.images, dataset.labels, "train"


def _class(dataset: Dataset, label: str) -> int:
    names = dataset.class_names or tuple(map(str, range(dataset.classes)))
    if label not in names:
        known = f"0 to {dataset.classes - 1}" if not dataset.class_names else ", ".join(names)
        raise TightlipError(f"{dataset.name} has no class {label!r}: its classes are {known}")
    return names.index(label)


def _points(given: str, values: Any, digest: str, unit: str, **rest: Any) -> Points:
    return Points(given, values, digest, unit, np.arange(len(values)), **rest)


def _absent(given: str) -> TightlipError:
    if os.path.islink(given):
        return TightlipError(f"{given} is a link to what is not there: mend it, or give {KINDS}")
    beside = [str(Path(given).parent / other) for other in _beside(Path(given).parent)]
    return TightlipError(f"there is no {given}{hint(given, [*SPECS, *beside])}: give {KINDS}")


def _beside(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _sized(shape: Sequence[int]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} number{'s' * (shape[0] != 1)}"
    return "×".join(map(str, shape))
