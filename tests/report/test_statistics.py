"""Intervals, classes and pairs on the page: counted again from the JSON, and only where runs share their inputs."""

import html
import re

import numpy as np
import pytest

from tightlip.report import render
from tightlip.report.runs import read_run
from tightlip.report.statistics import class_table, interval, pairs_of, same_test_inputs
from tightlip.report.wording import between, p_value, points, points_between
from tightlip.robustness import ClassAccuracy, Paired, wilson


def bare(markup):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", markup)).replace("\N{NO-BREAK SPACE}", " ").split())


def run(synthetic, folder, metrics=(), certificate=(), seed=0):
    return read_run(synthetic.write_run(folder, metrics, certificate, seed))


def worse(synthetic, less=0.2):
    """Radii lower than those of the first run, on the same inputs."""
    return [("radius", [max(radius - less, 0.0) for radius in synthetic.certificate()["radius"]])]


def test_each_accuracy_has_its_interval(page):
    """0.8765, 0.9123 and 0.9312 of 200 test images are nearest to 175, 182 and 186 of them."""
    cards = re.findall(r'<dd class="interval">(.*?)</dd>', page)
    known = [between(wilson(count, 200)) for count in (175, 182, 186)]
    assert cards == [*known, "", ""]
    assert known[0].replace("\N{NO-BREAK SPACE}", " ") == "82.19 – 91.39 %"
    assert "stands Wilson’s 95 % interval: what so many test images tell" in bare(page)


def test_the_attacked_accuracy_has_the_interval_of_the_images_that_the_attack_saw(synthetic, tmp_path):
    page = render([synthetic.write_run(tmp_path / "part", [], [("attack.images", 50)])])
    certified = sum(radius > 0.3 for radius in synthetic.certificate()["radius"][:50])
    assert between(wilson(46, 50)) in page  # 0.9123
    assert bare(f"certified of those: {2 * certified}.0 % ( {between(wilson(certified, 50))} )") in bare(page)


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.1])
def test_what_is_no_share_has_no_interval(share):
    assert between(interval(share, 10)) == "" and between(interval(0.5, 0)) == ""
    assert interval(0.35, 20) == wilson(7, 20)


