"""The page of a distance, from rows written by hand: what is infinite, zero, absent, hostile."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from tightlip import TightlipError
from tightlip.records import DistanceRow, Lengths, Line, Move, Plane, Sample, Shown
from tightlip.records.distance import Counts
from tightlip.report import render_distances

AXIS = np.linspace(-1.0, 1.0, 5)

ROW = DistanceRow(
    command="distance",
    name="r",
    config={"a": "a.npy", "b": "b.npy", "diameter": None},
    first=Sample("a.npy", "0" * 64, 3),
    second=Sample("b.npy", "1" * 64, 3),
    shape=np.array([4]),
    unit="the numbers as they are",
    norm="2",
    about="samples",
    lower=1.0,
    upper=1.5,
    estimate=1.25,
    method="auction",
    reason="the gap is within the tolerance",
    history={"seconds": [0.0, 0.5, 1.0], "lower": [0.0, 0.5, 1.0], "upper": [3.0, 3.0, 1.5]},
    seed=0,
    seconds={"search": 1.0},
    columns=("[0]", "[1]", "[2]", "[3]"),
    commit="c" * 40,
    dirty=False,
    device="cpu",
    machine="a machine",
    versions={"python": "3"},
    threads=1,
)


def page(folder, row=ROW, **changes):
    folder.mkdir(exist_ok=True)
    replace(row, **changes).write(folder / "distance.json")
    return render_distances([folder])


def words(text):
    text = re.sub(r"<(style|svg|script)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_a_row_comes_back_as_it_was_written(tmp_path):
    counts = Counts(AXIS, AXIS[1:], AXIS[1:])
    whole = replace(
        ROW,
        upper=np.inf,
        line=Line(AXIS, AXIS, counts),
        plane=Plane(AXIS, AXIS, np.zeros((5, 5)), AXIS, AXIS, AXIS, AXIS),
        lengths=Lengths(AXIS, AXIS[1:]),
        apart=(Shown(1, "row 0", 0.5, AXIS),),
        moves=(Move("row 0", "row 1", 2.0, AXIS, AXIS),),
    )
    whole.write(tmp_path / "distance.json")
    assert repr(DistanceRow.read(tmp_path / "distance.json")) == repr(whole)


def test_the_page_says_the_interval_rounded_outward(tmp_path):
    text = words(page(tmp_path / "r", lower=1.23456789, upper=1.3456711))
    assert "at least 1.23456 and at most 1.34568" in text and "1.23457" not in text and "1.34567 " not in text


def test_zero_and_narrow_intervals_are_drawn(tmp_path):
    history = {"seconds": [0.0], "lower": [0.0], "upper": [0.0]}
    text = page(tmp_path / "zero", lower=0.0, upper=0.0, estimate=0.0, history=history)
    assert "at least 0 and at most 0" in words(text) and "Close up" not in text
    assert "Close up" in page(tmp_path / "narrow", lower=1.499) and "Close up" not in page(tmp_path / "wide")


def test_an_upper_end_that_is_not_there_is_no_number(tmp_path):
    history = {"seconds": [0.0, 1.0], "lower": [0.0, 0.25], "upper": [float("inf")] * 2}
    changes = {"about": "distributions", "level": 0.95, "p_value": 0.001, "lower": 0.25, "upper": np.inf}
    text = page(tmp_path / "r", **changes, history=history)
    assert (
        "0.25 and ∞" in words(text) and "no upper end" in words(text) and not re.search(r"\bnan\b", words(text).lower())
    )
    assert "nothing bounds it from above" in text and "would occur in at most 0.1 % of all draws" in words(text)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "{{ 7 * 7 }}", '"><img src=x>', "a b.npy", "é" * 300])
def test_names_are_shown_as_they_are_and_do_nothing(tmp_path, name):
    tile, move = Shown(1, name, 0.5, np.ones(4)), Move(name, name, 1.0, np.ones(4), np.ones(4))
    hostile = {"first": Sample(name, "0" * 64, 3), "columns": (name,) * 4, "apart": (tile,), "moves": (move,)}
    text = page(tmp_path / "r", **hostile, config={"a": name}, unit=name, method=name, reason=name)
    assert "<script>" not in text and "<img" not in text and " ".join(name.split()) in words(text)


def test_images_of_any_range_are_shown(tmp_path):
    image = np.linspace(-500.0, 2000.0, 12)
    shown = {"apart": (Shown(1, "row 0", 0.5, image),), "moves": (Move("row 0", "row 1", 1.0, image, -image),)}
    assert page(tmp_path / "r", shape=np.array([3, 2, 2]), columns=(), **shown).count("data:image/png") == 3


def test_a_search_that_was_stopped_says_so(tmp_path):
    assert "This search was stopped" in words(page(tmp_path / "r", finished=False))
    assert "This search was stopped" not in words(page(tmp_path / "s"))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TightlipError, match="needs at least one folder"):
        render_distances([])
    with pytest.raises(TightlipError, match=r"distance\.json is missing"):
        render_distances([tmp_path])
    page(tmp_path / "r")
    path = tmp_path / "r" / "distance.json"
    path.write_text(path.read_text().replace('"norm": "2"', '"norm": "3"'))
    with pytest.raises(TightlipError, match="the field 'norm' is '3', but a report needs one of the norms"):
        render_distances([tmp_path / "r"])
