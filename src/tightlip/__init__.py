"""tightlip: PyTorch functions whose Lipschitz constant is proven.

Six verbs: `constrain` a layer (or build an `mlp`), `fit` a network, `freeze` it, audit it with `lipschitz`, `certify`
inputs, and `save` or `load` what came out. `tightlip.data` holds the data sets, `tightlip.experiments` the studies.
"""

from . import data
from .activations import FullSort, GroupSort, MaxMin
from .audit import Bound, Gains, Roundoff, lipschitz, rule
from .constraints import Constraint, Orthonormal, RowL1Ball, constrain, freeze, hold
from .errors import TightlipError
from .layers import Normalize, Scale
from .losses import margin_cross_entropy, multiclass_hinge
from .networks import mlp
from .robustness import Certificate, certify, pgd
from .serialization import load, save
from .training import fit

__version__ = "0.1.0"

__all__ = [
    "Bound",
    "Certificate",
    "Constraint",
    "FullSort",
    "Gains",
    "GroupSort",
    "MaxMin",
    "Normalize",
    "Orthonormal",
    "Roundoff",
    "RowL1Ball",
    "Scale",
    "TightlipError",
    "certify",
    "constrain",
    "data",
    "fit",
    "freeze",
    "hold",
    "lipschitz",
    "load",
    "margin_cross_entropy",
    "mlp",
    "multiclass_hinge",
    "pgd",
    "rule",
    "save",
]
