"""From the JSON of runs, or of an experiment's rows, to one HTML page that needs no network."""

from tightlip.report.experiment import render_experiment, write_experiment
from tightlip.report.page import render, write

__all__ = ["render", "render_experiment", "write", "write_experiment"]
