"""Experiments: one file per table or figure, each a `Config` and a `run`. Nothing below imports them.

A new one is a file and its name in `EXPERIMENTS`; `tightlip list`, `tightlip run` and the tests find it there.
"""

from . import bjorck_convergence, bjorck_vs_parseval
from .grid import Experiment, name_of

EXPERIMENTS: dict[str, Experiment] = {name_of(module): module for module in (bjorck_convergence, bjorck_vs_parseval)}
"""Every experiment by its name."""

__all__ = ["EXPERIMENTS", "Experiment"]
