"""Sets of matrices with a proven operator norm, and the two ways to hold a layer on them."""

from .constraint import Constraint
from .coordinate import hold
from .freezing import freeze
from .holding import constrain, constraint_of
from .orthonormal import Orthonormal
from .row_l1 import RowL1Ball

__all__ = ["Constraint", "Orthonormal", "RowL1Ball", "constrain", "constraint_of", "freeze", "hold"]
