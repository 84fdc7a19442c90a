"""The table in the paper's layout: the first axis downwards, the others across, ours above the paper's."""

import re

import pytest

from tightlip.report import render_experiments
from tightlip.report.pivot import Entry, Head, pivot
from tightlip.report.rows import columns, read_groups, text_table

AXES = ("activation", "dimension", "depth")
PUBLISHED = {("relu", 128, 3): 0.51, ("relu", 128, 7): 0.6, ("relu", 256, 3): 0.5, ("sort", 128, 3): 1.0}


@pytest.fixture
def table(synthetic, tmp_path):
    """Two seeds of each published cell; ours is 0.01 above, and 0.03 apart."""
    for place, (key, published) in enumerate(PUBLISHED.items()):
        for seed in (0, 1):
            metrics = {"objective": published + 0.01 + 0.03 * (seed - 0.5), "error": 0.0, "published": published}
            config = dict(zip(AXES, key, strict=True))
            synthetic.write_cell(tmp_path / "table", config, AXES, seed, metrics, place)
    return tmp_path / "table"


def test_what_was_published_stands_beside_the_objective(table):
    groups = read_groups(table)
    assert columns(groups)[1] == ["objective", "published", "error"]
    assert text_table(groups).splitlines()[0].split() == [*AXES, "objective", "published", "error"]


def test_rows_columns_and_entries(table):
    made = pivot(read_groups(table))
    assert made.heads == [
        Head("dimension", [("128", 2), ("256", 1)]),
        Head("depth", [("3", 1), ("7", 1), ("3", 1)]),
    ]
    assert (made.metric, made.axis, made.seeds) == ("objective", "activation", True)
    (_, relu), (_, sort) = made.lines
    assert [relu[0], relu[1]] == [Entry("0.520 ± 0.021", "0.51"), Entry("0.610 ± 0.021", "0.60")]
    assert sort == [Entry("1.010 ± 0.021", "1.00"), Entry("–", ""), Entry("–", "")]


def test_columns_stand_together_even_where_the_first_row_lacks_some(synthetic, tmp_path):
    for place, key in enumerate([("a", 1, 3), ("a", 2, 3), ("b", 1, 7), ("b", 2, 7), ("b", 1, 3)]):
        config = dict(zip(AXES, key, strict=True))
        synthetic.write_cell(tmp_path / "t", config, AXES, 0, {"objective": 0.5, "published": 1}, place)
    made = pivot(read_groups(tmp_path / "t"))
    assert made.heads[0].values == [("1", 2), ("2", 2)] and made.heads[1].values == [("3", 1), ("7", 1)] * 2
    assert made.lines[0][1][0] == Entry("0.5", "1") and not made.seeds


def test_the_page_shows_it_before_the_long_table(table):
    page = render_experiments([table])
    assert page.index('class="pivot"') < page.index(">8 rows, 4 cells over their seeds<")
    assert re.search(
        r'<th scope="col" rowspan="2">activation</th><th scope="colgroup" colspan="2">dimension 128</th>', page
    )
    assert "<td>0.520 ± 0.021<small>paper 0.51</small></td>" in page
    assert "mean ± standard deviation over the seeds" in page


@pytest.mark.parametrize(
    ("axes", "metrics"),
    [
        (("activation",), {"objective": 0.5, "published": 0.5}),
        (AXES, {"objective": 0.5}),
        (AXES, {"objective": 0.5, "published": None}),
        (AXES, {"published": 0.5}),
    ],
)
def test_there_is_none_without_two_axes_and_values_of_both(synthetic, tmp_path, axes, metrics):
    config = {"activation": "relu", "dimension": 128, "depth": 3}
    folder = synthetic.write_cell(tmp_path / "t", config, axes, metrics=metrics)
    assert pivot(read_groups(folder)) is None and 'class="pivot"' not in render_experiments([folder])


def test_bounds_are_rounded_in_the_safe_direction_and_numbers_of_any_size_are_written(synthetic, tmp_path):
    for metric, value, shown in (
        ("constant", 0.91234, "0.9124"),
        ("bound", 0.91239, "0.9123"),
        ("loss", 1e30, "1e+30"),
    ):
        config = {"activation": "relu", "dimension": 128, "depth": 3}
        metrics = {metric: value, "published": 0.125}
        groups = read_groups(synthetic.write_cell(tmp_path / metric, config, AXES, metrics=metrics))
        assert pivot(groups).lines[0][1] == [Entry(shown, "0.125")]


def test_names_and_values_are_escaped(synthetic, tmp_path):
    hostile = "<script>alert(1)</script>"
    config = {"activation": hostile, hostile: hostile}
    folder = synthetic.write_cell(tmp_path / "t", config, (*config,), metrics={"objective": 1, "published": 1})
    page = render_experiments([folder])
    assert 'class="pivot"' in page and "<script" not in page
