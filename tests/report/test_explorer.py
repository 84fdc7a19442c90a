"""The explorer: what it is given never says more than is proven, and what it shows is what Python counts."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import BROWSER, REASON
from looking import axe

from tightlip.report import render
from tightlip.report.explorer import choosers, counted, proven
from tightlip.report.runs import read_run
from tightlip.report.statistics import interval
from tightlip.report.wording import between, percent

browsing = pytest.mark.skipif(BROWSER is None, reason=REASON)
NAMED = 0.1411764705882353
BRINK = [0.3, math.nextafter(0.3, 1), math.nextafter(0.3, 0), NAMED, math.nextafter(NAMED, 1), 0.1411, 0.1412, 1e-7]
SET = """eps => {
  const box = document.querySelector(".explorer [type=number]");
  box.value = eps;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}"""
TOLD = """[...document.querySelectorAll(".explorer tbody tr")].map(row => (
  ["share", "interval", "certified", "open", "wrong"]
    .map(part => row.querySelector(`[data-shows=${part}]`).innerText)))"""
BOX = "document.querySelector('[type=number]').value"
FOCUS = "document.activeElement.getAttribute('aria-label')"


def explored(synthetic, folder, seed=0):
    """A run with radii at the brink of some ε, ties, and inputs without a finite radius."""
    whole = synthetic.certificate(seed)
    radius = [*BRINK, 0.0, 0.0, None, None, *whole["radius"][12:]]
    label = [0] * 12 + whole["label"][12:]
    prediction = [0] * 12 + whole["prediction"][12:]
    row = [("name", f"seed {seed}"), ("test.certified", {"0.3": 0.8765, str(NAMED): 0.9})]
    return synthetic.write_run(
        folder, row, [("radius", radius), ("label", label), ("prediction", prediction)], seed=seed
    )


@pytest.fixture(scope="module")
def folders(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    return [explored(synthetic, folder / f"run{seed}", seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def files(folders, tmp_path_factory):
    """The page of one run, and that of two."""
    made = {}
    for name, some in {"one": folders[:1], "two": folders}.items():
        made[name] = tmp_path_factory.mktemp("pages") / f"{name}.html"
        made[name].write_text(render(some), encoding="utf-8")
    return made


def test_what_stands_for_a_radius_tells_each_eps_of_four_digits_and_never_too_much():
    rng = np.random.default_rng(0)
    radii = [*BRINK, *rng.gamma(2, 0.3, 300), *(10.0 ** rng.uniform(-12, 6, 300)), 1.0, 5e-324, 1e308]
    for radius in map(float, radii):
        known = proven(radius, [NAMED])
        assert 0 <= known < radius
        near = [float(f"{radius * (1 + step * 1e-4):.3e}") for step in range(-20, 21)]
        assert all((eps < radius) == (eps <= known) for eps in [*near, 0.0, NAMED] if eps < 1e308)


def test_what_is_given_is_what_python_counts(folders):
    run = read_run(folders[0])
    given = json.loads(counted(run))
    assert given["proven"] == sorted(given["proven"])
    for eps in (0.0, 0.3, 0.2999, 0.3001, NAMED, 0.1411, 1.234):
        assert sum(known >= eps for known in given["proven"]) + given["unbounded"] == run.certified(eps).sum()
    assert (given["right"], given["inputs"]) == (run.correct.sum(), len(run.proof.radius))


def test_ten_thousand_radii_take_less_than_a_hundred_thousand_characters(synthetic, tmp_path):
    radius = np.random.default_rng(0).gamma(4, 0.02, 10_000)
    parts = [("radius", radius.tolist()), ("margin", radius.tolist())]
    labels = [("label", [0] * 10_000), ("prediction", [0] * 10_000)]
    run = read_run(synthetic.write_run(tmp_path / "many", (), [*parts, *labels]))
    assert len(counted(run)) < 100_000


def test_each_norm_and_scale_has_a_slider_of_its_own_and_runs_without_inputs_have_none(synthetic, tmp_path):
    empty = [(name, []) for name in ("radius", "margin", "label", "prediction")]
    runs = [
        read_run(synthetic.write_run(tmp_path / name, (), changes))
        for name, changes in {"a": (), "b": [("input_norm", "inf")], "c": (), "d": empty}.items()
    ]
    assert [(chooser.scale, chooser.places, chooser.start) for chooser in choosers(runs)] == [
        (("2", False), (0, 2), "0.3"), (("inf", False), (1,), "0.3"),
    ]  # fmt: skip
    assert all(float(chooser.top) >= runs[0].proof.radius.max() for chooser in choosers(runs))
    assert choosers(runs[3:]) == []
    standard = replace(runs[0], proof=replace(runs[0].proof, standardized=True))
    assert [(one.scale, one.places) for one in choosers([runs[0], standard])] == [
        (("2", False), (0,)),
        (("2", True), (1,)),
    ]


def test_without_a_script_nothing_of_it_is_seen(files):
    page = files["two"].read_text("utf-8")
    assert re.findall(r'<section class="explorer"[^>]* hidden>', page) and page.count('class="explorer"') == 1
    assert page.count('class="verdict" hidden') == page.count('class="closer" hidden') == 6
    assert "<dialog " in page and not re.search(r"<dialog[^>]* open", page) and 'class="look"' not in page


def test_the_policy_allows_the_script_that_is_there_and_no_other(files):
    page = files["one"].read_text("utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"img-src data:; script-src 'sha256-{digest}'\"" in page
    assert page.count("<script") == 1 and "</" not in script and "https:" not in script


@browsing
def test_the_numbers_at_an_eps_are_those_that_python_counts(tab, files, folders):
    tab.open(files["two"])
    runs = [read_run(folder) for folder in folders]
    for eps in ["0", "0.3", "0.2999", "0.3001", "0.1411", str(NAMED), "0.6", "1.5", "3", "1e3"]:
        tab.tell(f"({SET})('{eps}')")
        for run, (share, ends, *counts) in zip(runs, tab.tell(TOLD), strict=True):
            certified = run.certified(float(eps))
            right, all_inputs = run.correct.sum(), len(certified)
            assert [int(count) for count in counts] == [
                certified.sum(),
                (run.correct & ~certified).sum(),
                all_inputs - right,
            ]
            assert share == percent(certified.mean())
            assert ends == between(interval(certified.mean(), all_inputs))
        assert tab.tell("document.querySelector('.explorer output').value").startswith(f"ε = {eps}: seed 0 ")


@browsing
def test_an_eps_of_many_digits_certifies_no_input_too_many_and_one_that_is_none_changes_nothing(tab, files, folders):
    tab.open(files["one"])
    run = read_run(folders[0])
    for eps in [*BRINK, 0.30000001, 0.29999999, 0.123456789]:
        tab.tell(f"({SET})('{eps!r}')")
        assert 0 <= run.certified(eps).sum() - int(tab.tell(TOLD)[0][2]) <= 4
    before = tab.tell(TOLD)
    for text in ("-1", ""):
        tab.tell(f"({SET})('{text}')")
        assert tab.tell(TOLD) == before
    tab.tell("document.querySelector('[type=number]').dispatchEvent(new Event('change'))")
    assert tab.tell(BOX) == "0.123456789"


@browsing
def test_charts_and_examples_follow(tab, files):
    tab.open(files["one"])
    dashed, chosen = tab.tell("""["path[style*='stroke-dasharray: 3.6']", ".chosen"].map(part =>
      document.querySelector(`.plot[data-axis] ${part}`).getBoundingClientRect().x)""")
    assert chosen == pytest.approx(dashed, abs=1)
    verdicts = "[...document.querySelectorAll('.verdict')].map(part => part.textContent)"
    for eps, said in {"0.2": "nyy", "0.25": "nny", "1.874": "nny", "1.875": "nnn"}.items():
        tab.tell(f"({SET})('{eps}')")
        words = {"y": f"certified at ε = {eps}", "n": f"not certified at ε = {eps}"}
        assert tab.tell(verdicts) == [words[letter] for letter in said]
    tab.tell(f"({SET})('1000')")
    assert tab.tell("getComputedStyle(document.querySelector('.chosen')).display") == "none"


@browsing
def test_all_of_it_is_reached_by_keys_on_a_phone(tab, files):
    tab.open(files["one"])
    tab.tell("document.querySelector('[type=range]').focus()")
    assert tab.tell(BOX) == "0.3"
    tab.press("ArrowRight", 3)
    assert tab.tell(BOX) == "0.33"
    assert tab.tell("document.activeElement.getAttribute('aria-valuetext')") == "0.33"
    tab.tell("document.querySelectorAll('.look')[0].focus()")
    tab.press("Tab")
    assert tab.tell(FOCUS) == "Look closer at Test image 11"
    shown = """["h2", ".verdict", "dd"].flatMap(part => [...document.querySelectorAll(`dialog[open] ${part}`)])
      .map(part => part.innerText)"""
    tab.press("Enter")
    assert tab.tell(shown)[:5] == ["Test image 11, 2 of 3", "not certified at ε = 0.33", "a 3", "a 3", "0.25, 2-norm"]
    assert len(tab.tell(shown)) == 6 and tab.tell("document.documentElement.scrollWidth") <= 400
    assert tab.tell("""[...document.querySelectorAll("dialog, dialog *")].every(part => {
      const box = part.getBoundingClientRect();
      return box.left >= 0 && box.right <= 400 && box.bottom <= 800;
    })""")
    tab.press("ArrowRight")
    assert tab.tell(shown)[0] == "Test image 12, 3 of 3"
    tab.press("ArrowRight")
    assert tab.tell(shown)[:4] == ["Test image 13, 1 of 3", "not certified at ε = 0.33", "a 3", "a 5, wrong"]
    tab.press("ArrowLeft")
    tab.press("Escape")
    tab.tell("new Promise(done => setTimeout(() => done(0), 200))")  # the dialog says that it is closed a moment later
    assert tab.tell(shown) == [] and tab.tell(FOCUS) == "Look closer at Test image 12"  # the last that was seen
    tab.press(" ")
    assert tab.tell(shown)[0] == "Test image 12, 3 of 3"


@browsing
@pytest.mark.skipif(not axe(), reason="axe-core is not here: pip install --no-deps axe-playwright-python")
def test_axe_finds_nothing_to_mend_in_an_open_example(tab, files):
    tab.open(files["one"])
    tab.tell("document.querySelector('.look').click()")
    tab.tell(f"{axe()};0")
    found = tab.tell("""axe.run("dialog", { resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa"] })
      .then(({ violations }) => violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`))""")
    assert found == []
