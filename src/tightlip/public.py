"""The public names, with all that registers rules; `tightlip` hands them on, and imports this for the first of them."""

from . import constructions, data, transport
from . import pooling as pooling  # registers its rules
from . import rules as rules  # registers them
from .activations import Abs, FullSort, GroupSort, Householder, MaxMin, Maxout
from .aggmo import AggMo
from .audit import (
    Bound,
    Gains,
    Roundoff,
    SemidefiniteBound,
    feature_slopes,
    lipschitz,
    rule,
    semidefinite_bound,
)
from .bands import Band, ErrorBand
from .bridges.conversion import Converted, convert
from .bridges.onnx import to_onnx
from .constraints import (
    Cayley,
    ColumnL1Ball,
    Constraint,
    MatrixExponential,
    Orthonormal,
    Parseval,
    RowDualBall,
    RowL1Ball,
    SpectralBall,
    constrain,
    freeze,
    hold,
    lifted,
)
from .diagnostics import (
    ActivationStatistics,
    Summary,
    activation_statistics,
    gradient_norm,
    jacobian_singular_values,
    summary,
)
from .emma import emma_cross_entropy
from .errors import TightlipError
from .graphs import Graph, trace
from .image_networks import convnet, mixer
from .layers import Normalize, Residual, Scale
from .linf_distance import LinfDistance, SortedDistance
from .linf_training import FadingCrossEntropy, OctaveSchedule
from .losses import (
    hinge_kantorovich,
    kantorovich,
    lipschitz_margin_cross_entropy,
    margin_cross_entropy,
    multiclass_hinge,
    multiclass_hinge_kantorovich,
    norm_product,
)
from .mean_shift import MeanShift
from .monotonicity import monotone, monotone_signs
from .networks import mlp
from .penalties import gradient_penalty, jacobian_spectral_penalty
from .prototypes import Prototypes
from .robustness import (
    Certificate,
    ConformalSets,
    Groups,
    Guard,
    MultiLabel,
    OneVsRest,
    TopK,
    attack_suite,
    certify,
    conformal_sets,
    fgs,
    guarded,
    pgd,
)
from .seal import weights_sha256
from .serialization import load, save
from .shift import Shift
from .training import fit
from .transport.interval import Interval
from .transport.wasserstein import wasserstein1

__all__ = [
    "Abs",
    "ActivationStatistics",
    "AggMo",
    "Band",
    "Bound",
    "Cayley",
    "Certificate",
    "ColumnL1Ball",
    "ConformalSets",
    "Constraint",
    "Converted",
    "ErrorBand",
    "FadingCrossEntropy",
    "FullSort",
    "Gains",
    "Graph",
    "GroupSort",
    "Groups",
    "Guard",
    "Householder",
    "Interval",
    "LinfDistance",
    "MatrixExponential",
    "MaxMin",
    "Maxout",
    "MeanShift",
    "MultiLabel",
    "Normalize",
    "OctaveSchedule",
    "OneVsRest",
    "Orthonormal",
    "Parseval",
    "Prototypes",
    "Residual",
    "Roundoff",
    "RowDualBall",
    "RowL1Ball",
    "Scale",
    "SemidefiniteBound",
    "Shift",
    "SortedDistance",
    "SpectralBall",
    "Summary",
    "TightlipError",
    "TopK",
    "activation_statistics",
    "attack_suite",
    "certify",
    "conformal_sets",
    "constrain",
    "constructions",
    "convert",
    "convnet",
    "data",
    "emma_cross_entropy",
    "feature_slopes",
    "fgs",
    "fit",
    "freeze",
    "gradient_norm",
    "gradient_penalty",
    "guarded",
    "hinge_kantorovich",
    "hold",
    "jacobian_singular_values",
    "jacobian_spectral_penalty",
    "kantorovich",
    "lifted",
    "lipschitz",
    "lipschitz_margin_cross_entropy",
    "load",
    "margin_cross_entropy",
    "mixer",
    "mlp",
    "monotone",
    "monotone_signs",
    "multiclass_hinge",
    "multiclass_hinge_kantorovich",
    "norm_product",
    "pgd",
    "rule",
    "save",
    "semidefinite_bound",
    "summary",
    "to_onnx",
    "trace",
    "transport",
    "wasserstein1",
    "weights_sha256",
]
