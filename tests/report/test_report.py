"""The page from synthetic JSON: what is shown, that it equals the JSON, and what is escaped."""

import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from tightlip import TightlipError
from tightlip.report import figures, render
from tightlip.report.drawing import Plot
from tightlip.report.runs import read_run

VOID = {"input", "meta", "link", "img", "br"}


class Page(HTMLParser):
    """Parses a page; collects tags, ids, headings and cards, and fails on elements that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.headings, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        self.text += " " if tag in ("td", "th", "dd", "dt", "li") else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings.append(" ".join(data.split()))
        if not {"style", "script"} & {*self.open}:
            self.text += data

    def count(self, name):
        return sum(tag == name for tag, _ in self.tags)


def words(page):
    return " ".join(Page(page).text.replace("\N{NO-BREAK SPACE}", " ").split())


def bare(markup):
    return " ".join(re.sub("<[^>]*>", "", markup).split())


def cards(page):
    found = re.findall(r"<dt>(.*?)</dt>.*?<dd class=\"value(?: long)?\">(.*?)</dd>", page, re.DOTALL)
    return {bare(key): bare(value) for key, value in found}


def test_every_section_is_there(page):
    parsed = Page(page)
    sections = ["Robustness", "Classes", "Examples", "Training", "The audit, layer by layer", "Provenance"]
    assert [heading for heading in parsed.headings if heading in sections] == sections
    assert parsed.headings[0] == "synthetic"
    assert parsed.count("svg") == 4
    assert parsed.count("h1") == 1
    assert parsed.count("img") == 2 * 3


def test_headline_numbers_are_those_of_the_json(page):
    assert cards(page) == {
        "Certified accuracy at ε = 0.3, 2-norm": "87.65 %",
        "Attacked accuracy at ε = 0.3": "91.23 %",
        "Clean accuracy": "93.12 %",
        "Audited constant": "0.987654",
        "Training time": "3 min 07 s",
    }


def test_the_other_numbers_are_those_of_the_json(page):
    text = words(page)
    for expected in (
        "For 87.65 % of the test images it is proven that no change of the input of 2-norm at most 0.3 can change",
        "outputs move by at most 0.987654 times",
        "Arithmetic: float64 & rounded up.",
        "A margin moves by at most 1.396754 per unit",
        "3.58 % open", "1.89 % broken", "6.88 % wrong",
        "37 steps × 3 restarts, 200 images",
        "7.0 % of all test images (14) have radius zero",
        "Linear(36, 10) 2 → 2 0.98765432",
        "marks epoch 6",
        "seed 4711", "cafe" * 10, "ab" * 32, "uncommitted changes", "widths 36, 10", "compile no", "limit none",
        "torch 2.13.0", "machine a machine", "freeze 0.21 s", "train 3600, validation 400, test 200",
    ):  # fmt: skip
        assert expected in text, expected


def test_examples_run_from_wrong_to_most_robust(page):
    text = words(page)
    tiles = re.findall(r"(wrong|least robust|most robust)?\s?r = ([\d.]+) a (\d)(?:, taken for a (\d))?", text)
    assert tiles == [("wrong", "0", "3", "5"), ("least robust", "0.25", "3", ""), ("most robust", "1.87", "3", "")]


def test_the_curves_are_drawn_where_the_numbers_say(page, synthetic):
    """The certified curve's vertices are an affine image of (eps, certified_accuracy)."""
    figure = page[page.index('id="run-1-robustness-figure_1"') :]
    path = re.search(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--proven\)', figure).group(1)
    points = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), dtype=float)
    eps = np.array([0.0, 0.15, 0.3, 0.6, 1.2])
    assert np.allclose(np.interp(points[:, 0], points[[0, -1], 0], eps[[0, -1]]), eps, atol=1e-4)
    accuracy = np.array(synthetic.certificate()["certified_accuracy"])
    fit = np.polyfit(accuracy, points[:, 1], 1)
    assert fit[0] < 0
    assert np.allclose(np.polyval(fit, accuracy), points[:, 1], atol=1e-3)


def test_nothing_comes_from_the_network(pair):
    markup = re.sub(r"data:image/png;base64,[\w+/=]*", "data:", pair)
    markup, scripts = re.subn(r"<script>.*?</script>", "", markup, flags=re.DOTALL)
    assert scripts == 1 and re.search(r"https?:|//[a-z]|@import|<script|<iframe|\son\w+=", markup) is None
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-" in pair
    for tag, attributes in Page(pair).tags:
        for key in ("src", "href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", pair))


