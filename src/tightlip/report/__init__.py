"""From the JSON of runs, or of experiments' rows, to one HTML page that needs no network."""

from tightlip.report.experiment import render_experiments, write_experiments
from tightlip.report.page import render, write

__all__ = ["render", "render_experiments", "write", "write_experiments"]
