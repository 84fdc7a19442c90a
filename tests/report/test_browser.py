"""The page in a real browser: it has size and ink, complains of nothing and asks the network for nothing."""

import html
import http.server
import json
import re
import subprocess
import threading

import matplotlib.image
import numpy as np
import pytest
from browser import BROWSER, FLAGS, REASON
from looking import axe, watched
from sweeps import some

from tightlip.cli import main
from tightlip.report import render, render_distances, render_experiments

pytestmark = pytest.mark.skipif(BROWSER is None, reason=REASON)

ERRANDS = re.compile(r"\b(google|googleapis|gvt1)\.com\b")  # the browser's own: its clock, its updates
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MEASURE = """(() => {
const size = element => { const box = element.getBoundingClientRect(); return [box.width, box.height]; };
const lines = element => {
  const range = document.createRange();
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].map(box => box.top)).size;
};
return {
  plots: [...document.querySelectorAll(".plot svg")].map(size),
  images: [...document.images].map(image => [image.naturalWidth, image.naturalHeight, ...size(image)]),
  texts: [...document.querySelectorAll(".plot text")].map(size),
  values: [...document.querySelectorAll(".card .value")].map(lines),
  page: [document.documentElement.scrollWidth, innerWidth],
  audit: [...document.querySelectorAll(".audit .number")].map(cell => cell.getBoundingClientRect().right),
  shadows: [...document.querySelectorAll(".scroll")].map(box => [box.scrollWidth > box.clientWidth,
    getComputedStyle(box).backgroundAttachment]),
};
})()"""
TURN = """<script>
const canvases = [...document.querySelectorAll("canvas")];
const ink = () => canvases.map(canvas => canvas.toDataURL());
const drawn = () => new Promise(done => setTimeout(done, 50));
const press = key => canvases[0].dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
const point = (type, x) => {
  const where = { clientX: x, clientY: 9, pointerId: 1, button: 0 };
  canvases[1].dispatchEvent(new PointerEvent(type, where));
};
const told = {
  titles: canvases.map(canvas => [canvas.tabIndex, canvas.getAttribute("aria-label")]),
  stills: [...document.querySelectorAll(".plot")].map(plot => getComputedStyle(plot).display),
};
(async () => {
  await drawn();
  const first = ink();
  told.ratios = canvases.map(canvas => canvas.width / canvas.clientWidth);
  canvases[1].setPointerCapture = () => {};
  for (const [name, act] of Object.entries({
    keys: () => press("ArrowRight"),
    home: () => press("Home"),
    drag: () => { point("pointerdown", 0); point("pointermove", 40); },
    let_go: () => { press("Home"); point("lostpointercapture", 40); point("pointermove", 90); },
  })) {
    act();
    await drawn();
    told[name] = ink().map((picture, place) => picture !== first[place]);
  }
  document.body.dataset.told = JSON.stringify(told);
})();
</script>"""


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers every request with 404 and keeps what was asked for, but for the browser's own errands."""

    def refuse(self):
        if not ERRANDS.search(self.path):
            self.server.asked.append(self.path)
        self.send_error(404)

    do_GET = do_POST = do_HEAD = do_CONNECT = refuse  # noqa: N815 - http.server's own names

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browse(tmp_path, proxy):
    """Opens a file in a fresh headless browser behind the proxy; returns (stdout, console lines)."""

    def run(page, *flags):
        command = [
            BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}",
            f"--proxy-server=http://127.0.0.1:{proxy.server_port}", "--proxy-bypass-list=<-loopback>",
            *flags, page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr)

    return run


def measured(tab, page, folder, width=1280, height=1000):
    """Sizes on the page in a window of this size."""
    target = folder / "measured.html"
    target.write_text(page, encoding="utf-8")
    tab.open(target, width, height, mobile=False)
    return tab.tell(MEASURE)


def test_the_page_opens_quietly_and_asks_for_nothing(pair, tmp_path, browse, proxy):
    target = tmp_path / "report.html"
    target.write_text(pair, encoding="utf-8")
    dom, console = browse(target, "--dump-dom")
    assert "<title>2 runs · tightlip report</title>" in dom
    assert dom.rstrip().endswith("</html>")
    assert console == []
    assert proxy.asked == []


def test_the_check_itself_hears_requests_and_complaints(tmp_path, browse, proxy):
    loud = tmp_path / "loud.html"
    loud.write_text("<img src='http://elsewhere.invalid/a.png'>")
    browse(loud, "--dump-dom")
    assert proxy.asked == ["http://elsewhere.invalid/a.png"]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    loud.write_text(f"{policy}<script>document.title = 1</script>")
    assert any("Content Security Policy" in line for line in browse(loud, "--dump-dom")[1])


