"""What a proven constant is worth on data: certificates, attacks that put them to the test, and their statistics."""

from .attacks import pgd
from .certificate import Certificate, certify
from .statistics import ClassAccuracy, Paired, holm, paired, per_class, wilson, worst_class

__all__ = [
    "Certificate",
    "ClassAccuracy",
    "Paired",
    "certify",
    "holm",
    "paired",
    "per_class",
    "pgd",
    "wilson",
    "worst_class",
]
