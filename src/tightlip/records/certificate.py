"""``certificate.json``: the audit of a run's model, and the radius of every test input; and what `certify` writes.

Both carry what `tightlip-check` needs, and their own hash (docs/certificate-format.md).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ..audit import Bound
from ..norms import norm_name
from .fields import Fields
from .grounds import Grounds, SealedRecord
from .record import Integers, Record, Vector, unequal

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

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """There is an accuracy for each eps."""
        return unequal(self, "eps", "accuracy")


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

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """The gradient has the image's shape."""
        if self.image.shape != self.gradient.shape:
            yield "gradient", f"the image's shape {self.image.shape}"

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

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """A radius is a distance, and features are divided by a standard deviation."""
        if self.std is not None and not self.std > 0:
            yield "std", "a number above 0"
        if not self.radius >= 0:
            yield "radius", "a number of at least 0, and null for one without bound"


@dataclass(frozen=True)
class CertificateFile(SealedRecord):
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
    grounds: Grounds | None = None
    standardized: bool = False
    features: tuple[Feature, ...] = ()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Lists which belong together are equally long."""
        yield from unequal(self, "eps", "certified_accuracy")
        yield from unequal(self, "radius", "label", "prediction", "margin")
        if self.standardized and any(feature.mean is None or feature.std is None for feature in self.features):
            yield "features", "the mean and std of each, where radii are standardized"


@dataclass(frozen=True)
class RadiiFile(SealedRecord):
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
    grounds: Grounds | None = None
    standardized: bool = False
    features: tuple[Feature, ...] = ()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """All inputs have all numbers."""
        return unequal(self, "radius", "label", "prediction", "margin")