def test_classes_are_counted_from_radii_and_labels(page, synthetic):
    written = synthetic.certificate()
    radius, label = np.array(written["radius"]), np.array(written["label"])
    body = page[page.index('<table class="classes">') :]
    rows = re.findall(r"<tr>(.*?)</tr>", body[: body.index("</table>")], re.DOTALL)[1:]
    assert len(rows) == 10
    worst = [min((radius[label == c] > eps).mean() for c in range(10)) for eps in (0, 0.3)]
    marks = 0
    for c, row in enumerate(rows):
        cells = [bare(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        support = int((label == c).sum())
        assert cells[:2] == [str(c), str(support)]
        for place, eps in ((2, 0), (4, 0.3)):
            count = int((radius[label == c] > eps).sum())
            assert float(cells[place].split()[-2]) == pytest.approx(100 * count / support, abs=0.01)
            assert cells[place + 1] == bare(between(wilson(count, support)))
            if cells[place].startswith("worst"):
                marks += 1
                assert count / support == worst[place == 4]
    assert marks == 2


def test_classes_have_names_and_without_an_eps_one_accuracy(synthetic, tmp_path):
    names = ["ant", *"bcdefghi", "<yak>"]
    page = render([synthetic.write_run(tmp_path / "r", [("data.class_names", names), ("test.certified", {})])])
    body = page[page.index('<table class="classes">') :]
    body = body[: body.index("</table>")]
    assert "Certified" not in body and "nan" not in body.lower() and body.count("worst") == 1
    assert ">ant<" in body and ">&lt;yak&gt;<" in body


def test_of_many_classes_the_lowest_are_shown(synthetic, tmp_path):
    label = list(range(100)) * 2
    found = class_table(run(synthetic, tmp_path / "r", [], [("label", label)]))
    assert (found.classes, len(found.rows)) == (100, 20)
    shown = [row.certified.accuracy for row in found.rows]
    radius = np.array(synthetic.certificate()["radius"])
    known = sorted((radius[[c, c + 100]] > 0.3).mean() for c in range(100))
    assert shown == known[:20] and found.rows[0].certified.label == found.worst_certified
    page = render([tmp_path / "r"])
    assert "the 20 lowest of 100 classes" in bare(page)


def test_without_test_inputs_there_are_no_classes(synthetic, tmp_path):
    nothing = [("radius", []), ("margin", []), ("label", []), ("prediction", [])]
    assert class_table(run(synthetic, tmp_path / "r", [], nothing)) is None
    page = render([tmp_path / "r"])
    assert "Classes" not in bare(page[page.index("<body>") :]).replace("classes", "")


def test_two_runs_on_the_same_inputs_are_compared_one_by_one(synthetic, tmp_path):
    first = run(synthetic, tmp_path / "a")
    second = run(synthetic, tmp_path / "b", [("name", "the other")], worse(synthetic))
    (pair,) = pairs_of([first, second])
    clean, certified = pair.tests
    one, other = np.array(first.proof.radius), np.array(second.proof.radius)
    for test, eps in ((clean, 0), (certified, 0.3)):
        only = int(((one > eps) & ~(other > eps)).sum())
        both = int((other > eps).sum())
        assert only > 2 and test.result == Paired(both, only, 0, 200 - both - only)
    assert (clean.eps, certified.eps) == (None, "0.3")
    raw = [test.result.p_value for test in pair.tests]
    assert certified.adjusted == 2 * min(raw) and clean.adjusted == max(2 * min(raw), max(raw))
    page = render([tmp_path / "a", tmp_path / "b"])
    text = bare(page[page.index('id="pairs"') :])
    assert "Holm’s p allows for all 2 tests" in text
    for test, words in ((clean, "clean"), (certified, "certified at 0.3, 2-norm")):
        result = test.result
        row = [words, str(result.first_only), "0", points(result.difference), points_between(result.interval())]
        assert bare(" ".join([*row, p_value(result.p_value), p_value(test.adjusted)])) in text


def test_in_other_norms_or_at_other_eps_only_clean_accuracies_are_compared(synthetic, tmp_path):
    first = run(synthetic, tmp_path / "a")
    norm = run(synthetic, tmp_path / "b", [], [("input_norm", "inf")])
    eps = run(synthetic, tmp_path / "c", [("test.certified", {"0.1": 0.5}), ("test.attacked", {"0.1": 0.5})])
    none = run(synthetic, tmp_path / "d", [("test.certified", {})])
    spelled = run(synthetic, tmp_path / "e", [("test.certified", {"3e-1": 0.5})])
    for other, wanted in ((norm, [None]), (eps, [None]), (none, [None]), (spelled, [None, "0.3"])):
        assert [test.eps for test in pairs_of([first, other])[0].tests] == wanted
    page = render([tmp_path / "a", tmp_path / "b"])
    assert "Holm" not in page and "certified at 0.3" not in bare(page[page.index('id="pairs"') :])


@pytest.mark.parametrize(
    ("metrics", "certificate"),
    [
        ([("data.sha256", "cd" * 32)], []),
        ([("data.split.train", 3599)], []),
        ([], [("label.0", 7), ("label.1", 7)]),
        ([], [("radius", [1.0]), ("margin", [1.0]), ("label", [1]), ("prediction", [1])]),
    ],
)
def test_other_test_inputs_are_not_compared(synthetic, tmp_path, metrics, certificate):
    first, second = run(synthetic, tmp_path / "a"), run(synthetic, tmp_path / "b", metrics, certificate)
    assert same_test_inputs(first, first) and not same_test_inputs(first, second) and pairs_of([first, second]) == []
    text = bare(render([tmp_path / "a", tmp_path / "b"]))
    assert "No two of these runs are known to have been tested on the same inputs" in text
    assert "Pairs of models" not in text


def test_of_other_seeds_the_order_of_the_labels_tells_whether_the_test_part_is_the_same(synthetic, tmp_path):
    """Data that bring a test part have it in their own order; parts that were drawn have not, unless it is trivial."""
    first = run(synthetic, tmp_path / "a")
    assert same_test_inputs(first, run(synthetic, tmp_path / "b", [("seed", 1)]))
    one_class = [("label", [3] * 200)]
    assert not same_test_inputs(
        run(synthetic, tmp_path / "c", [], one_class), run(synthetic, tmp_path / "d", [("seed", 1)], one_class)
    )
    few = [(name, [1.0, 0.0, 1.0]) for name in ("radius", "margin")] + [
        (name, [0, 1, 2]) for name in ("label", "prediction")
    ]
    runs = [run(synthetic, tmp_path / f"few{seed}", [("seed", seed)], few) for seed in (0, 0, 1)]
    assert same_test_inputs(runs[0], runs[1]) and not same_test_inputs(runs[0], runs[2])


def test_three_runs_make_three_pairs_and_one_that_stands_apart_makes_none(synthetic, tmp_path):
    runs = [run(synthetic, tmp_path / str(place), [], worse(synthetic, place / 10)) for place in range(3)]
    apart = run(synthetic, tmp_path / "apart", [("data.sha256", "cd" * 32)])
    found = pairs_of([runs[0], apart, *runs[1:]])
    assert [(pair.first, pair.second) for pair in found] == [(0, 2), (0, 3), (2, 3)]
    page = render([tmp_path / "0", tmp_path / "apart", tmp_path / "1", tmp_path / "2"])
    assert "Holm’s p allows for all 6 tests" in bare(page)


def test_the_figure_has_a_bar_for_each_attacked_accuracy(page, synthetic):
    """Their ends are the affine image of (eps, Wilson's ends), as the markers are of (eps, accuracy)."""
    figure = page[page.index('id="run-1-robustness-figure_1"') : page.index('id="run-1-radii-figure_1"')]
    line = r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" [^>]*stroke: var\(--attacked\); stroke-wid'
    bars = re.findall(line, figure)
    bars = np.array(bars, dtype=float)
    accuracy = synthetic.certificate()["attack"]["accuracy"]
    known = np.array([interval(share, 200) for share in accuracy])
    assert bars.shape == (5, 4) and np.array_equal(bars[:, 0], bars[:, 2])
    drawn = np.concatenate([bars[:, 1], bars[:, 3]])
    shares = np.concatenate([known[:, 0], known[:, 1]])
    slope, start = np.polyfit(shares, drawn, 1)
    assert slope < 0 and np.allclose(slope * shares + start, drawn, atol=1e-2)


def test_words():
    assert bare(between((0.80412, 0.81942))) == "80.41 – 81.95 %" and bare(between((0.0, 1.0))) == "0.00 – 100.00 %"
    assert [points(x) for x in (0.0013, -0.012, 0.0, -1e-9)] == ["+0.13", "−1.20", "0.00", "0.00"]
    assert bare(points_between((-0.00311, 0.01141))) == "−0.32 to +1.15"
    assert bare(points_between((0.0, 1.0))) == "0.00 to +100.00" and bare(points_between((-1e-9, 0))) == "−0.01 to 0.00"
    assert [bare(p_value(p)) for p in (1.0, 0.0491, 0.21, 1e-4, 0.99e-4, 0.0)] == [
        "1", "0.05", "0.21", "0.0001", "< 0.0001", "< 0.0001",
    ]  # fmt: skip
    assert ClassAccuracy(0, 1, 2).accuracy == 0.5
