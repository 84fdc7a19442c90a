"""Networks with a forward of their own: `trace` makes a `Graph` of them, a table that can be audited."""

from .graph import Graph, Outputs, Slice
from .tracing import trace

__all__ = ["Graph", "Outputs", "Slice", "trace"]
