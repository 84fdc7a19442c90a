"""Sets of matrices with a proven operator norm, and the two ways to hold a layer on them."""

from .column_l1 import ColumnL1Ball
from .constraining import constrain, constrain_sample, constraint_of, is_constrained
from .constraint import Constraint, Hold
from .freezing import freeze
from .holding import hold, put_back
from .lifting import lifted
from .orthonormal import Orthonormal
from .parseval import Parseval
from .row_dual import RowDualBall
from .row_l1 import RowL1Ball
from .spectral import SpectralBall
from .trivializations import Cayley, MatrixExponential

__all__ = [
    "Cayley",
    "ColumnL1Ball",
    "Constraint",
    "Hold",
    "MatrixExponential",
    "Orthonormal",
    "Parseval",
    "RowDualBall",
    "RowL1Ball",
    "SpectralBall",
    "constrain",
    "constrain_sample",
    "constraint_of",
    "freeze",
    "hold",
    "is_constrained",
    "lifted",
    "put_back",
]
