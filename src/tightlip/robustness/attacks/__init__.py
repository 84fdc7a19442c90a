"""Attacks, which put certificates to the test: a file each, and the table `ATTACKS`.

The share of inputs that resist an attack is an upper bound on robust accuracy; `certify` proves a lower one.
"""

from .attack import Attack
from .fast_gradient import fgs
from .margins import cw_loss
from .projected_gradient import pgd
from .suites import attack_suite

ATTACKS: dict[str, Attack] = {
    "fgs": fgs,
    "pgd": pgd,
}
"""Every attack by its name, from the weakest to the strongest."""

__all__ = ["ATTACKS", "Attack", "attack_suite", "cw_loss", "fgs", "pgd"]
