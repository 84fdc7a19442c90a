"""Several experiments on one page: a section each in the order given, and no two ids alike."""

import re

import pytest

from tightlip import TightlipError
from tightlip.report import render_experiments, write_experiments

LABELS = r'(?:aria-labelledby=|href=)"#?([^"]*)"'


@pytest.fixture
def studies(synthetic, tmp_path):
    """One with curves, one with surfaces, one with values of the paper."""
    curve = {"step": [0, 1], "loss": [1.0, 0.5]}
    metrics = {
        "of_steps": {"objective": 0.5, "curve": curve},
        "of_cones": {"objective": 0.5, "surface": synthetic.surface()},
        "of_table": {"objective": 0.5, "published": 0.51, "curve": curve},
    }
    config = {"activation": "relu", "depth": 3}
    return [
        synthetic.write_cell(tmp_path / name, config, config, metrics=numbers, experiment=name)
        for name, numbers in metrics.items()
    ]


def test_each_has_its_section_in_the_order_given_and_a_line_in_the_contents(studies):
    page = render_experiments(studies[::-1])
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["of table", "of cones", "of steps"]
    contents = re.search(r"<nav.*?</nav>", page, re.DOTALL).group()
    links = [("experiment-1", "of table"), ("experiment-2", "of cones"), ("experiment-3", "of steps")]
    assert re.findall(r'<a href="#([^"]*)">(.*?)</a>', contents) == links
    assert contents.count("Cones, compared.") == 3
    assert "<title>3 experiments · tightlip report</title>" in page and page.count("<h1>") == 1


def test_no_id_occurs_twice_and_every_reference_leads_somewhere(studies):
    page = re.sub(r"<script>.*?</script>", "", render_experiments([*studies, *studies]), flags=re.DOTALL)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 20
    assert {*re.findall(LABELS, page)} - {"data:,"} <= set(ids)


def test_a_page_of_one_has_neither_contents_nor_other_words_than_its_section(studies):
    alone, together = render_experiments(studies[2:]), render_experiments(studies[2:] * 2)
    assert "<nav" not in alone and alone.count("<h1>") == 1 and "<h2>" not in alone

    def words(text):
        return re.sub("<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL).split()

    article = " ".join(words(re.search(r"</p>\s*<h1>.*</article>", alone, re.DOTALL).group()))
    assert " ".join(words(together)).count(article) == 2


def test_one_script_serves_all_surfaces(studies):
    page = render_experiments([*studies, studies[1]])
    assert page.count("<script>") == 1 and page.count("data-surface=") == 2


def test_the_same_rows_give_the_same_bytes(studies, tmp_path):
    write_experiments(studies, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render_experiments(studies)


def test_a_damaged_one_leaves_the_earlier_page_alone(studies, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("before")
    next(studies[1].iterdir()).write_text("{")
    with pytest.raises(TightlipError, match="of_cones.*is not valid JSON"):
        write_experiments(studies, page)
    assert page.read_text() == "before"


def test_none_is_one_sentence():
    with pytest.raises(TightlipError, match="at least one folder of rows"):
        render_experiments([])
