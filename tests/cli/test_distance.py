"""`tightlip distance`: numbers and a page from every kind of sample; what stopped goes on; mistakes are sentences."""

import html
import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import Started
from safetensors import safe_open
from safetensors.torch import save

from tightlip import wasserstein1
from tightlip.cli import distance, main, prices
from tightlip.cli.distance import Distance
from tightlip.cli.prices import PRICES, kept
from tightlip.data import load
from tightlip.locking import sole_writer
from tightlip.records import DistanceRow
from tightlip.report import render_distances
from tightlip.transport import search

KNOWN = 8.2233113054
"""W1 of the digits 3 and 8 of mnist5k, by the network simplex."""


pytestmark = pytest.mark.usefixtures("workplace")


def cloud(n, d, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def said(capsys, *command, code=0):
    """What it prints: on stderr, if it fails."""
    assert main(["distance", *map(str, command), "--threads", "1"]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err.splitlines()[-1]


def written(capsys, *command, name="r"):
    """The row, and the page as text."""
    said(capsys, *command, "--name", name)
    row = DistanceRow.read(Path("runs", name, "distance.json"))
    assert row.first.rows and sorted(os.listdir(Path("runs", name)))[-1] == "report.html"
    return row, Path("runs", name, "report.html").read_text(encoding="utf-8")


def words(page):
    """What a page says, without its marks, styles and drawings."""
    page = re.sub(r"<(style|svg|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def same(row, x, y, **options):
    """Whether a row holds what the library says of these points."""
    found = wasserstein1(x, y, progress=False, **options)
    return (row.lower, row.upper, row.method) == (found.lower, found.upper, found.method)


# ------------------------------------------------------------------------------------------------------ what it says


def test_digits_are_apart_by_what_is_known_and_shown_as_images(capsys):
    row, page = written(capsys, "mnist5k:3", "mnist5k:8", "--tolerance", "1e-2")
    assert row.lower <= KNOWN <= row.upper and 0 < row.gap <= 1e-2
    digits = load("mnist5k")
    x, y = (digits.images[digits.labels == digit].float() / 255 for digit in (3, 8))
    assert same(row, x, y, tolerance=1e-2)
    assert [(sample.given, sample.rows, sample.sha256) for sample in (row.first, row.second)] == [
        ("mnist5k:3", 500, digits.sha256),
        ("mnist5k:8", 500, digits.sha256),
    ]
    text = words(page)
    assert "500 images against 500 of 1×28×28" in text and "pixels from 0 to 1" in text
    assert page.count("data:image/png") == 4 * 6 + 2 * 8
    images = (digits.images.float() / 255).double().flatten(1)
    for move in row.moves:
        start, end = (int(name.removeprefix("row ")) for name in (move.first, move.second))
        assert np.array_equal(move.start, images[start]) and np.array_equal(move.end, images[end])
        assert (int(digits.labels[start]), int(digits.labels[end])) == (3, 8)
        assert move.length == pytest.approx(np.linalg.norm(move.start - move.end), rel=1e-12)
    lengths = [move.length for move in row.moves]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > row.upper


def test_the_last_lines_are_the_numbers_and_where_the_page_is(capsys):
    np.save("a.npy", cloud(60, 3)), np.save("b.npy", cloud(60, 3, 1, 0.5))
    lines = dict(line.split(maxsplit=1) for line in said(capsys, "a.npy", "b.npy", "--name", "r").splitlines())
    row = DistanceRow.read(Path("runs/r/distance.json"))
    assert list(lines) == ["lower", "upper", "gap", "about", "method", "seconds", "page"]
    assert float(lines["lower"].split()[0]) <= row.lower and row.upper <= float(lines["upper"].split()[0])
    assert lines["lower"].endswith("(proven)") and lines["about"] == "the samples: 60 rows against 60, 2-norm"
    assert lines["page"] == str(Path("runs/r/report.html").resolve())


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_points_on_a_line_show_their_potential_and_both_histograms(capsys, norm):
    x, y = cloud(300, 1)[:, 0], cloud(200, 1, 1, 0.5, 2)[:, 0]
    np.save("a.npy", x), np.save("b.npy", y)
    row, page = written(capsys, "a.npy", "b.npy", "--norm", norm)
    assert same(row, x, y) and row.gap < 1e-12
    line = row.line
    slopes = np.diff(line.potential) / np.diff(line.at)
    assert np.abs(slopes).max() <= 1 + 1e-9 and np.abs(slopes).max() >= 1 - 1e-9 and line.potential.min() == 0
    for shares, sample in ((line.counts.first, x), (line.counts.second, y)):
        inside = (sample >= line.counts.edges[0]) & (sample <= line.counts.edges[-1])
        assert shares.sum() == pytest.approx(inside.mean()) and shares.sum() > 0.98
    assert "Histograms of both samples" in page and "the slope" not in page
    assert "300 numbers against 200" in words(page) and "Samples of different sizes" in words(page)


def test_points_in_a_plane_show_levels_a_surface_and_far_pairs(capsys):
    x, y = cloud(80, 2), cloud(80, 2, 1, 1.0)
    np.save("a.npy", x), np.save("b.npy", y)
    row, page = written(capsys, "a.npy", "b.npy")
    assert same(row, x, y)
    plane = row.plane
    across = np.abs(np.diff(plane.z, axis=0)) / np.diff(plane.x)[:, None]
    along = np.abs(np.diff(plane.z, axis=1)) / np.diff(plane.y)
    assert max(across.max(), along.max()) <= 1 + 1e-9  # the potential is 1-Lipschitz
    assert np.array_equal(plane.first_x, x[:, 0]) and np.array_equal(plane.second_y, y[:, 1])
    assert "Levels of the potential, 80 and 80 points" in page and "data-surface" in page
    assert "script-src 'sha256-" in page and "8 pairs that moved farthest" in words(page)


def test_rows_of_a_table_are_shown_with_their_columns(capsys):
    names = ["age", "height", "<b>", "d", "e", "f", "g", "h", "far", "j"]
    shift = np.where(np.array(names) == "far", 9.0, 0.0)
    for file, sample in (("a.csv", cloud(70, 10)), ("b.csv", cloud(70, 10, 1) + shift)):
        np.savetxt(file, sample, delimiter=",", header=",".join(names), comments="")
    row, page = written(capsys, "a.csv", "b.csv")
    assert len(row.columns) == 8 and "far" in row.columns and set(row.columns) <= set(names)
    assert "The 8 of 10 coordinates in which the samples differ most" in words(page)
    assert "<b>" not in page.replace("&lt;b&gt;", "")
    a = np.loadtxt("a.csv", delimiter=",", skiprows=1)
    best = [point for point in row.apart if point.sample == 1]
    assert len(best) == 6 and [point.value for point in best] == sorted((p.value for p in best), reverse=True)
    for point in best:
        kept_columns = [names.index(name) for name in row.columns]
        assert np.array_equal(point.numbers, a[int(point.name.removeprefix("row "))][kept_columns])
    means = [np.mean([point.value for point in row.apart if point.sample == side]) for side in (1, 2)]
    assert means[0] > means[1] + row.lower  # high on the first, low on the second


def test_folders_of_images_are_called_by_their_files(capsys, workplace):
    for folder, light in (("dark", 20), ("light", 200)):
        (workplace / folder).mkdir()
        for place in range(5):
            Image.new("L", (4, 4), light + place).save(workplace / folder / f"{place}.png")
    row, page = written(capsys, "dark", "light")
    assert row.lower == pytest.approx(4 * 180 / 255, rel=1e-6)  # 16 pixels, each by 180/255
    assert {move.second[:1] for move in row.moves} <= set("01234") and ".png" in words(page)


def test_samples_of_other_sizes_share_points_out(capsys):
    x, y = cloud(50, 4), cloud(35, 4, 1, 0.5)
    np.savez("both.npz", x=x, y=y)
    row, _ = written(capsys, "both.npz:x", "both.npz:y")
    assert same(row, x, y) and row.lengths is None and len(row.moves) == 8


def test_distributions_have_a_level_and_a_p_value_and_no_upper_end_without_a_diameter(capsys):
    x, y = cloud(120, 2), cloud(120, 2, 1, 2.0)
    np.save("a.npy", x), np.save("b.npy", y)
    options = ["--about", "distributions", "--level", "0.9", "--seconds", "1"]
    shown = said(capsys, "a.npy", "b.npy", "--name", "r", *options)
    assert "∞   (give --diameter" in shown and "(with 90 % confidence)" in shown and "p-value" in shown
    row, text = DistanceRow.read(Path("runs/r/distance.json")), words(Path("runs/r/report.html").read_text("utf-8"))
    assert np.isinf(row.upper) and row.level == 0.9 and 0 < row.lower <= row.estimate and row.p_value <= 0.01
    assert json.loads(Path("runs/r/distance.json").read_text())["upper"] is None
    for sentence in (
        "are independent draws, the distance of the distributions behind them is at least",
        "Nothing bounds it from above.",
        "--diameter",
        "with 90 % confidence",
        "no end on the right",
    ):
        assert sentence in text, sentence
    assert "proven for these very numbers" not in text


def test_a_declared_diameter_bounds_distributions_from_above(capsys):
    np.save("a.npy", cloud(60, 1)), np.save("b.npy", cloud(60, 1, 1, 2.0))
    options = ["--about", "distributions", "--diameter", "30", "--seconds", "1"]
    row, page = written(capsys, "a.npy", "b.npy", *options)
    assert row.lower < 2 < row.upper < 30 and row.diameter == 30
    assert "no two that can occur are farther apart than 30, the distance" in words(page)


def test_a_limit_draws_rows_by_seed_and_names_them_as_in_the_file(capsys):
    x, y = cloud(90, 3), cloud(80, 3, 1, 1.0)
    np.save("a.npy", x), np.save("b.npy", y)
    first, again, other = (
        written(capsys, "a.npy", "b.npy", "--limit", "20", "--seed", seed, name=f"r{place}")[0]
        for place, seed in enumerate((3, 3, 4))
    )
    assert (first.first.rows, first.second.rows) == (20, 20)
    assert (first.lower, first.upper) == (again.lower, again.upper) != (other.lower, other.upper)
    for move in first.moves:
        assert np.array_equal(move.start, x[int(move.first.removeprefix("row "))])
        assert np.array_equal(move.end, y[int(move.second.removeprefix("row "))])


def test_a_standard_scale_does_not_depend_on_the_units_of_columns(capsys):
    x, y = cloud(50, 3), cloud(50, 3, 1, 0.5)
    for name, unit in (("one", 1.0), ("other", np.array([1e6, 1e-3, 1.0]))):
        np.savez(f"{name}.npz", x=x * unit, y=y * unit)
    rows = [
        written(capsys, f"{name}.npz:x", f"{name}.npz:y", "--scale", "standard", "--tolerance", "1e-4", name=name)[0]
        for name in ("one", "other")
    ]
    assert rows[0].lower <= rows[1].upper and rows[1].lower <= rows[0].upper
    scale = np.concatenate((x, y)).std(0)
    found = wasserstein1(x / scale, y / scale, tolerance=1e-4, progress=False)
    assert rows[0].lower == pytest.approx(found.lower, rel=2e-4) and "standard deviations" in rows[0].unit


def test_one_number_is_enough_and_equal_samples_are_at_no_distance(capsys):
    np.save("a.npy", np.array([3.0])), np.save("b.npy", np.array([5.0]))
    row, page = written(capsys, "a.npy", "b.npy")
    assert row.lower <= 2 <= row.upper and row.gap < 1e-12 and "1 numbers" not in words(page)
    same_row, _ = written(capsys, "a.npy", "a.npy", name="same")
    assert same_row.lower == same_row.upper == 0
    np.save("c.npy", np.ones((4, 1, 5, 5)))
    same_images, _ = written(capsys, "c.npy", "c.npy", name="images")
    assert same_images.upper == 0 and len(same_images.moves) == 4


def test_the_numbers_go_to_another_file_too(capsys):
    np.save("a.npy", cloud(20, 3))
    said(capsys, "a.npy", "a.npy", "--name", "r", "--output", "numbers.json")
    assert Path("numbers.json").read_text() == Path("runs/r/distance.json").read_text()


def test_a_folder_without_a_name_is_called_by_the_samples(capsys):
    np.savez("two.npz", x=cloud(9, 2), y=cloud(9, 2, 1))
    said(capsys, "two.npz:x", "two.npz:y", "--norm", "inf")
    (name,) = os.listdir("runs")
    assert re.fullmatch(r"two\.npz-x-two\.npz-y-linf-\d{8}-\d{6}", name)


def test_the_page_is_made_again_from_the_numbers_and_of_several(capsys):
    np.save("a.npy", cloud(20, 3)), np.save("b.npy", cloud(20, 2))
    _, first = written(capsys, "a.npy", "a.npy", name="first")
    written(capsys, "b.npy", "b.npy", name="second")
    assert render_distances([Path("runs/first")]) == first
    os.remove("runs/first/report.html")
    assert main(["report", "runs/first/distance.json"]) == 0
    assert Path("runs/first/report.html").read_text(encoding="utf-8") == first
    assert main(["report", "runs/first", "runs/second"]) == 0
    both = Path("report.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', both)
    assert len(ids) == len(set(ids)) and both.count("<article") == 2 and "2 distances" in both
    capsys.readouterr()
    assert main(["run", "folding"]) == 0 and main(["report", "runs/first", "runs/folding-smoke"]) == 2
    assert "distances and experiments have pages of their own" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- what stops and goes on


@pytest.fixture
def listening(monkeypatch):
    """A search that tells everything that it proves, and keeps it."""
    monkeypatch.setattr(search, "PATIENCE", 0.0)
    monkeypatch.setattr(search, "SPARSE", 0.0)
    monkeypatch.setattr(distance, "EVERY", 0.0)


def stop_after(monkeypatch, looks, how=KeyboardInterrupt):
    """Interrupt a search when it has told so much."""
    told = distance._Search.heard

    def heard(self, found):
        told(self, found)
        self.looks = getattr(self, "looks", 0) + 1
        if self.looks >= looks:
            raise how

    monkeypatch.setattr(distance._Search, "heard", heard)

    def go_on():
        monkeypatch.setattr(distance._Search, "heard", told)
        monkeypatch.setattr(search, "PATIENCE", 1.0)
        monkeypatch.setattr(distance, "EVERY", 5.0)

    return go_on


def two(n=150, m=150, d=4):
    x, y = cloud(n, d), cloud(m, d, 1, 0.5)
    np.save("a.npy", x), np.save("b.npy", y)
    return x, y


def test_an_interruption_leaves_what_is_proven_and_the_command_that_goes_on(capsys, monkeypatch, listening):
    x, y = two()
    true = wasserstein1(x, y, tolerance=0, progress=False)
    go_on = stop_after(monkeypatch, 4)
    advice = said(capsys, "a.npy", "b.npy", code=130)
    (name,) = os.listdir("runs")
    assert f"interrupted; continue with: tightlip distance a.npy b.npy --threads 1 --resume --name {name}" in advice
    row, page = DistanceRow.read(Path("runs", name, "distance.json")), Path("runs", name, "report.html")
    assert row.lower <= true.upper and true.lower <= row.upper and row.gap > 1e-3 and not row.finished
    assert row.reason == "the search was interrupted" and row.history["lower"][-1] == row.lower
    assert "This search was stopped. The interval holds all the same" in words(page.read_text("utf-8"))
    go_on()
    said(capsys, *shlex.split(advice.partition("distance ")[2]))
    after = DistanceRow.read(Path("runs", name, "distance.json"))
    assert row.lower <= after.lower <= true.upper and true.lower <= after.upper <= row.upper
    assert after.gap <= 1e-3 and after.finished and after.seconds["search"] > row.seconds["search"]
    assert after.history["lower"][: len(row.history["lower"])] == row.history["lower"]
    for column, sign in (("seconds", 1), ("lower", 1), ("upper", -1)):
        assert (sign * np.diff(after.history[column]) >= 0).all(), column
    Path("runs", name, ".lock").touch()  # of one that was killed at the very end
    assert "is complete already" in said(capsys, "a.npy", "b.npy", "--name", name, "--resume")
    assert not Path("runs", name, ".lock").exists()
    with sole_writer(Path("runs", name)):
        assert "is being written by" in said(capsys, "a.npy", "b.npy", "--name", name, "--resume", code=2)


def test_samples_of_other_sizes_keep_what_is_proven_too(capsys, monkeypatch, listening):
    x, y = two(60, 45)
    true = wasserstein1(x, y, tolerance=0, progress=False)
    go_on = stop_after(monkeypatch, 2)
    said(capsys, "a.npy", "b.npy", "--name", "r", "--tolerance", "0", code=130)
    row = DistanceRow.read(Path("runs/r/distance.json"))
    assert 0 < row.lower <= true.upper and true.lower <= row.upper < np.inf
    go_on()
    said(capsys, "a.npy", "b.npy", "--name", "r", "--tolerance", "0", "--resume")
    after = DistanceRow.read(Path("runs/r/distance.json"))
    assert row.lower <= after.lower <= true.upper and true.lower <= after.upper <= row.upper


def test_a_search_goes_on_to_a_smaller_tolerance_and_when_its_time_was_over(capsys):
    two()
    out = said(capsys, "a.npy", "b.npy", "--name", "r", "--seconds", "0")
    first = DistanceRow.read(Path("runs/r/distance.json"))
    assert "the same command with --resume --name r goes on" in out and not first.finished
    said(capsys, "a.npy", "b.npy", "--name", "r", "--resume")
    second = DistanceRow.read(Path("runs/r/distance.json"))
    said(capsys, "a.npy", "b.npy", "--name", "r", "--resume", "--tolerance", "1e-5")
    third = DistanceRow.read(Path("runs/r/distance.json"))
    assert first.gap > 1e-3 >= second.gap > 1e-5 >= third.gap
    assert first.lower <= second.lower <= third.lower <= third.upper <= second.upper <= first.upper


def test_nothing_is_kept_of_a_search_that_has_proven_nothing(capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    two()
    monkeypatch.setattr(distance, "wasserstein1", stop)
    assert said(capsys, "a.npy", "b.npy", code=130) == "tightlip: interrupted; nothing was kept"
    assert os.listdir("runs") == []


def test_other_samples_and_options_are_refused_when_a_search_goes_on(capsys, monkeypatch, listening):
    two()
    go_on = stop_after(monkeypatch, 3)
    said(capsys, "a.npy", "b.npy", "--name", "r", code=130)
    go_on()
    base = ["a.npy", "b.npy", "--name", "r", "--resume"]
    assert "runs/r began with norm=2: resume it with the same" in said(capsys, *base, "--norm", "1", code=2)
    assert "runs/r began with seed=0" in said(capsys, *base, "--seed", "1", code=2)
    np.save("b.npy", cloud(150, 4, 7))
    assert "runs/r began with sha256=" in said(capsys, *base, code=2)
    two()
    said(capsys, *base)
    assert "runs/r began with limit=None" in said(capsys, *base, "--limit", "5", code=2)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_prices_are_named(capsys, share):
    two()
    said(capsys, "a.npy", "b.npy", "--name", "r", "--seconds", "0")
    path = Path("runs/r", PRICES)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    sentence = said(capsys, "a.npy", "b.npy", "--name", "r", "--resume", code=2)
    assert f"{path} is damaged: delete runs/r" in sentence


def test_prices_are_not_believed(capsys):
    """A folder whose prices were written over is not gone on with."""
    x, y = two()
    said(capsys, "a.npy", "b.npy", "--name", "r", "--seconds", "0")
    command = Distance("a.npy", "b.npy", name="r")
    told = command._told(*command._points())
    found = kept(Path("runs/r"), told).interval(torch.from_numpy(x), torch.from_numpy(y), 2.0)
    found.critic.offsets.copy_(torch.linspace(0, 99, len(y)))
    distance.keep(Path("runs/r"), found, told)
    assert "is damaged: delete runs/r" in said(capsys, "a.npy", "b.npy", "--name", "r", "--resume", code=2)


@pytest.mark.parametrize("sizes", [(30, 30), (30, 20)])
@pytest.mark.parametrize(
    "change",
    [
        {"lower": 99.0},
        {"lower": 0.9, "upper": 0.8},
        {"upper": 0.1, "lower": 0.0},
        {"lower": "x"},
        {"seconds": "x"},
        {"history": None},
        {"history": [[0]]},
        {"method": ...},
        {"lower": ...},
    ],
    ids=str,
)
@pytest.mark.parametrize("sealed", [True, False])
def test_bounds_that_were_written_over_are_not_believed(capsys, monkeypatch, sizes, change, sealed):
    """Neither where the hash of the file says so, nor where it was made anew and prices prove something else."""
    two(*sizes)
    command = ["a.npy", "b.npy", "--name", "r", "--seconds", "0", "--tolerance", "0"]
    said(capsys, *command)
    path = Path("runs/r", PRICES)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("prices", "pairs")}
        metadata = file.metadata()
    content = {name: value for name, value in (json.loads(metadata["said"]) | change).items() if value is not ...}
    metadata["said"] = json.dumps(content)
    if sealed:
        metadata["sha256"] = prices._seal(metadata["said"], tensors)
    path.write_bytes(save(tensors, metadata))
    if sealed and sizes[0] != sizes[1] and "upper" in change and change["lower"] == 0:
        return  # of two sizes the masses of the pairs are not kept: the hash alone tells
    assert f"{path} is damaged: delete runs/r" in said(capsys, *command, "--resume", code=2)


SLOW = """
import sys
from tightlip.transport import search
from tightlip import wasserstein1
from tightlip.cli import distance, main
search.PATIENCE = search.SPARSE = distance.EVERY = 0.0
sys.argv = ["tightlip", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)], ids=["kill -9", "terminated"])
def test_a_killed_search_goes_on_from_what_it_has_kept(capsys, how, code):
    two(1500, 1500, 8)
    command = ["a.npy", "b.npy", "--name", "r", "--tolerance", "1e-9", "--threads", "1"]
    with Started("-c", SLOW, "distance", *command) as process:
        while not Path("runs/r", PRICES).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
        done = process.end()
    assert done.returncode == code
    assert Path("runs/r/distance.json").exists() == (how == signal.SIGTERM)
    if how == signal.SIGTERM:
        assert "terminated; continue with: tightlip distance" in done.stderr
    said(capsys, *command[:4], "--resume", "--tolerance", "0.05")
    row = DistanceRow.read(Path("runs/r/distance.json"))
    assert row.gap <= 0.05 and row.history["seconds"] == sorted(row.history["seconds"])


def test_a_search_about_distributions_begins_again_and_the_last_part_is_looked_at_once(capsys):
    """Nothing is kept of one that was killed; one that has its interval is not asked for another."""
    two(60, 60)
    command = ["a.npy", "b.npy", "--about", "distributions", "--seconds", "0"]
    os.makedirs("runs/killed")
    said(capsys, *command, "--name", "killed", "--resume"), said(capsys, *command, "--name", "whole")
    killed, whole = (DistanceRow.read(Path("runs", name, "distance.json")) for name in ("killed", "whole"))
    assert (killed.lower, killed.estimate, killed.p_value) == (whole.lower, whole.estimate, whole.p_value)
    assert "is complete already" in said(capsys, *command[:4], "--name", "whole", "--resume", "--seconds", "9")


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["absent.npy", "b.npy"], "there is no absent.npy"),
        (["a.npy", "mnist5k:12"], "mnist5k has no class '12'"),
        (["a.npy", "mnist5k:3"], "points are of 4 numbers in a.npy and of 1×28×28 in mnist5k:3"),
        (["a.npy", "wide.npy"], "points are of 4 numbers in a.npy and of 5 numbers in wide.npy"),
        (["a.npy", "nan.npy"], "1 of 10 rows of nan.npy hold NaN or infinity, the first of them row 6"),
        (["a.npy", "empty.npy"], "empty.npy is empty"),
        (["a.npy", "words.csv"], "words.csv holds something else than numbers in the column who"),
        (["mnist:3", "mnist:8"], "mnist is not complete on this machine"),
        (["a.npy", "b.npy", "--level", "0.9"], "--level says nothing about samples: leave it out, or give --about dis"),
        (["a.npy", "b.npy", "--diameter", "9"], "--diameter says nothing about samples"),
        (["a.npy", "b.npy", "--about", "distributions", "--tolerance", "1"], "--tolerance says nothing about distrib"),
        (["a.npy", "b.npy", "--about", "distributions", "--scale", "standard"], "--scale says nothing about distrib"),
        (["a.npy", "b.npy", "--about", "distributions", "--diameter", "1e-3"], "diameter"),
        (["a.npy", "b.npy", "--about", "distributions", "--level", "1"], "level must be a number between 0 and 1"),
        (["a.npy", "b.npy", "--tolerance", "-1"], "tolerance must be a finite number ≥ 0"),
        (["a.npy", "b.npy", "--seconds", "-1"], "--seconds must be a finite number ≥ 0"),
        (["a.npy", "b.npy", "--limit", "0"], "--limit must be an integer ≥ 1"),
        (["a.npy", "b.npy", "--seed", "-1"], "--seed must be an integer from 0"),
        (["a.npy", "b.npy", "--part", "test"], "--part test is of data sets with two parts"),
        (["mnist5k:3", "mnist5k:8", "--part", "test"], "mnist5k has no test part of its own"),
        (["a.npy", "b.npy", "--data-root", "."], "--data-root is where published files are"),
        (["a.npy", "b.npy", "--norm", "3"], "--norm 3 is not possible: choose one of 1, 2, inf"),
        (["a.npy", "b.npy", "--about", "sample"], "--about sample is not possible (did you mean samples?)"),
        (["a.npy", "b.npy", "--device", "cuda"], "--device cuda"),
        (["a.npy", "b.npy", "--resume"], "--resume needs the --name of the search"),
        (["a.npy", "b.npy", "--resume", "--name", "r"], "there is no run runs/r to resume"),
        (["a.npy", "b.npy", "--name", "here/r"], "give --runs here --name r"),
        (["a.npy", "b.npy", "--output", "absent/o.json"], "absent/o.json cannot be written to"),
        (["a.npy"], "tightlip distance needs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(capsys, command, sentence):
    two(10, 10)
    nan = cloud(10, 4)
    nan[6, 2] = np.nan
    np.save("nan.npy", nan), np.save("wide.npy", cloud(10, 5)), np.save("empty.npy", cloud(0, 4))
    Path("words.csv").write_text("a,who\n1,x\n")
    assert main(["distance", *command]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tightlip: ") and err.count("\n") == 1 and sentence in err, err
    assert not Path("runs").exists() or os.listdir("runs") == []


@pytest.mark.parametrize("output", ["a.npy", "./b.npy", "link.npy", "hard.npy", "images/0.png", "both.npz"])
def test_what_is_read_is_not_written_over(capsys, workplace, output):
    two(10, 10)
    os.symlink("a.npy", "link.npy"), os.link("b.npy", "hard.npy")
    (workplace / "images").mkdir()
    Image.new("L", (4, 4), 20).save("images/0.png")
    np.savez("both.npz", x=cloud(10, 4))
    before = Path(output).read_bytes()
    samples = {"images/0.png": ("images", "images"), "both.npz": ("both.npz:x", "a.npy")}.get(
        output, ("a.npy", "b.npy")
    )
    assert "is read or written by this command already" in said(capsys, *samples, "--output", output, code=2)
    assert Path(output).read_bytes() == before and not Path("runs").exists()


@pytest.mark.parametrize("unit", [1e300, 1e-300, 5e-324])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_samples_in_extreme_units_are_drawn_and_others_refused_before_the_search(capsys, d, unit):
    rng = np.random.default_rng(0)
    np.save("a.npy", rng.integers(-3, 4, (9, d)) / 4 * unit), np.save("b.npy", rng.integers(-3, 4, (7, d)) / 4 * unit)
    written(capsys, "a.npy", "b.npy")
    np.save("c.npy", np.full((4, d), 1.7e308))
    assert "c.npy holds numbers beyond 1e+300: give it in another unit" in said(capsys, "a.npy", "c.npy", code=2)


def test_a_history_without_one_of_its_columns_is_named(capsys):
    two(10, 10)
    said(capsys, "a.npy", "b.npy", "--name", "r")
    path = Path("runs/r/distance.json")
    whole = json.loads(path.read_text())
    for name in ("seconds", "lower", "upper"):
        for column in ({}, {name: []}, {name: [1.0] * 999}):
            content = {key: value for key, value in whole["history"].items() if key != name} | column
            path.write_text(json.dumps(whole | {"history": content}))
            assert main(["report", "runs/r"]) == 2
            assert "history" in capsys.readouterr().err


def test_an_existing_folder_needs_resume(capsys):
    two(10, 10)
    said(capsys, "a.npy", "b.npy", "--name", "r")
    before = Path("runs/r/distance.json").read_text()
    assert "runs/r exists: add --resume to continue it" in said(capsys, "a.npy", "b.npy", "--name", "r", code=2)
    assert Path("runs/r/distance.json").read_text() == before


@pytest.mark.parametrize("field", ["lower", "upper", "first", "history", "norm"])
def test_a_file_that_lacks_a_number_is_named(capsys, field):
    two(10, 10)
    said(capsys, "a.npy", "b.npy", "--name", "r")
    path = Path("runs/r/distance.json")
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    assert main(["report", "runs/r"]) == 2
    assert f"the field '{field}' is missing" in capsys.readouterr().err
