"""Distances between distributions: known ones, critics that bound them from below, and samples paired at least cost."""

from .assignment import Matching, assign
from .critic import train_critic
from .distributions import Spheres, absolute_value, circular_cones, high_dimensional_cone
from .estimator import WassersteinCritic
from .interval import Interval
from .potential import Funnels
from .wasserstein import wasserstein1

__all__ = [
    "Funnels",
    "Interval",
    "Matching",
    "Spheres",
    "WassersteinCritic",
    "absolute_value",
    "assign",
    "circular_cones",
    "high_dimensional_cone",
    "train_critic",
    "wasserstein1",
]
