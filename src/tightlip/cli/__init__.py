"""The command line: `tightlip train`, `tightlip certify`, `tightlip report`."""

from .main import main

__all__ = ["main"]
