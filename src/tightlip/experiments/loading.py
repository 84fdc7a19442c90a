"""What a run begins with: data that suit its options, and options that suit its data.

Where nothing is given a run on a table has what `table_sizes` says, all else the defaults of `classification_options`.
"""

from dataclasses import replace
from typing import Any

from ..data import Dataset, Part, load
from ..data.augmentation import is_image
from ..data.dataset import words_for
from ..errors import TightlipError
from .classification_options import Config
from .table_sizes import CLASSES, HIDDEN, batch_of, passes_over

MIXED = 64
"""Fewest examples of a batch whose mean stands for that of all."""


def loaded(config: Config, root: str | None = None, download: bool = False) -> Dataset:
    """The data, if these options suit them.

    Raises:
        TightlipError: for data of one class, a shift, mirror image or mean of channels of what is no image, a
            standardization of what are no rows, and as `load`.
    """
    dataset = load(config.data, root=root, download=download, label=config.label, drop=config.drop)
    if dataset.classes < 2:
        raise TightlipError(f"{dataset.name} has one class, and a classifier tells classes apart: give at least two")
    if not is_image(dataset.images):
        _refuse_for_rows(config, dataset)
    if config.standardize == "yes" and dataset.images.dim() != 2:
        raise TightlipError(
            f"standardize=yes (--standardize) is for rows of features, and inputs of {dataset.name} have shape "
            f"{tuple(dataset.images.shape[1:])}: leave it out"
        )
    return dataset


def suited(config: Config, dataset: Dataset, rows: int) -> Config:
    """The options with what suits the data where nothing is given; ``rows`` is the size of the training part."""
    usual: dict[str, Any] = {}
    if is_image(dataset.images):
        center = config.trained_by.center
        usual["center"] = "inputs" if center == "layers" and min(config.batch, rows) < MIXED else center
    if dataset.feature_names:
        usual = {"standardize": "yes", "batch_size": batch_of(rows)}
        if config.trained_by.hidden is None and config.network == "mlp":
            usual["hidden"] = HIDDEN
        if config.minutes is None:
            usual["epochs"] = passes_over(rows, CLASSES)
    return replace(config, **{name: value for name, value in usual.items() if getattr(config, name) is None})


def described(dataset: Dataset, train: Part) -> str:
    """What is learned from, in words."""
    inputs, entries = words_for(dataset.images.shape[1:])
    if not dataset.feature_names:
        return f"{len(train)} {inputs}"
    features = len(dataset.feature_names)
    return f"{len(train)} {inputs} of {features} {entries}, to predict {dataset.label} ({dataset.classes} classes)"


def _refuse_for_rows(config: Config, rows: Dataset) -> None:
    """Refuse what is of images, asked for in so many words, where inputs are none."""
    asked = {
        f"shift={config.shift} (--shift) moves": config.shift,
        "flip=True (--flip) mirrors": config.flip,
        "center=inputs (--center) takes means off the channels of": config.center == "inputs",
    }
    for words, given in asked.items():
        if given:
            shape = tuple(rows.images.shape[1:])
            raise TightlipError(
                f"{words} images (channels, height, width), and inputs of {rows.name} have shape {shape}: leave it out"
            )
