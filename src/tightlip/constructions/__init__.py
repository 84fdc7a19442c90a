"""The theorems as code: networks that are written down, not trained, and whose constants the audit confirms.

Everything is built in float64, the precision in which its statement is exact; ``network.float()`` rounds the weights.
"""

from .equivalences import (
    abs_from_max_min,
    crelu_from_max_min,
    full_sort_from_max_min,
    leaky_relu_from_max_min,
    max_min_from_abs,
    max_min_from_full_sort,
    maxout_from_group_sort,
    relu_from_max_min,
)
from .folding import fold, square_pyramids
from .interpolant import LatticeInterpolant
from .interpolation import lattice_interpolant
from .lattice import maximum, minimum
from .pleating import zigzag_interpolant
from .replacement import Replacement, replace_by_polar

__all__ = [
    "LatticeInterpolant",
    "Replacement",
    "abs_from_max_min",
    "crelu_from_max_min",
    "fold",
    "full_sort_from_max_min",
    "lattice_interpolant",
    "leaky_relu_from_max_min",
    "max_min_from_abs",
    "max_min_from_full_sort",
    "maximum",
    "maxout_from_group_sort",
    "minimum",
    "relu_from_max_min",
    "replace_by_polar",
    "square_pyramids",
    "zigzag_interpolant",
]
