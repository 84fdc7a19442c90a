"""Images of an experiment: read, checked, scaled as they say, and shown as a grid with headings."""

import base64
import html
import io
import re

import matplotlib.image
import numpy as np
import pytest

from tightlip import TightlipError
from tightlip.report import render_experiments
from tightlip.report.images import Grid, Line
from tightlip.report.rows import read_groups

GRAY = [[0.0, 0.5], [1.0, 0.25]]
SLOPE = [[-2.0, 0.0], [1.0, 2.0]]
WEAK = [[-1.0, 0.0], [0.5, 1.0]]
IMAGES = {
    "columns": ["a cat", "a dog"],
    "scale": "column",
    "rows": [
        {"heading": "image", "signed": False, "images": [GRAY, GRAY]},
        {"heading": "target cat", "signed": True, "images": [SLOPE, WEAK]},
        {"heading": "target dog", "signed": True, "images": [WEAK, WEAK]},
    ],
}
WHITE, RED, BLUE = matplotlib.colormaps["RdBu_r"]([0.5, 1.0, 0.0])[:, :3]


def write(synthetic, folder, images, **changes):
    metrics, drawings = {"objective": 0.5}, {"images": images}
    return synthetic.write_cell(folder, {"activation": "relu"}, metrics=metrics, format=2, drawings=drawings, **changes)


def shown(page):
    """What each image shows in words, and its colors (height, width, 3)."""
    tags = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"', page)
    return {
        html.unescape(alt): matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))[..., :3] for data, alt in tags
    }


@pytest.fixture
def page(synthetic, tmp_path):
    return render_experiments([write(synthetic, tmp_path / "rows", IMAGES)])


def test_each_image_has_its_place_under_its_headings(page):
    table = re.search(r'<table class="mosaic">.*?</table>', page, re.DOTALL).group()
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["a cat", "a dog"]
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == ["image", "target cat", "target dog"]
    assert list(shown(page)) == [
        f"{heading}, {column}" for heading in ("image", "target cat", "target dog") for column in ("a cat", "a dog")
    ]
    assert np.allclose(shown(page)["image, a cat"], np.array(GRAY)[..., None], atol=1 / 255)


def test_positive_is_red_negative_blue_and_zero_white(page):
    colors = shown(page)["target cat, a cat"]
    for (row, column), color in {(0, 0): BLUE, (0, 1): WHITE, (1, 1): RED}.items():
        assert np.allclose(colors[row, column], color, atol=0.01)
    assert "Red is above zero, blue below, white at it. Those of one column have one scale." in page


def test_one_scale_for_a_column_or_one_for_each_image(synthetic, tmp_path, page):
    own = shown(render_experiments([write(synthetic, tmp_path / "own", IMAGES | {"scale": "image"})]))
    assert np.array_equal(own["target dog, a cat"], own["target cat, a cat"])  # half of it, at half the scale
    one = shown(page)
    assert not np.array_equal(one["target dog, a cat"], one["target cat, a cat"])
    assert np.array_equal(one["target dog, a dog"], own["target dog, a dog"])  # the other column is weak as a whole
    half = matplotlib.colormaps["RdBu_r"](0.75)[:3]
    assert np.allclose(one["target dog, a cat"][1, 1], half, atol=0.02)


def test_the_scale_of_a_column_is_that_of_its_signed_images_summed_over_channels():
    image = Line("image", False, (np.full((1, 2, 2), 7.0),))
    slopes = [Line("t", True, (np.array(values, dtype=float),)) for values in ([[[1.0]], [[2.0]]], [[[-9.0]], [[4.0]]])]
    assert Grid(("a",), "column", (image, *slopes)).largest(0) == 5
    assert Grid(("a",), "image", (image, *slopes)).largest(0) is None
    assert Grid(("a",), "column", (image,)).largest(0) is None