def test_ids_are_unique_and_references_resolve(pair):
    page = Page(pair)
    assert len(page.ids) == len(set(page.ids))
    targets = set(re.findall(r"(?:href=\"|url\()#([^\")]*)|aria-labelledby=\"([^\"]*)\"", pair))
    targets = {one or other for one, other in targets}
    assert targets
    assert targets <= set(page.ids)


def test_figures_and_images_are_described(pair):
    tags = Page(pair).tags
    plots = [attributes for tag, attributes in tags if attributes.get("role") == "img"]
    assert len(plots) == 2 * 4 + 2
    assert all(attributes["aria-label"] for attributes in plots)
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in tags if tag == "th")


def test_the_same_json_gives_the_same_bytes(folder, synthetic, tmp_path):
    first = render([folder])
    with matplotlib.rc_context({"lines.marker": "x", "font.size": 30, "svg.hashsalt": None, "text.usetex": True}):
        assert render([folder]) == first
    assert render([synthetic.write_run(tmp_path / "elsewhere")]) == first
    assert render([synthetic.write_run(tmp_path / "other", seed=1)]) != first


ATTACK = "<script>alert(1)</script>\"'&{{ 7 * 7 }}$\\frac$"


def test_what_a_run_says_is_escaped(synthetic, tmp_path):
    in_metrics = ["name", "command", "config.activation", "data.name", "data.source", "data.sha256", "commit",
                  "versions.torch", "device", "machine"]  # fmt: skip
    in_certificate = ["bound.arithmetic", "bound.layers.0.name", "bound.layers.0.module"]
    hostile = synthetic.write_run(
        tmp_path / "hostile",
        [(path, f"{path}{ATTACK}") for path in in_metrics],
        [(path, f"{path}{ATTACK}") for path in in_certificate],
    )
    page = render([hostile, hostile])
    text = Page(page).text
    assert page.count("<script") == 1
    assert [path for path in in_metrics + in_certificate if f"{path}{ATTACK}" not in text] == []


def test_a_hostile_key_is_escaped(synthetic, tmp_path):
    page = render([synthetic.write_run(tmp_path / "hostile", [("config", {ATTACK: 1}), ("seconds", {ATTACK: 1})])])
    assert page.count("<script") == 1
    assert Page(page).text.count(ATTACK) == 2


def test_null_numbers_are_dashes_and_null_radii_unbounded(synthetic, tmp_path):
    document = synthetic.certificate()
    radius = [None, None, *document["radius"][2:]]
    prediction = [document["label"][0], document["label"][1], *document["prediction"][2:]]
    changed = synthetic.write_run(
        tmp_path / "nulls",
        [("test.accuracy", None), ("seconds.train", None), ("history.3.loss", None),
         ("history.6.validation_score", None)],
        [("radius", radius), ("prediction", prediction), ("bound.constant", None), ("sensitivity", None),
         ("examples.1.radius", None), ("examples.1.gradient.0.0", None), ("certified_accuracy.2", None),
         ("attack.accuracy.1", None), ("margin.0", None)],
    )  # fmt: skip
    page = render([changed])
    text = words(page)
    assert "2 have an unbounded radius" in text
    assert "6.0 % of all test images (12) have radius zero" in text
    assert "most robust r = ∞" in text
    found = cards(page)
    assert (found["Clean accuracy"], found["Audited constant"], found["Training time"]) == ("–", "–", "–")
    assert not re.search(r"(?i:\bnan\b|\binf\b)|None|null", text)


def test_every_number_of_the_curves_may_be_null(synthetic, tmp_path):
    keys = ("loss", "train_accuracy", "validation_accuracy", "validation_score", "learning_rate", "seconds")
    changes = [(f"history.{row}.{key}", None) for row in range(7) for key in keys]
    empty = [None] * 5
    changed = synthetic.write_run(
        tmp_path / "nulls",
        changes,
        [("eps", empty), ("certified_accuracy", empty), ("attack.eps", empty), ("attack.accuracy", empty),
         ("radius", [None] * 200)],
    )  # fmt: skip
    assert Page(render([changed, changed])).count("svg") == 10


