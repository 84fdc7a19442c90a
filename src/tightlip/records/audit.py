"""What `tightlip audit --json` prints: the audit of one network."""

from dataclasses import dataclass

from .certificate import Audit, Layer
from .record import FileRecord, Record, Vector


@dataclass(frozen=True)
class Multipliers(Record):
    """Of one activation: a number for each unit, as `SemidefiniteBound` has them."""

    numbers: Vector


@dataclass(frozen=True)
class AuditFile(FileRecord):
    """A model by its name, with its sha256 if it is a file; what is proven of it; runs of layers that were merged.

    ``vacuous`` says that the constant is too large for any use. Of a semidefinite bound, ``product`` is that of the
    norms of the layers, and ``multipliers`` are the proof, in the order of the activations.
    """

    model: str
    model_sha256: str | None
    audit: Audit
    merged: tuple[Layer, ...]
    vacuous: bool
    product: float | None = None
    multipliers: tuple[Multipliers, ...] = ()
