"""The page and table of an experiment, from rows of this version and of the one before it knew explanations."""

import json
import re

import pytest

from tightlip import TightlipError
from tightlip.report import render_experiments, write_experiments
from tightlip.report.rows import read_groups, shared, text_key, text_table

WORDS = {
    "config": {"scheme": "How weights are held.", "rate": "Of Adam.", "width": "Of the hidden layers."},
    "metrics": {"bound": "What is proven about W1.", "error": "Of sampling."},
    "curves": {"step": "step of the optimizer", "largest": "largest singular value"},
}
NEW = {"preset": "paper", "about": "A critic is trained.", "explanations": WORDS, "truth": {"bound": 1.0}}


def write_row(folder, scheme="few", seed=0, place=None, rate=0.01, curve=None, **changes):
    """A row as the first version wrote it; with a place, one of this version."""
    row = {
        "format": 1,
        "command": "run",
        "experiment": "of_schemes",
        "summary": "Schemes, compared.",
        "axes": ["scheme", "rate"],
        "config": {"scheme": scheme, "rate": rate, "width": 128},
        "seed": seed,
        "metrics": {"bound": 0.5, "error": 1e-4, "curve": curve or {"step": [0, 1, 2], "largest": [1.0, 1.1, 1.2]}},
        "seconds": {"total": 1.0},
        **{"commit": "0" * 40, "dirty": False, "device": "cpu", "machine": "Z80"},
        **({} if place is None else {"place": place, **NEW}),
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"scheme={scheme}_rate={rate}_seed{seed}_0.json").write_text(json.dumps(row))


def schemes(folder):
    return [dict(group.key)["scheme"] for group in read_groups(folder)]


def render_experiment(folder):
    return render_experiments([folder])