def test_what_is_empty_is_said(synthetic, tmp_path):
    bare = synthetic.write_run(
        tmp_path / "bare",
        [("history", []), ("test.certified", {}), ("test.attacked", {}), ("config", {}), ("data.shape", [7]),
         ("commit", None), ("dirty", None)],
        [("examples", []), ("attack", None), ("radius", []), ("margin", []), ("label", []), ("prediction", []),
         ("eps", []), ("certified_accuracy", [])],
    )  # fmt: skip
    text = words(render([bare]))
    for sentence in (
        "This run has no training history", "no attack was run",
        "No input was certified", "No eps was asked for", "0 test rows", "commit none: version 0.1.0, installed",
        "working tree unknown",
    ):  # fmt: skip
        assert sentence in text, sentence
    assert "Examples" not in text  # these are of images, and inputs are rows


def write_table(synthetic, folder, features, warnings=(), standardized=True):
    """A run on a table."""
    changes = [("data.shape", [len(features)]), ("data.label", "kind"), ("warnings", list(warnings))]
    names = [("data.feature_names", [feature["name"] for feature in features])]
    proof = [("examples", []), ("features", features), ("standardized", standardized)]
    return synthetic.write_run(folder, changes + names, proof)


def test_a_table_is_told_by_its_features(synthetic, tmp_path):
    """Radii are rounded down; what no rounding of zero tells from ∞ is any distance; of many, the most fragile."""
    few = [
        {"name": "<ash>", "radius": 0.123456, "mean": -2.0, "std": 0.5},
        {"name": "hue", "radius": 1e271, "mean": 0, "std": 2},
    ]
    many = [{"name": f"f{n}", "radius": 1.0, "mean": 0.0, "std": 100.0 - n} for n in range(60)]
    raw = [{"name": "ash", "radius": 0.25}, {"name": "hue", "radius": None}]
    page = render(
        [
            write_table(synthetic, tmp_path / "few", few),
            write_table(synthetic, tmp_path / "many", many),
            write_table(synthetic, tmp_path / "raw", raw, ["scales differ <much>"], standardized=False),
        ]
    )
    text = words(page)
    assert "<ash> 0.1234 -2 0.5 0.2469 hue any distance 0 2 any distance" in text
    assert "Shown are the 40 of 60 features that may move least" in text and "f0 1 0 100" in text and "f50" not in text
    assert "Scales differ <much>." in text and "ash 0.25 hue any distance" in text
    assert "kind predicted from 2 features" in text and "of 2-norm at most 0.3" in text
    parsed = Page(page)
    assert {"compare-2-figure_1", "compare-2-standardized-figure_1"} <= set(parsed.ids)
    pairs = text[text.index("Pairs of models on the same test inputs") :]
    assert pairs.count("certified at 0.3, 2-norm") == 1 and pairs.count(" clean ") >= 3  # two scales do not compare


def test_one_epoch_and_a_color_image(synthetic, tmp_path):
    rng = np.random.default_rng(0)
    color = {"image": rng.random((3, 4, 5)).tolist(), "gradient": rng.normal(size=(3, 4, 5)).tolist()}
    example = {"index": 0, "label": 1, "prediction": 1, "radius": 0.5, **color}
    changed = synthetic.write_run(
        tmp_path / "color", [("history", synthetic.metrics()["history"][:1])], [("examples", [example])]
    )
    text = words(render([changed]))
    assert "summed over channels" in text
    assert "1 epoch of training" in text


