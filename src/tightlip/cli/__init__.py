"""The command line: `tightlip train`, `certify`, `report`, `list`, `run`, `bench`."""

from .main import main

__all__ = ["main"]
