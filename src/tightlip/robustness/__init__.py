"""What a proven constant is worth on data: certificates, attacks that put them to the test, and their statistics."""

from .attacks import ATTACKS, attack_suite, fgs, pgd
from .certificate import Certificate, certify
from .conformal import ConformalSets, conformal_sets
from .contests import TopK
from .decision import Decision
from .features import feature_radii
from .groups import Groups, OneVsRest
from .guard import Guard, guarded
from .labels import MultiLabel
from .statistics import ClassAccuracy, Paired, holm, paired, per_class, wilson, worst_class

__all__ = [
    "ATTACKS",
    "Certificate",
    "ClassAccuracy",
    "ConformalSets",
    "Decision",
    "Groups",
    "Guard",
    "MultiLabel",
    "OneVsRest",
    "Paired",
    "TopK",
    "attack_suite",
    "certify",
    "conformal_sets",
    "feature_radii",
    "fgs",
    "guarded",
    "holm",
    "paired",
    "per_class",
    "pgd",
    "wilson",
    "worst_class",
]
