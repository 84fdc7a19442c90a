"""The manual as a site: it builds strictly, every link leads somewhere, and every page opens quietly and uncut.

The site is that of `make docs` if TIGHTLIP_SITE names it, as in the gate; else it is built here, which takes a while.
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import BROWSER, REASON
from looking import axe, watched
from sweeps import some

ROOT = Path(__file__).parents[2]
THOROUGH = ["index.html", "choosing.html", "reference/save.html"]
"""Pages that axe-core looks at: one of each kind."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    if os.environ.get("TIGHTLIP_SITE"):
        return (ROOT / os.environ["TIGHTLIP_SITE"]).resolve()
    pytest.importorskip("mkdocs", reason="the manual needs tightlip[docs]")
    pytest.importorskip("material", reason="the manual needs tightlip[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


class Reader(HTMLParser):
    """The ids of a page, where its links lead, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag in ("a", "area") or (tag == "link" and given.get("rel") in ("canonical", "prev", "next", "alternate")):
            self.links.add(given.get("href") or "")
        else:
            self.loaded |= {given[key] for key in ("src", "href", "data", "poster") if given.get(key)}


def faults(site):
    """Links that lead nowhere, and things that are fetched from elsewhere."""
    pages = {path: Reader(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name} loads {url}" for url in page.loaded if urlsplit(url).scheme in ("http", "https"))
        yield from (f"{name} loads {url}" for url in page.loaded if url.startswith("//"))
        for url in page.links | page.loaded:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or name.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{name} links to {url}"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids | {"__skip"}:
                yield f"{name} links to {url}, which has no such part"


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site):
    assert len(list(site.rglob("*.html"))) > 50
    assert list(faults(site)) == []


def test_what_is_wrong_is_caught(tmp_path):
    (tmp_path / "a.html").write_text(
        "<a href='b.html#there'></a><a href='#here'></a><a href='gone.html'></a><a href='https://example.org'></a>"
        "<script src='https://elsewhere.invalid/x.js'></script><img src='//elsewhere.invalid/x.png'>"
    )
    (tmp_path / "b.html").write_text("<p id='there'></p><a href='a.html#not'></a>")
    assert sorted(faults(tmp_path)) == [
        "a.html links to #here, which has no such part",
        "a.html links to gone.html",
        "a.html loads //elsewhere.invalid/x.png",
        "a.html loads https://elsewhere.invalid/x.js",
        "b.html links to a.html#not, which has no such part",
    ]


def test_every_public_name_has_its_docstring_in_the_reference(site):
    import tightlip

    found = set()
    for page in (site / "reference").glob("*.html"):
        found |= Reader(page.read_text(encoding="utf-8")).ids
    packages = {"constructions", "data", "transport"}
    assert {f"tightlip.{name}" for name in tightlip.__all__ if name not in packages} <= found


def test_drawings_are_made_from_the_rows(site):
    page = (site / "gallery.html").read_text(encoding="utf-8")
    asked = re.findall(r"<!-- drawings: (\w+)((?: \d+)+) -->", (ROOT / "docs" / "gallery.md").read_text("utf-8"))
    assert len(asked) > 5
    assert page.count('<figure class="panel">') == sum(len(places.split()) for _, places in asked)
    for name, _ in asked:
        assert f"gallery/{name}.html" in page and (site / "gallery" / f"{name}.html").exists()


@pytest.mark.skipif(BROWSER is None, reason=REASON)
def test_every_page_opens_quietly_and_uncut_at_400_pixels_in_light_and_at_1300_in_dark(site, tmp_path):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    of_docstrings = [name for name in names if name.startswith("reference/")]  # all of one make
    names = some([name for name in names if name not in of_docstrings] + of_docstrings[::9], of_docstrings)
    pages, console, absent = watched(site, names, tmp_path)
    assert console == [] and absent == []
    assert list(pages) == names and len(names) > 40
    for name, entry in pages.items():
        assert len(entry["sizes"]) == 2, name
        assert all(wide <= window for wide, window in entry["sizes"]), name
        assert entry["cut"] == [], name


@pytest.mark.skipif(BROWSER is None, reason=REASON)
@pytest.mark.skipif(not axe(), reason="axe-core is not here: pip install --no-deps axe-playwright-python")
def test_axe_finds_nothing_to_mend_in_light_or_dark(site, tmp_path):
    pages, _, _ = watched(site, THOROUGH, tmp_path, thorough=True)
    assert {name: entry["axe"] for name, entry in pages.items()} == {name: [] for name in THOROUGH}


@pytest.mark.skipif(BROWSER is None, reason=REASON)
def test_the_look_itself_sees_what_is_cut_loud_or_pale(tmp_path):
    (tmp_path / "index.html").write_text(
        "<!doctype html><html lang=en><title>t</title><body><main><p style='color:#eee;background:#fff'>pale</p>"
        "<div style='overflow:hidden;width:90px'><div style='width:200px'>cut</div></div>"
        "<pre style='width:900px'>wide</pre><div style='overflow:auto'><div style='width:999px'>fine</div></div>"
        "<img src='gone.png' alt=''><script src='http://elsewhere.invalid/a.js'></script></main></body></html>"
    )
    pages, console, absent = watched(tmp_path, ["index.html"], tmp_path, thorough=True)
    assert [wide > window for wide, window in pages["index.html"]["sizes"]] == [True, False]
    assert any("overflow:hidden" in text for text in pages["index.html"]["cut"])
    assert not any("999px" in text for text in pages["index.html"]["cut"])
    assert absent == ["/gone.png"] and any("elsewhere.invalid" in line for line in console)
    assert not axe() or any("color-contrast" in text for text in pages["index.html"]["axe"])
