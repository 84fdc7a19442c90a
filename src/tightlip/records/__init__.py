"""Records: every JSON file of numbers that the project writes, each a dataclass that also reads it."""

from .bench import BenchRow
from .cell import CellRow
from .certificate import Attack, Audit, CertificateFile, Example, Layer, RadiiFile
from .fields import FORMAT, Fields, read_fields
from .metric import Definition, Metric
from .record import FileRecord, Record, Row
from .run import Data, Epoch, RunRow, Tested

__all__ = [
    "FORMAT",
    "Attack",
    "Audit",
    "BenchRow",
    "CellRow",
    "CertificateFile",
    "Data",
    "Definition",
    "Epoch",
    "Example",
    "Fields",
    "FileRecord",
    "Layer",
    "Metric",
    "RadiiFile",
    "Record",
    "Row",
    "RunRow",
    "Tested",
    "read_fields",
]
