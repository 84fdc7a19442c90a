"""Distances between distributions: pairs whose distance is known, and critics that bound it from below."""

from .critic import train_critic
from .distributions import Spheres, absolute_value, circular_cones, high_dimensional_cone

__all__ = ["Spheres", "absolute_value", "circular_cones", "high_dimensional_cone", "train_critic"]
