"""From the JSON of runs, of experiments' rows or of distances to one HTML page that needs no network."""

from tightlip.report.distance import render_distances, write_distances
from tightlip.report.experiment import render_experiments, write_experiments
from tightlip.report.page import render, write
from tightlip.report.regression import render_regressions, write_regressions

__all__ = [
    "render",
    "render_distances",
    "render_experiments",
    "render_regressions",
    "write",
    "write_distances",
    "write_experiments",
    "write_regressions",
]