def test_several_runs_stand_side_by_side(folder, synthetic, tmp_path):
    other = synthetic.write_run(
        tmp_path / "other",
        [("name", "the other"), ("test.certified", {"0.05": 0.5432}), ("test.attacked", {"0.05": 0.6})],
        [("input_norm", "inf"), ("bound.output_norm", "inf"), ("bound.constant", 1000.0)],
    )
    page = render([folder, other])
    rows = re.findall(r"<tr>(.*?)</tr>", page[page.index("<tbody>") : page.index("</tbody>")], re.DOTALL)
    cells = [[bare(cell.partition("<small>")[0]) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    assert cells[0][:7] == ["synthetic", "toy digits", "2-norm", "0.3", "87.65 %", "91.23 %", "93.12 %"]
    assert cells[1][:7] == ["the other", "toy digits", "∞-norm", "0.05", "54.32 %", "60.0 %", "93.12 %"]
    assert cells[1][8] == "1000"
    parsed = Page(page)
    assert parsed.count("svg") == 3 + 2 * 4  # one comparison a norm, one of the training
    assert parsed.headings.count("Robustness") == 2
    assert "compare-2-figure_1" in parsed.ids
    assert "compare-inf-figure_1" in parsed.ids


def test_more_runs_than_colors(folder):
    assert Page(render([folder] * 7)).headings[0] == "7 runs side by side"


def test_the_bar_is_absent_where_the_attack_saw_only_some(synthetic, tmp_path):
    part = synthetic.write_run(tmp_path / "part", [], [("attack.images", 50)])
    text = words(render([part]))
    assert "What becomes of" not in text
    assert "The attack saw 50 of 200 test images" in text
    share = sum(radius > 0.3 for radius in synthetic.certificate()["radius"][:50]) / 50
    assert f"37 steps × 3 restarts, 50 images; certified of those: {100 * share:.1f} %" in text


def test_classes_go_by_their_names_where_they_have_some(synthetic, tmp_path):
    names = ["ant", "bat", "cow", "dog", "eel", "<fox>", *"ghij"]
    named = render([synthetic.write_run(tmp_path / "named", [("data.class_names", names)])])
    assert "dog, taken for <fox>" in words(named) and "<fox>" not in named
    assert 'alt="Test image 11, labeled dog"' in named
    few = render([synthetic.write_run(tmp_path / "few", [("data.class_names", ["ant"]), ("name", "few")])])
    assert "a 3, taken for a 5" in words(few)


def test_one_share_is_one_number_on_the_page(synthetic, tmp_path):
    """47 of 48: 97.916…, which nothing rounds up."""
    share = 47 / 48
    every = {"test.accuracy": share, "test.certified": {"0.3": share}, "test.attacked": {"0.3": share}}
    n = len(synthetic.certificate()["radius"])
    text = words(render([synthetic.write_run(tmp_path / "r", [*every.items()], [("attack.images", n)])]))
    assert text.count("97.91 %") >= 4 and "97.92" not in text.replace("97.92 – ", "")


def test_an_upper_bound_lies_above_the_lower_one_between_its_points(synthetic, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "plot", lambda name, alt, draw: drawn.append(draw) or Plot(Markup(), alt))
    proof = [("attack.eps", [0.0, 1.0, 2.0]), ("attack.accuracy", [0.9, 0.8, 0.1])]
    proof += [("eps", [0.0, 1.0, 1.9, 2.0]), ("certified_accuracy", [0.9, 0.75, 0.7, 0.05])]
    figures.robustness(read_run(synthetic.write_run(tmp_path / "r", [], proof)), "r")
    axes = Figure().subplots()
    drawn[0](axes)
    upper = next(line for line in axes.lines if "attacked" in str(line.get_label()))
    assert upper.get_drawstyle() == "steps-post"  # at 1.9 it is 0.8 still, and the proven 0.7 lies below it
    shade = axes.collections[-1].get_paths()[0].vertices
    assert shade[np.isclose(shade[:, 0], 1.9)][:, 1].max() == 0.8


def test_the_worst_class_is_marked_where_one_is_worse_than_another(synthetic, tmp_path):
    radius = [1.0] * len(synthetic.certificate()["radius"])
    page = render([synthetic.write_run(tmp_path / "r", [], [("radius", radius)])])
    assert ">worst<" not in page


def test_names_have_no_article_and_numbers_the_one_that_they_need(synthetic, tmp_path):
    run = read_run(synthetic.write_run(tmp_path / "r", [("data.class_names", ["ants", "Owl", "bat"])]))
    assert [run.called(label) for label in (0, 1, 2, 3, 8)] == ["ants", "Owl", "bat", "a 3", "an 8"]


@pytest.mark.parametrize(("shape", "inputs"), [([13], "rows"), ([1, 6, 6], "images"), ([50, 3], "examples")])
def test_inputs_are_called_what_they_are(synthetic, tmp_path, shape, inputs):
    page = render([synthetic.write_run(tmp_path / "run", [("data.shape", shape)], [("examples", [])])])
    text = words(page)
    assert f"of the test {inputs}" in text and f"test {inputs} at ε" in text
    others = {"rows", "images", "examples"} - {inputs}
    assert not any(f"test {other}" in text for other in others)


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [
        ({"name": "ash", "radius": 0.1, "mean": 1.0, "std": 0.0}, "std"),
        ({"name": "ash", "radius": -0.1, "mean": 1.0, "std": 1.0}, "radius"),
        ({"name": "ash", "radius": 0.1}, "mean and std of each"),
    ],
)
def test_features_that_cannot_be_are_refused(synthetic, tmp_path, feature, sentence):
    with pytest.raises(TightlipError, match=sentence):
        render([write_table(synthetic, tmp_path / "run", [feature])])
