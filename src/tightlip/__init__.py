"""tightlip: PyTorch functions whose Lipschitz constant is proven."""

from .activations import FullSort, GroupSort, MaxMin
from .audit import Bound, Gains, lipschitz, rule
from .constraints import Constraint, Orthonormal, RowL1Ball, constrain, freeze, hold
from .errors import TightlipError
from .layers import Normalize, Scale
from .networks import mlp

__version__ = "0.1.0"

__all__ = [
    "Bound",
    "Constraint",
    "FullSort",
    "Gains",
    "GroupSort",
    "MaxMin",
    "Normalize",
    "Orthonormal",
    "RowL1Ball",
    "Scale",
    "TightlipError",
    "constrain",
    "freeze",
    "hold",
    "lipschitz",
    "mlp",
    "rule",
]
