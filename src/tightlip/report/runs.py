"""One run as the report sees it: the two JSON files of a run folder, read once, checked, and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightlip.data.dataset import words_for
from tightlip.errors import TightlipError
from tightlip.linkage import check_model
from tightlip.report.fields import Fields, read_fields

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One row of the audit: a module, its constant (rounded up) and the norms that it stands between."""

    name: str
    module: str
    constant: float
    input_norm: str
    output_norm: str


@dataclass(frozen=True)
class Epoch:
    """One row of the training history; accuracies in [0, 1], time in seconds."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_score: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Attack:
    """What an attack left standing: accuracy in [0, 1] for each eps, over the first `images` test images."""

    images: int
    steps: int
    restarts: int
    eps: Vector
    accuracy: Vector


@dataclass(frozen=True)
class Example:
    """A test image in [0, 1], its certified radius (inf: no bound) and the margin's input gradient, both (C, H, W)."""

    index: int
    label: int
    prediction: int
    radius: float
    image: Vector
    gradient: Vector

    @property
    def correct(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.prediction


@dataclass(frozen=True)
class Run:
    """Everything that a report shows of one run; accuracies in [0, 1], radii and eps in raw input units, seconds."""

    name: str
    command: str
    config: Mapping[str, object]
    data: Mapping[str, object]
    seed: int
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, object]
    device: str
    threads: int
    machine: str
    seconds: Mapping[str, float]
    history: tuple[Epoch, ...]
    best_epoch: int
    accuracy: float
    certified: Mapping[str, float]
    attacked: Mapping[str, float]
    input_norm: str
    output_norm: str
    constant: float
    arithmetic: str
    layers: tuple[Layer, ...]
    sensitivity: float
    eps: Vector
    certified_accuracy: Vector
    attack: Attack | None
    radius: Vector
    label: Vector
    prediction: Vector
    examples: tuple[Example, ...]

    @property
    def inputs(self) -> str:
        """What its inputs are called: images, rows or examples."""
        shape = self.data["shape"]
        return words_for(shape)[0] if isinstance(shape, list) else "examples"

    @property
    def main_eps(self) -> str | None:
        """The eps of the headline, as written: the first one in the test part's certified accuracies."""
        return next(iter(self.certified), None)

    def called(self, label: int) -> str:
        """A class with its article: 'a dog', or 'a 2' where classes have numbers only."""
        names = self.data.get("class_names", ())
        name = names[label] if isinstance(names, list) and 0 <= label < len(names) else str(label)
        return f"{'an' if name[:1].lower() in tuple('aeiou8') else 'a'} {name}"

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which test images are classified correctly."""
        return self.label == self.prediction


def read_run(folder: Path) -> Run:
    """Read `metrics.json` and `certificate.json` of one run folder.

    Raises:
        TightlipError: a file is absent, broken, of another format, or a field is not what it should be; or they do not
            speak of the model that is there.
    """
    metrics, certificate = read_fields(folder / "metrics.json"), read_fields(folder / "certificate.json")
    check_model(folder, {"certificate.json": certificate.values, "metrics.json": metrics.values})
    test, bound = metrics.inside("test"), certificate.inside("bound")
    eps, certified_accuracy = _paired(certificate, "eps", "certified_accuracy")
    radius, label, prediction = _per_image(certificate)
    return Run(
        name=metrics.text("name"),
        command=metrics.text("command"),
        config=metrics.inside("config").values,
        data=_data(metrics),
        seed=metrics.integer("seed"),
        commit=None if metrics.raw("commit") is None else metrics.text("commit"),
        dirty=_maybe_flag(metrics, "dirty"),
        versions=metrics.inside("versions").values,
        device=metrics.text("device"),
        threads=metrics.integer("threads"),
        machine=metrics.text("machine"),
        seconds=metrics.table("seconds"),
        history=tuple(map(_epoch, metrics.rows("history"))),
        best_epoch=metrics.integer("best_epoch"),
        accuracy=test.number("accuracy"),
        certified=_by_eps(test, "certified"),
        attacked=_by_eps(test, "attacked"),
        input_norm=certificate.norm("input_norm"),
        output_norm=bound.norm("output_norm"),
        constant=bound.number("constant"),
        arithmetic=bound.text("arithmetic"),
        layers=tuple(map(_layer, bound.rows("layers"))),
        sensitivity=certificate.number("sensitivity"),
        eps=eps,
        certified_accuracy=certified_accuracy,
        attack=None if certificate.raw("attack") is None else _attack(certificate.inside("attack")),
        radius=radius,
        label=label,
        prediction=prediction,
        examples=tuple(map(_example, certificate.rows("examples"))),
    )


def _data(metrics: Fields) -> Mapping[str, object]:
    data = metrics.inside("data")
    for key in ("name", "source", "sha256"):
        data.text(key)
    data.table("split")
    data.integer("classes")
    data.numbers("shape")
    data.texts("class_names")
    return data.values


def _maybe_flag(fields: Fields, key: str) -> bool | None:
    value = fields.raw(key)
    return value if value is None or isinstance(value, bool) else fields.fail(key, "true, false or null")


def _by_eps(test: Fields, key: str) -> dict[str, float]:
    table = test.table(key)
    for eps in table:
        try:
            float(eps)
        except ValueError:
            raise TightlipError(
                f"{test.file}: the field 'test.{key}' has the key {eps!r}, but each key must be an eps such as '0.3'; "
                "make the run again"
            ) from None
    return table


def _paired(fields: Fields, first: str, second: str) -> tuple[Vector, Vector]:
    left, right = fields.numbers(first), fields.numbers(second)
    if len(left) != len(right):
        fields.fail(second, f"as many numbers as in {fields.where + first!r} ({len(left)})")
    return left, right


def _per_image(certificate: Fields) -> tuple[Vector, Vector, Vector]:
    radius, label = _paired(certificate, "radius", "label")
    _, prediction = _paired(certificate, "radius", "prediction")
    _paired(certificate, "radius", "margin")
    radius = np.where(np.isnan(radius), np.inf, radius)
    if (radius < 0).any():
        certificate.fail("radius", "radii of at least 0, and null for one without bound")
    return radius, label, prediction


def _epoch(row: Fields) -> Epoch:
    return Epoch(
        epoch=row.integer("epoch"),
        loss=row.number("loss"),
        train_accuracy=row.number("train_accuracy"),
        validation_accuracy=row.number("validation_accuracy"),
        validation_score=row.number("validation_score"),
        learning_rate=row.number("learning_rate"),
        seconds=row.number("seconds"),
    )


def _layer(row: Fields) -> Layer:
    return Layer(
        name=row.text("name"),
        module=row.text("module"),
        constant=row.number("constant"),
        input_norm=row.norm("input_norm"),
        output_norm=row.norm("output_norm"),
    )


def _attack(fields: Fields) -> Attack:
    eps, accuracy = _paired(fields, "eps", "accuracy")
    return Attack(fields.integer("images"), fields.integer("steps"), fields.integer("restarts"), eps, accuracy)


def _example(row: Fields) -> Example:
    image, gradient = row.pixels("image"), row.pixels("gradient")
    if image.shape != gradient.shape:
        row.fail("gradient", f"the image's shape {image.shape}")
    radius = row.number("radius")
    return Example(
        index=row.integer("index"),
        label=row.integer("label"),
        prediction=row.integer("prediction"),
        radius=np.inf if np.isnan(radius) else radius,
        image=image,
        gradient=gradient,
    )
