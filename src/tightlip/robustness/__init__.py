"""What a proven constant is worth on data: certificates, and the attacks that put them to the test."""

from .attacks import pgd
from .certificate import Certificate, certify

__all__ = ["Certificate", "certify", "pgd"]
