"""A labelled data set that is valid by construction, and its one seeded, stratified split.

A `Dataset` that exists has passed every check: finite pixels, integer labels in [0, classes), matching lengths, at
least three examples of every class. `split` draws from one seeded permutation, class by class, so that each part holds
every class in the proportion of the whole:

    test part given by the data set    train 11/12, validation 1/12     MNIST 55,000 / 5,000 / 10,000
    no test part                       72 % / 8 % / 20 %                mnist5k 3,600 / 400 / 1,000
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from tightlip.arguments import integer
from tightlip.errors import TightlipError

_TEST_SHARE = (20, 100)  # of the whole, where the data set brings no test part
_VALIDATION_SHARE = (8, 100)  # of the whole, beside a test part that was carved out of it
_VALIDATION_SHARE_OF_TRAINING = (1, 12)  # where the data set brings its own test part


def words_for(shape: Sequence[int]) -> tuple[str, str]:
    """What examples of this shape and the numbers in them are called: images have three axes, rows of a table one.

    >>> words_for((1, 28, 28)), words_for((13,)), words_for((50, 3))
    (('images', 'pixels'), ('rows', 'features'), ('examples', 'values'))
    """
    return {3: ("images", "pixels"), 1: ("rows", "features")}.get(len(shape), ("examples", "values"))


def called(label: int, names: Sequence[str]) -> str:
    """The name of a class, or its number where classes have none.

    >>> called(1, ("ant", "bat")), called(8, ())
    ('bat', '8')
    """
    return names[label] if 0 <= label < len(names) else str(label)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images (or any other tensors), checked when made.

    Fields:
        name: what `load` was asked for, or the stem of the user's file.
        source: where the bytes came from: ``package``, ``root``, ``TIGHTLIP_DATA``, ``cache``, a mirror's address, or
            the name of a file or folder.
        sha256: hash of the data itself, independent of how it was compressed; cifar10's is that of its one archive.
        images: (n, *shape), uint8 in 0..255 or float32 as it is; uint8 stays uint8 until `split`.
        labels: (n,), int64 in [0, classes).
        test_images: (m, *shape) of the same dtype, or None: then `split` carves the test part out of ``images``.
        test_labels: (m,), or None together with ``test_images``.
        classes: number of classes.
        licence: the terms under which the data may be used.
        class_names: what the classes are called, in their order; empty where they have numbers only.
        whole: looked at whole, and never split: then one example is enough, and classes may have none.
        feature_names: of a table what its features are called, in the order of ``images`` (n, features); else empty.
        label: of a table the column of the classes.

    Raises:
        TightlipError: a wrong dtype or shape, lengths that differ, NaN or infinite pixels, labels outside [0, classes),
            no examples, or fewer than three of some class that is to be split.
    """

    name: str
    source: str
    sha256: str
    images: Tensor  # no shapes in these four: to check them, and answer in sentences, is what the class is for
    labels: Tensor
    test_images: Tensor | None
    test_labels: Tensor | None
    classes: int
    licence: str
    class_names: tuple[str, ...] = ()
    whole: bool = False
    feature_names: tuple[str, ...] = ()
    label: str = ""

    def __repr__(self) -> str:
        test = "no test part" if self.test_images is None else f"{len(self.test_images)} test"
        shape = tuple(self.images.shape[1:])
        return f"Dataset({self.name}: {len(self.images)} × {shape}, {self.classes} classes, {test})"

    def __post_init__(self) -> None:
        _check_pairs(self.name, self.images, self.labels, self.classes)
        if self.class_names and len(self.class_names) != self.classes:
            raise TightlipError(
                f"{self.name} has {self.classes} classes but {len(self.class_names)} names for them: name all or none."
            )
        if self.feature_names and tuple(self.images.shape[1:]) != (len(self.feature_names),):
            raise TightlipError(
                f"{self.name} has inputs of shape {tuple(self.images.shape[1:])} and names of "
                f"{len(self.feature_names)} features: name each feature of a row, or none."
            )
        if not self.whole:
            _check_three_of_each(self.name, self.labels, self.classes)
        if self.test_images is None and self.test_labels is None:
            return
        if self.test_images is None or self.test_labels is None:
            raise TightlipError(f"{self.name} has a test part without inputs or without labels: give both or neither.")
        _check_pairs(f"{self.name}, test part", self.test_images, self.test_labels, self.classes)
        if self.test_images.shape[1:] != self.images.shape[1:] or self.test_images.dtype != self.images.dtype:
            raise TightlipError(
                f"{self.name} trains on {_describe(self.images)} but tests on {_describe(self.test_images)}: "
                "give both parts one shape and one dtype."
            )


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a split: ``images`` (n, *shape), float32, in [0, 1] if they were uint8; ``labels`` (n,), int64."""

    images: Float32[Tensor, "n *shape"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Part({len(self)} × {tuple(self.images.shape[1:])})"


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint parts: fit on ``train``, choose on ``validation``, report on ``test``."""

    train: Part
    validation: Part
    test: Part

    def __repr__(self) -> str:
        return f"Splits(train {len(self.train)}, validation {len(self.validation)}, test {len(self.test)})"