def test_gradients_of_zeros_and_unknown_numbers_are_white(synthetic, tmp_path):
    lines = [{"heading": "none", "signed": True, "images": [[[0.0, None]], [[None, 0]]]}]
    folder = write(synthetic, tmp_path / "rows", {"columns": ["a", "b"], "scale": "column", "rows": lines})
    assert all(np.allclose(colors, WHITE, atol=0.01) for colors in shown(render_experiments([folder])).values())


def test_images_without_signs_have_no_words_of_scales_and_may_have_colors(synthetic, tmp_path):
    colored = np.zeros((3, 1, 2))
    colored[0, 0, 1] = 1.0
    lines = [{"heading": "image", "signed": False, "images": [colored.tolist()]}]
    folder = write(synthetic, tmp_path / "rows", {"columns": ["a"], "scale": "image", "rows": lines})
    page = render_experiments([folder])
    assert shown(page)["image, a"].tolist() == [[[0, 0, 0], [1, 0, 0]]] and "<figcaption" not in page


def test_rows_without_images_may_stand_beside_others_and_the_first_seed_is_shown(synthetic, tmp_path):
    folder = write(synthetic, tmp_path / "rows", IMAGES)
    write(synthetic, folder, IMAGES | {"columns": ["second", "seed"]}, seed=1)
    synthetic.write_cell(folder, {"activation": "tanh"}, place=1)
    page = render_experiments([folder])
    assert page.count('class="mosaic"') == 1 and "second" not in page and "tanh" in page


def test_a_page_without_images_has_no_section_for_them(synthetic, tmp_path):
    page = render_experiments([synthetic.write_cell(tmp_path / "rows", {"activation": "relu"})])
    assert "<img" not in page and "-images" not in page


def test_nothing_that_a_row_says_leaves_its_place(synthetic, tmp_path):
    hostile = "</table><script>alert(1)</script>\"' onerror=alert(1)"
    lines = [{"heading": hostile, "signed": True, "images": [SLOPE]}]
    folder = write(synthetic, tmp_path / "rows", {"columns": [hostile], "scale": "image", "rows": lines})
    page = render_experiments([folder])
    assert "<script" not in page and page.count("</table>") == page.count("<table")
    assert not re.search(r"<[^>]*\sonerror=", re.sub(r'"[^"]*"', '""', page))


LINE = {"heading": "image", "signed": False, "images": [GRAY, GRAY]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (3, "'drawings.images' is 3"),
        ({"columns": []}, "a heading for each column"),
        ({"columns": [1, 2]}, "a list of strings"),
        ({"scale": "row"}, "one of image, column"),
        ({"scale": ...}, "'drawings.images.scale' is missing"),
        ({"rows": []}, "one row of images at least"),
        ({"rows": [3]}, "a list of objects"),
        ({"rows": [LINE | {"images": [GRAY]}]}, "an image for each column, 2 in all"),
        ({"rows": [LINE | {"images": [GRAY, [[1.0], [1.0, 2.0]]]}]}, "'drawings.images.rows[0].images[1]' is"),
        ({"rows": [LINE | {"images": [GRAY, "cat"]}]}, "an image"),
        ({"rows": [LINE | {"images": [GRAY, [[]]]}]}, "an image with two or three axes"),
        ({"rows": [LINE | {"images": [GRAY, [[1e300]]]}]}, "numbers below 1e100"),
        ({"rows": [LINE | {"signed": 1}]}, "true, false or null"),
        ({"rows": [LINE | {"heading": 1}]}, "a string"),
    ],
)
def test_damaged_images_are_one_sentence(synthetic, tmp_path, change, says):
    damaged = {**IMAGES, **change} if isinstance(change, dict) else change
    if isinstance(damaged, dict):
        damaged = {name: value for name, value in damaged.items() if value is not ...}
    with pytest.raises(TightlipError, match=re.escape(says)) as caught:
        read_groups(write(synthetic, tmp_path / "rows", damaged))
    assert "relu_seed0" in str(caught.value) and "\n" not in str(caught.value)
