"""Records: every JSON file of numbers that the project writes, each a dataclass that also reads it."""

from .audit import AuditFile, Multipliers
from .bench import BenchRow
from .cell import CellRow
from .certificate import Attack, Audit, CertificateFile, Example, Feature, Layer, RadiiFile
from .distance import Counts, DistanceRow, Lengths, Line, Move, Plane, Sample, Shown
from .fields import FORMAT, Fields, read_fields
from .grounds import Grounds
from .metric import Definition, Metric
from .record import FileRecord, Record, Row
from .regression import (
    TASK,
    Errors,
    RegressionRow,
    Slope,
    SlopesFile,
    Step,
    TableData,
    Tried,
    TruthBand,
    is_regression,
)
from .run import Data, Epoch, RunRow, Tested

__all__ = [
    "FORMAT",
    "TASK",
    "Attack",
    "Audit",
    "AuditFile",
    "BenchRow",
    "CellRow",
    "CertificateFile",
    "Counts",
    "Data",
    "Definition",
    "DistanceRow",
    "Epoch",
    "Errors",
    "Example",
    "Feature",
    "Fields",
    "FileRecord",
    "Grounds",
    "Layer",
    "Lengths",
    "Line",
    "Metric",
    "Move",
    "Multipliers",
    "Plane",
    "RadiiFile",
    "Record",
    "RegressionRow",
    "Row",
    "RunRow",
    "Sample",
    "Shown",
    "Slope",
    "SlopesFile",
    "Step",
    "TableData",
    "Tested",
    "Tried",
    "TruthBand",
    "is_regression",
    "read_fields",
]
