"""From the JSON of one or several runs to one HTML page that needs no network."""

from tightlip.report.page import render, write

__all__ = ["render", "write"]
