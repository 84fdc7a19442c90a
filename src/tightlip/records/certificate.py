"""``certificate.json``: the audit of a run's model, and the radius of every test input; and what `certify` writes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ..audit import Bound
from ..norms import norm_name
from .fields import Fields
from .record import FileRecord, Integers, Record, Vector

Norm = Annotated[str, Fields.norm]
"""'1', '2' or 'inf'."""

Pixels = Annotated[NDArray[np.float64], Fields.pixels]
"""An image (channels, height, width); in a file, one channel may be a matrix."""


def _radii(fields: Fields, name: str) -> NDArray[np.float64]:
    """Radii: `null` is ∞."""
    radius = np.nan_to_num(fields.numbers(name), nan=np.inf, posinf=np.inf)
    wanted = "radii of at least 0, and null for one without bound"
    return fields.fail(name, wanted) if (radius < 0).any() else radius


def _radius(fields: Fields, name: str) -> float:
    value = fields.number(name)
    return np.inf if np.isnan(value) else value


Radii = Annotated[NDArray[np.float64], _radii]


def _check_lengths(fields: Fields, first: str, *others: str) -> None:
    """Refuse lists that should have one entry for each of another."""
    count = len(fields.numbers(first))
    for other in others:
        if len(fields.numbers(other)) != count:
            fields.fail(other, f"as many numbers as in {fields.where + first!r} ({count})")


@dataclass(frozen=True)
class Layer(Record):
    """One row of the audit: a module, its constant (rounded up) and the norms that it stands between."""

    name: str
    module: str
    constant: float
    input_norm: Norm
    output_norm: Norm


@dataclass(frozen=True)
class Audit(Record):
    """The audit of the whole network, and layer by layer."""

    constant: float
    input_norm: Norm
    output_norm: Norm
    arithmetic: str
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, bound: Bound) -> "Audit":
        """What `lipschitz` says."""
        norms = norm_name(bound.input_norm), norm_name(bound.output_norm)
        return cls(bound.constant, *norms, bound.arithmetic, cls.rows_of(bound.layers))

    @staticmethod
    def rows_of(layers: Iterable[tuple[str, str, Bound]]) -> tuple[Layer, ...]:
        """Rows of a `Bound`."""
        named = ((name, text, row, norm_name(row.input_norm), norm_name(row.output_norm)) for name, text, row in layers)
        return tuple(Layer(name, text, row.constant, p, q) for name, text, row, p, q in named)


@dataclass(frozen=True)
class Attack(Record):
    """What an attack left standing: accuracy in [0, 1] for each eps, over the first ``images`` test inputs."""

    images: int
    steps: int
    restarts: int
    eps: Vector
    accuracy: Vector

    @classmethod
    def from_json(cls, fields: Fields) -> "Attack":
        """Also checks that there is an accuracy for each eps."""
        _check_lengths(fields, "eps", "accuracy")
        return super().from_json(fields)


@dataclass(frozen=True)
class Example(Record):
    """A test image in [0, 1], its certified radius (inf: no bound) and the margin's input gradient, both (C, H, W)."""

    index: int
    label: int
    prediction: int
    radius: Annotated[float, _radius]
    image: Pixels
    gradient: Pixels

    @property
    def correct(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.prediction

    @classmethod
    def from_json(cls, fields: Fields) -> "Example":
        """Also checks that the gradient has the image's shape."""
        example = super().from_json(fields)
        if example.image.shape != example.gradient.shape:
            fields.fail("gradient", f"the image's shape {example.image.shape}")
        return example

    def to_json(self) -> dict[str, Any]:
        """As of any record; images of one channel are matrices."""
        image, gradient = (pixels[0] if len(pixels) == 1 else pixels for pixels in (self.image, self.gradient))
        return super().to_json() | {"image": image.tolist(), "gradient": gradient.tolist()}


@dataclass(frozen=True)
class Feature(Record):
    """A feature of a table: how far it may move alone, in its own unit, as the median over the test rows (inf: ever).

    ``mean`` and ``std`` are what it is standardized by, where it is.
    """

    name: str
    radius: Annotated[float, _radius]
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class CertificateFile(FileRecord):
    """Everything that is proven of a run's model; accuracies in [0, 1].

    Radii and eps are in raw input units, or in standardized ones where ``standardized``: then the bound is that of the
    network behind its standardization. ``features`` are those of a table.
    """

    input_norm: Norm
    bound: Audit
    sensitivity: float
    eps: Vector
    certified_accuracy: Vector
    attack: Attack | None
    radius: Radii
    margin: Vector
    label: Integers
    prediction: Integers
    examples: tuple[Example, ...]
    model_sha256: str | None = None
    standardized: bool = False
    features: tuple[Feature, ...] = ()

    @classmethod
    def from_json(cls, fields: Fields) -> "CertificateFile":
        """Also checks that lists which belong together are equally long."""
        _check_lengths(fields, "eps", "certified_accuracy")
        _check_lengths(fields, "radius", "label", "prediction", "margin")
        return super().from_json(fields)


@dataclass(frozen=True)
class RadiiFile(FileRecord):
    """What `tightlip certify --output` writes: the constant, and every radius.

    ``seen`` counts inputs that the model's run has seen, where that is known; ``data`` and ``seed`` say what they are.
    ``standardized`` and ``features`` are as of `CertificateFile`.
    """

    model: str
    model_sha256: str
    data: str
    seed: int | None
    seen: dict[str, Any] | None
    input_norm: Norm
    constant: float
    output_norm: Norm
    arithmetic: str
    radius: Radii
    margin: Vector
    label: Integers
    prediction: Integers
    standardized: bool = False
    features: tuple[Feature, ...] = ()
