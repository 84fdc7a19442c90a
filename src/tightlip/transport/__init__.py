"""Distances between distributions: known ones, critics that bound them from below, and samples paired at least cost."""

from .assignment import Matching, assign
from .critic import train_critic
from .distributions import Spheres, absolute_value, circular_cones, high_dimensional_cone
from .estimator import WassersteinCritic
from .funnel_pairs import FunnelPair
from .potential import Funnels

__all__ = [
    "FunnelPair",
    "Funnels",
    "Matching",
    "Spheres",
    "WassersteinCritic",
    "absolute_value",
    "assign",
    "circular_cones",
    "high_dimensional_cone",
    "train_critic",
]
