"""The audit: what is known of module types, what is proven of modules, and of networks made of them."""

from .affine import Affine, Channels, Flat, Kernel, Matrix, Uniform
from .entrance import behind_first, entered_by
from .gains import EXACT, FEW_ULPS, UNKNOWN, Gains, Roundoff
from .graph import Concat, Join, Node, Nodes, Sum, chain, expand, fold, is_traced, trace_with, within
from .lipschitz import ARITHMETIC, Audit, Bound, audit, bound_of, gains, lipschitz
from .merging import Run, affine_runs
from .per_feature import feature_slopes, one_feature
from .registry import Part, Registration, container, registered, rule
from .semidefinite import SemidefiniteBound, is_alternating, semidefinite_bound
from .trust import TRUSTED_HOOKS, TRUSTED_PARAMETRIZATIONS, refuse_altered, refuse_training

__all__ = [
    "ARITHMETIC",
    "EXACT",
    "FEW_ULPS",
    "TRUSTED_HOOKS",
    "TRUSTED_PARAMETRIZATIONS",
    "UNKNOWN",
    "Affine",
    "Audit",
    "Bound",
    "Channels",
    "Concat",
    "Flat",
    "Gains",
    "Join",
    "Kernel",
    "Matrix",
    "Node",
    "Nodes",
    "Part",
    "Registration",
    "Roundoff",
    "Run",
    "SemidefiniteBound",
    "Sum",
    "Uniform",
    "affine_runs",
    "audit",
    "behind_first",
    "bound_of",
    "chain",
    "container",
    "entered_by",
    "expand",
    "feature_slopes",
    "fold",
    "gains",
    "is_alternating",
    "is_traced",
    "lipschitz",
    "one_feature",
    "refuse_altered",
    "refuse_training",
    "registered",
    "rule",
    "semidefinite_bound",
    "trace_with",
    "within",
]
