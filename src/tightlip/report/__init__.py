"""From the JSON of runs, of experiments' rows or of distances to one HTML page that needs no network."""

from tightlip.report.distance import render_distances, write_distances
from tightlip.report.experiment import render_experiments, write_experiments
from tightlip.report.page import render, write

__all__ = ["render", "render_distances", "render_experiments", "write", "write_distances", "write_experiments"]
