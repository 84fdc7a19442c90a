"""What a certificate rests on, so that others can prove it again; and files that carry their own hash."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..audit import Bound
from ..data.arrays import content_sha256
from ..provenance import sealed, write_json
from .record import FileRecord, Integers, Record

VERSION = 1
"""Of what docs/certificate-format.md describes."""


@dataclass(frozen=True)
class Grounds(Record):
    """Of which inputs it speaks, and which norms it rests on.

    ``inputs_sha256`` is the hash of inputs and labels, ``shape`` that of one input; ``norms`` are the 2→2 norms of the
    layers that are a matrix or a kernel, by name; ``merged`` names runs of layers that are multiplied out.
    """

    version: int
    inputs_sha256: str
    shape: Integers
    norms: dict[str, float]
    merged: tuple[str, ...]

    @classmethod
    def of(cls, bound: Bound, inputs: Tensor, labels: Tensor) -> "Grounds":
        """Those of a certificate for these inputs (batch, …) and labels (batch,)."""
        arrays = {"x": inputs.cpu().numpy(), "y": labels.cpu().numpy()}
        shape = np.array(inputs.shape[1:], dtype=np.int64)
        return cls(VERSION, content_sha256(arrays), shape, dict(bound.spectral), bound.runs)


class SealedRecord(FileRecord):
    """A file that carries its own hash beside its grounds; written and not read: `tightlip-check` compares it."""

    grounds: Grounds | None

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = self.to_json()
        write_json(path, content if self.grounds is None else sealed(content))
