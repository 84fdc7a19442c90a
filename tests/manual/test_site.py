"""The manual as a site: it builds strictly, every link leads somewhere, and every page opens quietly and uncut.

The site is that of `make docs` if TIGHTLIP_SITE names it, as in the gate; else it is built here, which takes a while.
"""

import http.server
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import BROWSER, FLAGS, REASON

ROOT = Path(__file__).parents[2]
LOOK = Path(__file__).with_name("look.html")
OWN = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What pages may load; whatever else they ask for is a complaint on the console."""

THOROUGH = ["index.html", "choosing.html", "reference/save.html"]
"""Pages that axe-core looks at: one of each kind."""

EMPTY = b'{"config":{"lang":["en"],"separator":"[\\\\s]+","pipeline":[],"fields":{}},"docs":[]}'
"""Instead of the index of the whole manual, after the first page: each would build it anew."""


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


class Server(http.server.SimpleHTTPRequestHandler):
    """The site, the page that looks at it, and what that page tells."""

    def do_GET(self):
        place = self.path.partition("?")[0]
        if place == "/__look__":
            return self.answer(LOOK.read_bytes(), "text/html; charset=utf-8")
        if place == "/__pages__":
            return self.answer(json.dumps(self.server.wanted).encode(), "application/json")
        if place.endswith("search_index.json") and self.server.searched:
            return self.answer(EMPTY, "application/json")
        self.server.searched |= place.endswith("search_index.json")
        return super().do_GET()

    def do_POST(self):
        self.server.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(b"", "text/plain")
        self.server.done.set()

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self):
        self.send_header("Content-Security-Policy", OWN)
        super().end_headers()

    def send_error(self, code, *rest, **others):
        self.server.absent.append(self.path)
        super().send_error(code, *rest, **others)

    def log_message(self, *_):
        pass


def axe():
    """axe-core, where a package brings it."""
    found = importlib.util.find_spec("axe_playwright_python")
    return next(Path(found.submodule_search_locations[0]).rglob("axe.min.js")).read_text("utf-8") if found else ""


def watched(site, pages, profile, thorough=False):
    """What the browser saw of some pages: (entries by name, lines of its console, what it asked for in vain)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(site)))
    server.wanted = {"pages": pages, "axe": axe() if thorough else ""}
    server.told, server.absent, server.searched, server.done = [], [], False, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/__look__"
    only = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [BROWSER, *FLAGS, only, f"--user-data-dir={profile}", "--remote-debugging-port=0", address]
    with (
        (profile / "console").open("w") as console,
        subprocess.Popen(command, stdout=console, stderr=console) as browser,
    ):
        try:
            came = server.done.wait(timeout=600)
        finally:
            browser.terminate()
    server.shutdown()
    thread.join()
    server.server_close()
    lines = re.findall(r"CONSOLE.*", (profile / "console").read_text(encoding="utf-8", errors="replace"))
    assert came, f"the browser told nothing: {lines}"
    return {entry["page"]: entry for entry in server.told}, lines, server.absent


@pytest.mark.skipif(BROWSER is None, reason=REASON)
def test_every_page_opens_quietly_and_uncut_at_400_and_1300_pixels_in_light_and_dark(site, tmp_path):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages, console, absent = watched(site, names, tmp_path)
    assert console == [] and absent == []
    assert list(pages) == names
    for name, entry in pages.items():
        assert len(entry["sizes"]) == 4 and all(wide <= window for wide, window in entry["sizes"]), name
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
    assert [wide > window for wide, window in pages["index.html"]["sizes"]] == [True, False] * 2
    assert any("overflow:hidden" in text for text in pages["index.html"]["cut"])
    assert not any("999px" in text for text in pages["index.html"]["cut"])
    assert absent == ["/gone.png"] and any("elsewhere.invalid" in line for line in console)
    assert not axe() or any("color-contrast" in text for text in pages["index.html"]["axe"])
