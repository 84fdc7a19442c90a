"""tightlip: PyTorch functions whose Lipschitz constant is proven.

Six verbs: `constrain` a layer (or build an `mlp`), `fit` a network, `freeze` it, audit it with `lipschitz`, `certify`
inputs, and `save` or `load` what came out. `tightlip.data` holds the data sets, `tightlip.experiments` the studies.
"""

from . import data
from .activations import Abs, FullSort, GroupSort, Householder, MaxMin, Maxout
from .audit import Bound, Gains, Roundoff, lipschitz, rule
from .constraints import (
    ColumnL1Ball,
    Constraint,
    Orthonormal,
    RowDualBall,
    RowL1Ball,
    SpectralBall,
    constrain,
    freeze,
    hold,
)
from .errors import TightlipError
from .layers import Normalize, Scale
from .losses import hinge_kantorovich, kantorovich, margin_cross_entropy, multiclass_hinge
from .networks import mlp
from .robustness import Certificate, certify, pgd
from .serialization import load, save
from .training import fit

__version__ = "0.1.0"

__all__ = [
    "Abs",
    "Bound",
    "Certificate",
    "ColumnL1Ball",
    "Constraint",
    "FullSort",
    "Gains",
    "GroupSort",
    "Householder",
    "MaxMin",
    "Maxout",
    "Normalize",
    "Orthonormal",
    "Roundoff",
    "RowDualBall",
    "RowL1Ball",
    "Scale",
    "SpectralBall",
    "TightlipError",
    "certify",
    "constrain",
    "data",
    "fit",
    "freeze",
    "hinge_kantorovich",
    "hold",
    "kantorovich",
    "lipschitz",
    "load",
    "margin_cross_entropy",
    "mlp",
    "multiclass_hinge",
    "pgd",
    "rule",
    "save",
]
