"""Networks with a forward of their own: `trace` makes a `Graph` of them, a table that can be audited."""

from .arithmetic import Bias, Mean, Offset
from .axes import Chunk, Flip, Permute, Roll, Select, Slice, Squeeze, Transpose, Unsqueeze
from .extremes import Max, Min
from .graph import Graph, Outputs
from .tied import Transposed
from .tracing import trace
from .written_out import as_fx

__all__ = [
    "Bias",
    "Chunk",
    "Flip",
    "Graph",
    "Max",
    "Mean",
    "Min",
    "Offset",
    "Outputs",
    "Permute",
    "Roll",
    "Select",
    "Slice",
    "Squeeze",
    "Transpose",
    "Transposed",
    "Unsqueeze",
    "as_fx",
    "trace",
]
