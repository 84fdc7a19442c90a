"""Pages as the browser sees them, all of a folder in one go: what is cut, what axe-core and the console complain of."""

import contextlib
import http.server
import importlib.util
import json
import re
import subprocess
import threading
from functools import partial
from pathlib import Path

from browser import BROWSER, FLAGS

LOOK = Path(__file__).with_name("look.html")
OWN = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What pages may load; whatever else they ask for is a complaint on the console."""


EMPTY = b'{"config":{"lang":["en"],"separator":"[\\\\s]+","pipeline":[],"fields":{}},"docs":[]}'
"""Instead of the index of the whole manual, after the first page: each would build it anew."""


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


@contextlib.contextmanager
def served(folder, wanted):
    """A server of the folder, and of the page that looks at it; at the end it is gone, whatever happened."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    server.wanted, server.told, server.absent = wanted, [], []
    server.searched, server.done = False, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def watched(folder, pages, profile, thorough=False, dark=False):
    """What the browser saw of some pages: (entries by name, lines of its console, what it asked for in vain).

    ``thorough``: with axe-core. ``dark``: as on a machine whose user prefers that; the manual is seen in both anyway.
    """
    profile.mkdir(exist_ok=True)
    only = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    flags = [only, f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--remote-debugging-port=0"]
    log = profile / "console"
    with served(folder, {"pages": pages, "axe": axe() if thorough else ""}) as server, log.open("w") as console:
        address = f"http://127.0.0.1:{server.server_port}/__look__"
        command = [BROWSER, *FLAGS, *flags, f"--user-data-dir={profile}", address]
        with subprocess.Popen(command, stdout=console, stderr=console) as browser:
            try:
                came = server.done.wait(timeout=600)
            finally:
                browser.terminate()
    lines = re.findall(r"CONSOLE.*", log.read_text(encoding="utf-8", errors="replace"))
    assert came, f"the browser told nothing: {lines}"
    return {entry["page"]: entry for entry in server.told}, lines, server.absent
