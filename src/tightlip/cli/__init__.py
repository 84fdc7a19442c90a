"""The command line: `tightlip train`, `certify`, `report`, `list`, `run`."""

from .main import main

__all__ = ["main"]
