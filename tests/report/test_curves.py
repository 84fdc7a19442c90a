"""Curves: axes suit all values and are shared by the panels of a column; the truth is drawn where it is known."""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from tightlip.experiments import absolute_value
from tightlip.experiments.rows import run_cells
from tightlip.report import curves, render, render_experiments
from tightlip.report.rows import read_groups

RESULTS = sorted({path.parent for path in (Path(__file__).parents[2] / "results").glob("*/*seed*.json")})


@pytest.fixture
def drawn(monkeypatch):
    """What each panel draws: (lines of points, limits of x and y, scale of y)."""
    seen = []

    def plot(name, alt, draw):
        axes = Figure().subplots()
        draw(axes)
        lines = [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
        seen.append((lines, axes.get_xlim(), axes.get_ylim(), axes.get_yscale()))
        return curves.Plot(Markup(""), alt)

    monkeypatch.setattr(curves, "plot", plot)
    return seen


def write(synthetic, folder, values, **changes):
    """A cell for each ("activation", "depth") with its y values, at x = −1, 0, 1."""
    for place, ((activation, depth), y) in enumerate(values.items()):
        config = {"activation": activation, "depth": depth}
        metrics = {"objective": 0.5, "curve": {"x": [-1.0, 0.0, 1.0], "f": y}}
        synthetic.write_cell(folder, config, ("activation", "depth"), metrics=metrics, place=place, **changes)
    return curves.panels(read_groups(folder), {}, "name")


def inside(drawn):
    for lines, (left, right), (bottom, top), _ in drawn:
        for x, y in itertools.chain(*lines):
            assert min(left, right) <= x <= max(left, right) and bottom <= y <= top


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([[-1.0, 0.0, -1.0], [-1.0, 1e-8, -1.0]], "linear"),  # one rounding error above zero, as |x| has
        ([[-1e-9, 1.0, 1e6], [1.0, 1.0, 1.0]], "linear"),
        ([[1e-6, 1.0, 1.0], [1.0, 1.0, 0.5]], "log"),
        ([[0.0, 1e-6, 1.0], [1.0, 1.0, 0.5]], "log"),  # zero is at the bottom
        ([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], "linear"),
        ([[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]], "linear"),
        ([[math.nan, math.nan, 2.0], [1.0, 1.0, 1.0]], "linear"),
    ],
)
def test_an_axis_is_logarithmic_only_where_every_value_can_be_drawn(synthetic, tmp_path, drawn, values, scale):
    values = [[None if math.isnan(value) else value for value in column] for column in values]
    write(synthetic, tmp_path, {("relu", 3): values[0], ("abs", 3): values[1]})
    assert [scale_ for *_, scale_ in drawn] == [scale]
    if not any(None in column for column in values):
        inside(drawn)


def test_tails_alone_make_no_axis_logarithmic():
    """A share that falls from 1 to next to nothing is read on an even axis, an error that falls by decades is not."""
    x = [float(place) for place in range(51)]
    assert not curves.frame([(x, [*(1 - place / 50 for place in range(50)), 1e-4])]).logarithmic
    assert curves.frame([(x, [10.0 ** (-place / 10) for place in range(51)])]).logarithmic
    assert curves.frame([*[(x, [1.0] * 51)] * 30, (x, [1e-5] * 51)]).logarithmic  # one curve that is small throughout


def test_the_panels_of_a_column_have_the_same_axes(synthetic, tmp_path, drawn):
    panels = write(synthetic, tmp_path, {("relu", 3): [0.0, 0.5, 1.0], ("relu", 7): [-0.1, 0.99, 0.99]})
    assert [panel.title for panel in panels] == ["f, depth 3", "f, depth 7"]
    assert len({(x, y, scale) for _, x, y, scale in drawn}) == 1
    inside(drawn)


def test_a_logarithmic_panel_makes_the_other_logarithmic(synthetic, tmp_path, drawn):
    write(synthetic, tmp_path, {("relu", 3): [1e-6, 1.0, 1.0], ("relu", 7): [1.0, 0.5, 0.9]})
    assert len({(x, y, scale) for _, x, y, scale in drawn}) == 1 and drawn[0][-1] == "log"


def test_the_truth_is_drawn_point_by_point_or_as_a_constant(synthetic, tmp_path, drawn):
    truth = [-1.0, 0.0, -1.0]
    (panel,) = write(synthetic, tmp_path / "a", {("relu", 3): [0.0, 0.5, 1.0]}, true_curves={"f": truth})
    assert [line.label for line in panel.lines] == ["relu", "the truth"]
    assert drawn[-1][0][1] == list(zip([-1.0, 0.0, 1.0], truth, strict=True))
    (panel,) = write(synthetic, tmp_path / "b", {("relu", 3): [0.0, 0.5, 0.7]}, truth={"f": 1.0})
    assert [line.label for line in panel.lines] == ["relu", "the truth"]
    assert drawn[-1][0][1] == [(-1.0, 1.0), (1.0, 1.0)]
    assert panel.plot.alt.endswith("1 lines; the lines end between 0.7 and 0.7.")
    inside(drawn)


def test_the_page_of_the_absolute_value_shows_its_potential(tmp_path):
    rows = run_cells(absolute_value, absolute_value.SMOKE, tmp_path)
    for row in rows:
        x = row.drawings["curve"]["x"]
        assert row.true_curves["f"] == [-abs(value) for value in x]
    page = render_experiments([tmp_path])
    assert page.count("the truth</li>") == 1 and "1e-0" not in "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_no_two_panels_of_a_committed_experiment_have_one_title(folder):
    groups = read_groups(folder)
    titles = [panel.title for panel in curves.panels(groups, {}, "name")]
    assert max(Counter(titles).values(), default=1) == 1


def test_no_two_panels_of_a_comparison_have_one_title(synthetic, tmp_path):
    norms = [("input_norm", "inf"), ("bound.output_norm", "inf")]
    runs = [synthetic.write_run(tmp_path / "a"), synthetic.write_run(tmp_path / "b", [], norms)]
    comparison = render(runs).partition('<article class="run"')[0]
    titles = re.findall("<h4>(.*?)</h4>", comparison)
    assert len(titles) == len(set(titles)) == 3
    assert titles[0].replace("\N{NON-BREAKING HYPHEN}", "-") == "Certified and attacked accuracy in the 2-norm"