def split(dataset: Dataset, seed: int) -> Splits:
    """Train, validation and test parts, stratified by class and shuffled; the same seed gives the same split.

    This is where uint8 pixels become float32 (divided by 255); float32 images are passed on unscaled. A test part that
    the data set brings is used whole and in its own order. Every part holds at least one example of every class. Draws
    from a generator of its own: torch's global one is neither read nor moved.
    """
    if not isinstance(dataset, Dataset):
        raise TightlipError(f"split takes a Dataset, as load gives, got a value of type {type(dataset).__name__}.")
    if dataset.whole:
        _check_three_of_each(dataset.name, dataset.labels, dataset.classes)
    seed = integer("seed", seed, least=0)
    rest = torch.randperm(len(dataset.labels), generator=torch.Generator().manual_seed(seed))
    if dataset.test_images is not None and dataset.test_labels is not None:
        validation, train = _draw(dataset, rest, _VALIDATION_SHARE_OF_TRAINING)
        test = Part(to_unit_floats(dataset.test_images), dataset.test_labels)
    else:
        chosen, rest = _draw(dataset, rest, _TEST_SHARE)
        validation, train = _draw(dataset, rest, _VALIDATION_SHARE)
        test = _part(dataset, chosen)
    return Splits(_part(dataset, train), _part(dataset, validation), test)


def _draw(
    dataset: Dataset, order: Int64[Tensor, " rest"], share: tuple[int, int]
) -> tuple[Int64[Tensor, " chosen"], Int64[Tensor, " left"]]:
    """Take ``share`` of the whole data set out of ``order``, the first ones of each class; both keep their order."""
    labels = dataset.labels[order]
    counts = torch.bincount(labels, minlength=dataset.classes)
    total = max(round(len(dataset.labels) * share[0] / share[1]), dataset.classes)
    taken: Bool[Tensor, " rest"] = torch.zeros_like(labels, dtype=torch.bool)
    for label, quota in enumerate(_quotas(counts, total).tolist()):
        taken[(labels == label).nonzero()[:quota]] = True
    return order[taken], order[~taken]


def _quotas(counts: Int64[Tensor, " classes"], total: int) -> Int64[Tensor, " classes"]:
    """Examples per class: at least one, ``total`` in all, otherwise as near to total·count/Σ count as can be."""
    ideal: Float64[Tensor, " classes"] = total * counts.double() / counts.sum()
    quotas = ideal.floor().clamp(min=1.0)
    while quotas.sum() < total:
        quotas[(ideal - quotas).argmax()] += 1
    while quotas.sum() > total:
        quotas[(quotas - ideal).masked_fill(quotas <= 1, -torch.inf).argmax()] -= 1
    return quotas.long()


def _part(dataset: Dataset, index: Int64[Tensor, " n"]) -> Part:
    return Part(to_unit_floats(dataset.images[index]), dataset.labels[index])


def to_unit_floats(images: UInt8[Tensor, "*s"] | Float32[Tensor, "*s"]) -> Float32[Tensor, "*s"]:
    """Pixels as networks see them: uint8 divided by 255, floats as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _describe(images: Tensor) -> str:
    return f"{tuple(images.shape[1:])} {str(images.dtype).removeprefix('torch.')}"


def _check_pairs(name: str, images: Tensor, labels: Tensor, classes: int) -> None:
    """Every check that a part must pass on its own; the test part passes the same."""
    inputs, _ = words_for(images.shape[1:])
    if images.dtype not in (torch.uint8, torch.float32):
        raise TightlipError(f"{name} has {images.dtype} {inputs}: convert them to uint8 (0 to 255) or float32.")
    if images.ndim < 2 or 0 in images.shape[1:]:
        raise TightlipError(f"{name} has inputs of shape {tuple(images.shape)}: give (examples, *shape).")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise TightlipError(
            f"{name} has {labels.dtype} labels of shape {tuple(labels.shape)}: give int64 ones of shape (examples,)."
        )
    if len(images) != len(labels):
        raise TightlipError(f"{name} has {len(images)} {inputs} but {len(labels)} labels: give one label for each.")
    if len(labels) == 0:
        raise TightlipError(f"{name} is empty: give at least three examples of every class.")
    _check_values(name, images, labels, classes)


def _check_values(name: str, images: Tensor, labels: Tensor, classes: int) -> None:
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise TightlipError(
            f"{name} has labels from {lowest} to {highest} but {classes} classes: number them 0 to {classes - 1}."
        )
    finite = images.isfinite().flatten(1).all(1) if images.is_floating_point() else None
    if finite is not None and not finite.all():
        inputs, entries = words_for(images.shape[1:])
        raise TightlipError(
            f"{name} has NaN or infinite {entries} in {int((~finite).sum())} of {len(images)} {inputs}, "
            f"the first at index {int(finite.long().argmin())}: mend or drop them."
        )


def _check_three_of_each(name: str, labels: Tensor, classes: int) -> None:
    counts = torch.bincount(labels, minlength=classes)
    if counts.min() < 3:
        raise TightlipError(
            f"{name} has {int(counts.min())} examples of class {int(counts.argmin())}: training, validation and test "
            "need one each, so give at least three of every class."
        )
