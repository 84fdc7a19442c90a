"""What a network does with the slope that it is allowed: Jacobians, units, and a table of its layers.

Measurements at given inputs, never bounds; in `summary` alone the constants are proven, by the audit. Each works on a
copy of the network in eval mode, so the network itself is left exactly as it was.
"""

from .jacobian import gradient_norm, jacobian_singular_values
from .layers import Summary, SummaryRow, summary
from .units import ActivationStatistics, activation_statistics

__all__ = [
    "ActivationStatistics",
    "Summary",
    "SummaryRow",
    "activation_statistics",
    "gradient_norm",
    "jacobian_singular_values",
    "summary",
]