def test_figures_and_images_have_size(page, tmp_path, tab):
    sizes = measured(tab, page, tmp_path)
    assert len(sizes["plots"]) == 4
    assert all(width > 300 and height > 200 for width, height in sizes["plots"])
    assert len(sizes["images"]) == 6
    assert all(image[:2] == [6, 6] and min(image[2:]) > 50 for image in sizes["images"])
    assert len(sizes["texts"]) > 40
    assert all(min(size) > 0 for size in sizes["texts"])


def test_a_narrow_window_does_not_scroll_sideways(folder, synthetic, tmp_path, tab):
    wordy = synthetic.write_run(tmp_path / "wordy", [("name", "x" * 200), ("config.activation", "y" * 200)])
    needed, given = measured(tab, render([folder, wordy]), tmp_path, 500)["page"]
    assert given <= 500
    assert needed <= given


def test_a_narrow_window_shows_the_numbers_of_the_audit_and_where_a_table_goes_on(folder, tmp_path, tab):
    sizes = measured(tab, render([folder, folder]), tmp_path, 500)
    assert len(sizes["audit"]) > 4 and max(sizes["audit"]) <= sizes["page"][1]
    hidden = [attachment for more, attachment in sizes["shadows"] if more]
    assert hidden and all(attachment == "local, local, scroll, scroll" for attachment in hidden)


@pytest.mark.parametrize("width", [1250, 1100, 970, 720, 500])
def test_no_number_of_the_cards_is_broken(synthetic, tmp_path, tab, width):
    long = [("seconds.train", 1507.2)], [("bound.constant", 0.99999993)]
    page = render([synthetic.write_run(tmp_path / "long", *long)])
    assert "0.99999993<" in page
    assert measured(tab, page, tmp_path, width)["values"] == [1] * 5


@pytest.mark.parametrize(("scheme", "bright"), [("1", True), ("0", False)])
def test_screenshots_have_ink_in_light_and_dark(page, tmp_path, browse, scheme, bright):
    target, shot = tmp_path / "report.html", tmp_path / "shot.png"
    target.write_text(page, encoding="utf-8")
    browse(target, f"--screenshot={shot}", "--window-size=1280,1400", f"--blink-settings=preferredColorScheme={scheme}")
    pixels = matplotlib.image.imread(shot)[..., :3]
    assert pixels.shape == (1400, 1280, 3)
    assert (pixels[5, 5].mean() > 0.5) == bright
    assert pixels.std() > 0.05


def test_a_grid_of_images_keeps_their_size_in_a_narrow_window(synthetic, tmp_path, tab):
    lines = [
        {"heading": f"target {place}", "signed": True, "images": [[[-1.0, 0.0], [0.5, 1.0]]] * 9} for place in (0, 1)
    ]
    drawings = {"images": {"columns": list("012345678"), "scale": "column", "rows": lines}}
    folder = synthetic.write_cell(tmp_path / "grid", {"activation": "relu"}, format=2, drawings=drawings)
    sizes = measured(tab, render_experiments([folder]), tmp_path, 500)
    assert len(sizes["images"]) == 18 and all(min(image[2:]) > 50 for image in sizes["images"])
    assert sizes["page"][0] <= sizes["page"][1] <= 500
    assert any(more for more, _ in sizes["shadows"])


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    """A page of three distances: of images, of points in a plane, and of rows with many columns."""
    folder, rng, folders = tmp_path_factory.mktemp("distances"), np.random.default_rng(0), []
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name, shape in (("images", (9, 1, 5, 5)), ("plane", (30, 2)), ("rows", (20, 40))):
            np.savez(f"{name}.npz", x=rng.random(shape), y=rng.random(shape) + 0.2)
            assert main(["distance", f"{name}.npz:x", f"{name}.npz:y", "--name", name]) == 0
            folders.append(folder / "runs" / name)
    return render_distances(folders)


def test_the_page_of_distances_opens_quietly_and_draws_what_it_says(distances, tmp_path, browse, proxy):
    target = tmp_path / "report.html"
    target.write_text(distances, encoding="utf-8")
    dom, console = browse(target, "--dump-dom")
    assert "<title>3 distances · tightlip report</title>" in dom and dom.count('class="surface turning"') == 1
    assert console == [] and proxy.asked == []


