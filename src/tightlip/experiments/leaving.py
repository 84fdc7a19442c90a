"""What a run of `tightlip train` leaves in its folder: the model, what is proven of it, and the numbers."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from ..atomic import discard, sha256
from ..linkage import MODEL
from ..records import CertificateFile, RegressionRow, RunRow, SlopesFile
from ..serialization import save
from .pace import PACE

Row = TypeVar("Row", RunRow, RegressionRow)
Proof = TypeVar("Proof", CertificateFile, SlopesFile)


def leave(folder: Path, network: nn.Module, row: Row, proof: Proof) -> tuple[Row, Proof]:
    """Write ``model.safetensors``, ``certificate.json`` and ``metrics.json``; both records with the model's hash.

    ``metrics.json`` comes last: where it is, the run is whole.
    """
    save(network, folder / MODEL)
    model = sha256(folder / MODEL)
    row, proof = replace(row, model_sha256=model), replace(proof, model_sha256=model)
    proof.write(folder / "certificate.json")
    row.write(folder / "metrics.json")
    return row, proof


def clear(folder: Path) -> None:
    """Remove what a stopped run would have gone on from, when ``metrics.json`` is there."""
    for path in (folder / PACE, folder / "checkpoint.pt", *folder.glob("checkpoint-[0-9].pt")):
        discard(path)
