"""Which examples `tightlip certify` certifies, and which of them the model's run has seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import Dataset, load, split
from ..data.dataset import to_unit_floats
from ..data.sources import SPECS, is_table, load_whole
from ..errors import TightlipError
from .origin import Origin, seen

DEFAULT = "mnist5k"
"""The data set of a model that comes from nowhere."""

_MOST = 12
"""Classes that an error names."""


@dataclass(frozen=True)
class Examples:
    """Inputs and labels, and what they are: ``part`` in words, and a ``note`` on what the run has seen of them."""

    images: Tensor
    labels: Tensor
    part: str
    data: str
    seed: int | None
    class_names: tuple[str, ...] = ()
    note: str | None = None
    seen: dict[str, int] | None = None
    feature_names: tuple[str, ...] = ()


def own_test_part(run: Origin, seed: int | None, root: str | None, download: bool) -> Examples:
    """The test part of a run, as it was split off before the training.

    Raises:
        TightlipError: for another seed where the split depends on it, or data that are gone.
    """
    dataset = run.dataset(root, download)
    if seed not in (None, run.seed) and dataset.test_images is None:
        raise TightlipError(
            f"--seed {seed} would take training examples of {run.folder} for test examples, since its data were split "
            f"with seed {run.seed}: leave --seed out"
        )
    test = split(dataset, run.seed).test
    return Examples(
        test.images,
        test.labels,
        f"{len(test)} test examples of this run ({run.data}, seed {run.seed})",
        run.data,
        run.seed,
        feature_names=dataset.feature_names,
    )


def other_examples(
    data: str, seed: int | None, root: str | None, download: bool, run: Origin | None, label: str | None = None
) -> Examples:
    """The test part of a data set, or the whole of a user's own that has none."""
    known = data in SPECS
    if label is None and run is not None and is_table(data):
        label = run.label
    drop = run.left_out(Path(data)) if run is not None and is_table(data) else None
    dataset = load(data, root, download, label) if known else load_whole(data, root, label, drop)
    if run is not None and run.feature_names and dataset.feature_names:
        dataset = replace(dataset, images=_in_order(dataset, run), feature_names=run.feature_names)
    if dataset.test_images is not None and dataset.test_labels is not None:
        images, labels, divided = to_unit_floats(dataset.test_images), dataset.test_labels, None
        part = f"{len(labels)} test examples of {dataset.source if not known else data}"
    elif known:
        divided = 0 if seed is None else seed
        test = split(dataset, divided).test
        images, labels = test.images, test.labels
        part = f"{len(test)} test examples of {data}, split with seed {divided}"
    else:
        images, labels, divided = to_unit_floats(dataset.images), dataset.labels, None
        part = f"all {len(labels)} examples of {dataset.source}, which has no test part"
    names, features = dataset.class_names, dataset.feature_names
    if run is None:
        unknown = divided is not None and seed is None
        return Examples(images, labels, part, data, divided, names, _UNKNOWN if unknown else None, None, features)
    if names and run.class_names:
        labels, names = _renumbered(dataset, labels, run.class_names), run.class_names
    note, count = _note(images, run)
    return Examples(images, labels, part, data, divided, names, note, count, features)


def _in_order(rows: Dataset, run: Origin) -> Tensor:
    """The features of another table as the run's model takes them, by their names."""
    given, wanted = rows.feature_names, run.feature_names
    if set(given) != set(wanted):
        lone = next(name for name in (*wanted, *given) if (name in given) != (name in wanted))
        where = f"has no column {lone!r}" if lone in wanted else f"has a column {lone!r} more"
        raise TightlipError(
            f"{rows.source} {where}, and {run.folder} was trained on {', '.join(wanted[:_MOST])}"
            f"{', …' if len(wanted) > _MOST else ''}: give these features, and the label column"
        )
    return rows.images[:, [given.index(name) for name in wanted]]


_UNKNOWN = (
    "no config.json beside this model says what it was trained on: these are examples that it has not seen only if it "
    "was trained with this seed"
)


def _note(images: Tensor, run: Origin) -> tuple[str | None, dict[str, int] | None]:
    """What the run has seen of these inputs, in words and in numbers."""
    try:
        parts = run.parts()
    except TightlipError as problem:
        return f"whether {run.folder} was trained on some of these is not known ({problem})", None
    count = {name: seen(images, getattr(parts, name).images) for name in ("train", "validation")}
    told = {"training": count["train"], "validation": count["validation"]}
    if not any(told.values()):
        return None, told
    words = (
        f"{count['train']} of these are training examples of {run.folder}, {count['validation']} validation examples"
    )
    return f"{words}: this is not its accuracy on unseen examples", told


def _renumbered(dataset: Dataset, labels: Tensor, names: Sequence[str]) -> Tensor:
    """Labels of a folder of images, or of a table, by the numbers that the run's classes have."""
    if foreign := [name for name in dataset.class_names if name not in names]:
        kind, where = ("class", "") if dataset.feature_names else ("class folder", "the folders ")
        raise TightlipError(
            f"{dataset.source} has a {kind} {foreign[0]}, and the run's classes are {_numbering(names)}: name "
            f"{where or 'them '}as they are"
        )
    return torch.tensor([names.index(name) for name in dataset.class_names])[labels]


def check_classes(network: nn.Module, examples: Examples) -> None:
    """Refuse classes with names that are not the network's classes: their numbers would be others than in training.

    Raises:
        TightlipError: with the number of each folder.
    """
    names = examples.class_names
    outputs = _outputs(network, examples.images) if names else None
    if outputs is None or len(names) == max(outputs, 2):
        return
    if examples.feature_names:
        raise TightlipError(
            f"{examples.data} has {len(names)} classes ({_numbering(names)}), and the network has {outputs} outputs: "
            "give rows of each class that it was trained on, or name another column by --label"
        )
    raise TightlipError(
        f"{examples.data} has {len(names)} class {'folder' if len(names) == 1 else 'folders'}, which would be classes "
        f"{_numbering(names)}, and the network has {outputs} outputs: give a folder for each class that it was trained "
        "on, in the same order, or a folder with x.npy and y.npy, whose labels are the numbers of the training"
    )


def _numbering(names: Sequence[str]) -> str:
    told = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:_MOST]))
    return told + (", …" if len(names) > _MOST else "")


@torch.no_grad()
def _outputs(network: nn.Module, images: Tensor) -> int | None:
    """How many logits there are; None where the inputs do not suit the network."""
    place = next(network.parameters(), images)
    try:
        logits = network(images[:1].to(place.device, place.dtype))
    except (RuntimeError, ValueError, TypeError):
        return None
    return int(logits.shape[1]) if isinstance(logits, Tensor) and logits.dim() == 2 else None
