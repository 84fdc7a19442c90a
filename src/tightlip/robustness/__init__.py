"""What a proven constant is worth on data: certificates, attacks that put them to the test, and their statistics."""

from .attacks import ATTACKS, attack_suite, fgs, pgd
from .certificate import Certificate, certify
from .features import feature_radii, feature_slopes
from .statistics import ClassAccuracy, Paired, holm, paired, per_class, wilson, worst_class

__all__ = [
    "ATTACKS",
    "Certificate",
    "ClassAccuracy",
    "Paired",
    "attack_suite",
    "certify",
    "feature_radii",
    "feature_slopes",
    "fgs",
    "holm",
    "paired",
    "per_class",
    "pgd",
    "wilson",
    "worst_class",
]
