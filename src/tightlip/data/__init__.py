"""Data sets: verified when loaded, valid by construction, split with a seed."""

from tightlip.data.dataset import Dataset, Part, Splits, split
from tightlip.data.sources import load

__all__ = ["Dataset", "Part", "Splits", "load", "split"]