@pytest.mark.parametrize("width", [1250, 970, 500])
def test_the_page_of_distances_fits_its_window(distances, tmp_path, tab, width):
    sizes = measured(tab, distances, tmp_path, width)
    assert sizes["page"][0] <= sizes["page"][1] == width
    assert len(sizes["images"]) == 4 * 6 + 2 * 8 and all(min(image[2:]) > 40 for image in sizes["images"])
    lines = sizes["values"]
    assert [lines[place] for place in range(len(lines)) if place % 5] == [1] * 12  # the first of five has two ends


@pytest.fixture
def behind(tmp_path, monkeypatch, capsys):
    """A page of two distances of distributions: on a line, where a diameter is declared, and of images, where not."""
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", x=np.random.default_rng(0).random((9, 1, 5, 5)), y=np.zeros((9, 1, 5, 5)))
    np.savez("line.npz", x=np.linspace(0, 1, 30), y=np.linspace(1, 2, 30))
    for name, options in (("line", ("--diameter", "2.5")), ("images", ())):
        command = ["distance", f"{name}.npz:x", f"{name}.npz:y", "--about", "distributions", "--seconds", "0", *options]
        assert main([*command, "--name", f"behind-{name}"]) == 0
    capsys.readouterr()
    return render_distances([tmp_path / "runs" / f"behind-{name}" for name in ("line", "images")])


@pytest.fixture(scope="module")
def cones(synthetic, tmp_path_factory):
    """A page of two surfaces."""
    folder = tmp_path_factory.mktemp("cones")
    for place, name in enumerate(("relu", "maxmin")):
        metrics = {"objective": 0.5, "surface": synthetic.surface(1.0 + place, 21, 11)}
        synthetic.write_cell(folder, {"activation": name}, place=place, metrics=metrics)
    return render_experiments([folder])


def test_surfaces_are_drawn_by_the_one_script_that_the_policy_allows(cones, tmp_path, browse, proxy):
    target = tmp_path / "report.html"
    target.write_text(cones, encoding="utf-8")
    dom, console = browse(target, "--dump-dom")
    assert (
        len(re.findall('aria-label="[^"]* The arrow keys turn it."', dom)) == dom.count('class="surface turning"') == 2
    )
    assert console == [] and proxy.asked == []
    target.write_text(cones.replace("use strict", "use  strict"), encoding="utf-8")
    dom, console = browse(target, "--dump-dom")
    assert 'class="surface turning"' not in dom and dom.count('class="surface"') == 2
    assert any("Content Security Policy" in line for line in console)


def test_all_surfaces_turn_together_and_home_turns_them_back(cones, tmp_path, browse):
    copy = tmp_path / "turned.html"
    text = cones.replace("requestAnimationFrame", "setTimeout")  # a page whose text is dumped has no frames
    copy.write_text(text.replace(POLICY, "script-src 'unsafe-inline'").replace("</body>", f"{TURN}</body>"), "utf-8")
    dom, _ = browse(copy, "--dump-dom", "--virtual-time-budget=5000", "--force-device-scale-factor=2")
    told = json.loads(html.unescape(re.search(r'data-told="([^"]*)"', dom).group(1)))
    assert told["ratios"] == [pytest.approx(2, abs=0.01)] * 2 and told["stills"] == ["none"] * 2
    assert all(title[0] == 0 and title[1].startswith("Surface, activation ") for title in told["titles"])
    assert told["keys"] == told["drag"] == [True, True] and told["home"] == told["let_go"] == [False, False]


@pytest.mark.skipif(not axe(), reason="axe-core is not here: pip install --no-deps axe-playwright-python")
@pytest.mark.parametrize("dark", some([True], [False]))  # in light the manual's pages are looked at
def test_axe_finds_nothing_to_mend_and_nothing_is_cut_on_a_phone(page, pair, distances, behind, cones, tmp_path, dark):
    texts = {"run.html": page, "runs.html": pair, "distances.html": distances, "experiment.html": cones}
    texts["behind.html"] = behind
    for name, text in texts.items():  # without their policy, which lets no script of axe-core in
        (tmp_path / name).write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), "utf-8")
    seen, console, _ = watched(tmp_path, list(texts), tmp_path / "looking", thorough=True, dark=dark)
    assert {name: entry["axe"] + entry["cut"] for name, entry in seen.items()} == {name: [] for name in texts}
    assert all(wide <= window for entry in seen.values() for wide, window in entry["sizes"]) and console == []
