"""What a proven constant is worth on data: certificates, and the attacks that put them to the test."""

from .attacks import ATTACKS, attack_suite, fgs, pgd
from .certificate import Certificate, certify

__all__ = ["ATTACKS", "Certificate", "attack_suite", "certify", "fgs", "pgd"]