def page(folder):
    """Its text without style, in one line."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", render_experiment(folder), flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", text).split())


def test_rows_of_an_installed_package_tell_its_version(tmp_path):
    write_row(tmp_path / "installed", commit=None, dirty=None, versions={"tightlip": "0.1.0"})
    assert "Version tightlip 0.1.0, installed" in page(tmp_path / "installed")
    write_row(tmp_path / "nothing", commit=None, dirty=None)
    assert "Commit unknown" in page(tmp_path / "nothing")


def test_rows_stand_in_the_order_of_the_grid(tmp_path):
    order = ["spectral", "cayley", "exact"]
    for place, scheme in enumerate(order):
        write_row(tmp_path, scheme, place=place)
    assert schemes(tmp_path) == order


def test_rows_that_know_no_place_stand_in_the_order_of_their_numbers(tmp_path):
    for scheme in ("few15", "parseval0.5", "few", "parseval0.05", "few3"):
        write_row(tmp_path, scheme)
    assert schemes(tmp_path) == ["few", "few3", "few15", "parseval0.05", "parseval0.5"]
    for rate in (1e-5, 0.001, 2.0):
        write_row(tmp_path / "rates", rate=rate)
    assert [dict(group.key)["rate"] for group in read_groups(tmp_path / "rates")] == ["1e-05", "0.001", "2.0"]


def test_a_stranger_finds_what_varies_what_is_the_same_what_is_measured_and_the_truth(tmp_path):
    write_row(tmp_path, place=0)
    text = page(tmp_path)
    for words in ("A critic is trained.", "Preset: paper.", "How weights are held.", "What is proven about W1."):
        assert words in text
    assert "width 128 Of the hidden layers." in text
    assert "What is proven about W1. The truth is 1." in text and "the truth 1" in text
    assert "Of sampling. The truth" not in text


def test_the_terminal_shows_the_same(tmp_path):
    write_row(tmp_path, place=0)
    groups = read_groups(tmp_path)
    assert text_table(groups).splitlines()[-1].split() == ["truth", "1"]
    assert text_key(groups).splitlines() == [
        "preset: paper",
        "the same in all rows: width 128",
        "scheme: How weights are held.",
        "rate: Of Adam.",
        "bound: What is proven about W1.",
        "error: Of sampling.",
    ]


def test_rows_of_before_there_were_explanations_still_make_a_page_and_a_table(tmp_path):
    write_row(tmp_path)
    groups = read_groups(tmp_path)
    assert text_key(groups) == "the same in all rows: width 128" and "truth" not in text_table(groups)
    text = page(tmp_path)
    assert "width 128" in text and "Preset" not in text and "truth" not in text


def test_rows_of_both_kinds_share_their_words(tmp_path):
    write_row(tmp_path, "few")
    write_row(tmp_path, "cayley", place=0)
    assert schemes(tmp_path) == ["cayley", "few"] and "How weights are held." in page(tmp_path)


def test_options_that_vary_are_not_called_the_same(tmp_path):
    write_row(tmp_path, config={"scheme": "few", "rate": 0.01, "width": 64})
    write_row(tmp_path, "cayley")
    assert shared(read_groups(tmp_path)) == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"explanations": []}, "explanations"),
        ({"explanations": {"metrics": {"bound": 3}}}, "explanations.metrics.bound"),
        ({"truth": {"bound": "one"}}, "truth.bound"),
        ({"preset": None}, "preset"),
        ({"place": "first"}, "place"),
    ],
)
def test_broken_words_are_one_sentence(tmp_path, change, field):
    write_row(tmp_path, place=0)
    write_row(tmp_path, "broken", **{"place": 1, **NEW, **change})
    with pytest.raises(TightlipError, match=f"'{field}' is") as caught:
        read_groups(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_key_to_ten_lines_stands_below_the_figure_and_tells_them_apart(tmp_path):
    for place in range(10):
        write_row(tmp_path, f"scheme{place}", place=place)
    text = render_experiment(tmp_path)
    (drawing,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert "legend" not in drawing and "scheme0" not in drawing
    key = re.findall(r'border-top: 2px (\w+) var\((--run-\d)\)"[^>]*></span>(\w+)</li>', text)
    assert [label for *_, label in key] == [f"scheme{place}" for place in range(10)]
    assert len({(dash, color) for dash, color, _ in key}) == 10
    assert all(f"var({color})" in drawing for _, color, _ in key)


def test_axes_are_titled_in_words_and_whole_numbers_have_whole_ticks(tmp_path):
    write_row(tmp_path, place=0)
    text = render_experiment(tmp_path)
    (drawing,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    ticks = re.findall(r'id="[\w-]*xtick_\d+".*?<text[^>]*>([^<]*)</text>', drawing, re.DOTALL)
    assert ticks and all(re.fullmatch(r"\d+", tick) for tick in ticks)
    assert "step of the optimizer" in drawing and "largest singular value" in drawing
    assert "<h4>largest singular value, rate 0.01</h4>" in text


def test_fractions_keep_their_ticks(tmp_path):
    write_row(tmp_path, curve={"step": [0.0, 0.25, 0.5], "largest": [1.0, 1.1, 1.2]})
    assert re.search(r">0\.2\d?</text>", render_experiment(tmp_path))


def test_a_single_cell_without_axes_is_drawn(tmp_path):
    write_row(tmp_path, axes=[], place=0)
    assert "the only cell" in render_experiment(tmp_path)
    assert text_table(read_groups(tmp_path)).splitlines()[0].split() == ["bound", "error"]


def test_what_a_row_says_is_escaped(tmp_path):
    hostile = "<script>alert(1)</script>"
    words = {**WORDS, "metrics": {"bound": hostile}, "curves": {"step": hostile, "largest": hostile}}
    row = {**NEW, "explanations": words, "about": hostile, "preset": hostile, "summary": hostile}
    write_row(tmp_path, config={"scheme": hostile, "rate": hostile, "width": hostile}, **{"place": 0, **row})
    assert "<script" not in render_experiment(tmp_path)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    write_row(tmp_path / "rows", place=0)
    write_experiments([tmp_path / "rows"], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render_experiment(tmp_path / "rows")


def test_rows_whose_curves_differ_or_are_empty_are_drawn_as_far_as_they_go(tmp_path):
    write_row(tmp_path / "rows", "few")
    write_row(tmp_path / "rows", "many", curve={"step": [0, 1], "norm": [1.0, 1.0]})
    write_row(tmp_path / "rows", "none", curve={"step": [], "largest": []})
    text = page(tmp_path / "rows")
    assert "few" in text and "many" in text and "none" in text
