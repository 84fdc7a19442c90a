"""Surfaces: read, checked, drawn still for those without scripts, and turned by the one script that the page allows."""

import base64
import hashlib
import html
import json
import re

import numpy as np
import pytest

from tightlip import TightlipError
from tightlip.report import render_experiments
from tightlip.report.rows import columns, read_groups, text_table
from tightlip.report.surfaces import PATCHES

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


@pytest.fixture
def cones(synthetic, tmp_path):
    """Two activations, two seeds each, whose surfaces differ in height."""
    for place, name in enumerate(("relu", "maxmin")):
        for seed in (0, 1):
            metrics = {"objective": 0.5, "surface": synthetic.surface(1.0 + place + seed / 8)}
            synthetic.write_cell(tmp_path / "cones", {"activation": name}, seed=seed, place=place, metrics=metrics)
    return tmp_path / "cones"


def data(page):
    """What the script is given, surface by surface."""
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-surface="([^"]*)"', page)]


def test_a_surface_is_read_and_is_no_column(cones):
    groups = read_groups(cones)
    assert groups[0].rows[0].drawn["surface"].z.shape == (5, 3)
    assert columns(groups) == (["activation"], ["objective"])
    assert "surface" not in text_table(groups)


def test_the_first_seed_of_each_cell_is_shown_in_one_box(cones):
    first, second = data(render_experiments([cones]))
    assert [first["z"][0][0], second["z"][0][0]] == [pytest.approx(0), pytest.approx(-first["half"][2])]
    assert first["ends"] == second["ends"] == [["-2", "2"], ["0", "1"], ["-4", "0"]]
    assert np.shape(first["z"]) == (len(first["x"]), len(first["y"])) == (5, 3)
    for part in (first, second):
        assert [max(np.abs(part[axis]).max() for part in (first, second)) for axis in "xyz"] == part["half"]


def test_without_a_script_there_is_a_still_picture_that_says_what_it_shows(cones):
    page = render_experiments([cones])
    stills = re.findall(r'<div class="plot" role="img" aria-label="([^"]*)"><svg.*?</svg></div></div>', page, re.DOTALL)
    assert stills[1] == "Surface, activation maxmin: z between -4 and 0, highest at x = 0, y = 0."
    assert len(stills) == 2 and 'class="hint" hidden' in page
    assert re.search(r"fill: var\(--level-8\)", page) and re.search(r"fill: var\(--level-3\)", page)


def test_a_fine_surface_is_still_a_small_picture(synthetic, tmp_path):
    fine = synthetic.surface(columns=201, rows=101)
    page = render_experiments(
        [synthetic.write_cell(tmp_path / "fine", {"activation": "abs"}, metrics={"surface": fine})]
    )
    assert 100 < len(re.findall(r"fill: var\(--level-\d\)", page)) <= 1.2 * PATCHES
    assert len(data(page)[0]["x"]) == 201


def test_a_flat_surface_lies_in_the_middle(synthetic, tmp_path):
    flat = synthetic.surface(0.0)
    page = render_experiments(
        [synthetic.write_cell(tmp_path / "flat", {"activation": "abs"}, metrics={"surface": flat})]
    )
    assert np.abs(data(page)[0]["z"]).max() == 0


def test_the_policy_allows_the_script_that_is_there_and_no_other(cones):
    page = render_experiments([cones])
    (script,) = SCRIPT.findall(page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = POLICY.findall(page)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    assert page.count("<script") == 1 and "http" not in script and "</" not in script
    assert script.isascii()


def test_a_page_without_surfaces_allows_no_script(synthetic, tmp_path):
    page = render_experiments([synthetic.write_cell(tmp_path / "none", {"activation": "relu"})])
    assert "script" not in page and "data-surface" not in page


def test_rows_without_a_surface_may_stand_beside_others(synthetic, cones):
    synthetic.write_cell(cones, {"activation": "tanh"}, place=2)
    page = render_experiments([cones])
    assert len(data(page)) == 2 and "tanh" in page


def test_nothing_that_a_row_says_leaves_its_place(synthetic, tmp_path):
    hostile = "</script><script>alert(1)</script>\"' onload=alert(1)"
    metrics = {"surface": synthetic.surface(), "curve": {hostile: [0, 1], f"{hostile}2": [0, 1]}, hostile: 1.0}
    words = {"config": {}, "metrics": {}, "curves": {}}
    folder = synthetic.write_cell(
        tmp_path / "hostile", {"activation": hostile}, metrics=metrics, experiment=hostile, explanations=words
    )
    page = render_experiments([folder])
    assert page.count("<script") == page.count("</script") == 1
    assert not re.search(r"<[^>]*\sonload=", re.sub(r'"[^"]*"', '""', page))
    assert len(data(page)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (3, "'metrics.surface' is 3"),
        ({"x": None}, "'metrics.surface.x' is null"),
        ({"x": [0.0]}, "'metrics.surface.x' is"),
        ({"y": [0.0, 0.0, 1.0]}, "each larger than the one before"),
        ({"y": [0.0, 0.5]}, "lists of 2 finite numbers, one for each y"),
        ({"x": [0.0, 1.0]}, "a list for each x, 2 in all"),
        ({"x": [0.0, 1.0, 2.0, 3.0, None]}, "finite numbers"),
        ({"z": [[0.0, 0.0, 0.0]] * 4 + [[0.0, 0.0, None]]}, "lists of 3 finite numbers"),
        ({"z": [[0.0, 0.0, 1e300]] * 5}, "lists of 3 finite numbers"),
        ({"z": [[0.0, 0.0, 0.0]] * 4 + [[0.0]]}, "lists of 3 finite numbers"),
        ({"z": [1, 2, 3, 4, 5]}, "'metrics.surface.z[0]' is 1"),
        ({"z": [[0.0, 0.0, "high"]] * 5}, "a list of numbers"),
    ],
)
def test_a_damaged_surface_is_one_sentence(synthetic, tmp_path, change, says):
    damaged = {**synthetic.surface(), **change} if isinstance(change, dict) else change
    folder = synthetic.write_cell(tmp_path / "rows", {"activation": "relu"}, metrics={"surface": damaged})
    with pytest.raises(TightlipError, match=re.escape(says)) as caught:
        read_groups(folder)
    assert "relu_seed0" in str(caught.value) and "\n" not in str(caught.value)


def test_a_surface_that_lacks_a_part_says_which(synthetic, tmp_path):
    partial = {name: values for name, values in synthetic.surface().items() if name != "z"}
    folder = synthetic.write_cell(tmp_path / "rows", {"activation": "relu"}, metrics={"surface": partial})
    with pytest.raises(TightlipError, match="'metrics.surface.z' is missing"):
        read_groups(folder)
