"""A tiny data set in four IDX files, web servers to download it from, and an empty cache."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading

import numpy as np
import pytest


def _idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


class Tiny:
    """Nine 4 × 4 images of three classes and a test part of three; ``raw`` and ``packed`` hold the files by name."""

    images, test_images = np.arange(9 * 16).reshape(9, 1, 4, 4), np.arange(3 * 16).reshape(3, 1, 4, 4)
    labels, test_labels = np.arange(9) % 3, np.arange(3)

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.raw = {
            "train-images": _idx(self.images[:, 0]),
            "train-labels": _idx(self.labels),
            "t10k-images": _idx(self.test_images[:, 0]),
            "t10k-labels": _idx(self.test_labels),
        }
        self.packed = {name: gzip.compress(content) for name, content in self.raw.items()}
        self.names = {f"{name}.gz" for name in self.raw}
        self.know()

    def know(self, *mirrors):
        """Make ``load("tiny")`` possible, with these mirrors."""
        from tightlip.data import sources  # not above: jaxtyping's checks must be in place first

        files = [sources.RawFile(n, hashlib.sha256(raw).hexdigest(), len(raw)) for n, raw in self.raw.items()]
        spec = sources.IdxSpec("tiny", "Tiny", tuple(files), mirrors, classes=3, licence="none")
        self.monkeypatch.setitem(sources.SPECS, "tiny", spec)

    def place(self, folder, files=None, suffix=".gz"):
        """Write the files, by default all four of them, gzipped."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.packed if files is None else files).items():
            (folder / f"{name}{suffix}").write_bytes(content)

    @staticmethod
    def held(folder):
        """The names of all files in a cache, except for the lock."""
        return {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}

    def equals(self, dataset):
        made = (self.images, self.labels, self.test_images, self.test_labels)
        read = (dataset.images, dataset.labels, dataset.test_images, dataset.test_labels)
        return all(np.array_equal(ours, theirs.numpy()) for ours, theirs in zip(made, read, strict=True))


@pytest.fixture
def tiny(monkeypatch):
    return Tiny(monkeypatch)


def send(handler, content, length=None):
    """Answer with ``content`` or 404; ``length`` is what the header says instead of the truth (0: it says nothing)."""
    handler.send_response(404 if content is None else 200)
    if length != 0:
        handler.send_header("Content-Length", str(length or len(content or b"")))
    handler.end_headers()
    handler.wfile.write(content or b"")


class Mirrors:
    """Web servers on 127.0.0.1, one folder each; ``asked`` tells what for, in order."""

    send = staticmethod(send)

    def __init__(self, files):
        self.files, self.answers, self.asked = files, {}, []
        mirrors = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirrors.asked.append(self.path)
                folder, name = self.path.strip("/").split("/")
                mirrors.answers[folder](self, name.removesuffix(".gz"))

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *arguments: None  # a client may hang up
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def add(self, folder, files=None, answer=send):
        """The address of a new mirror of ``files`` (by default the right ones), which answers by ``answer``."""
        served = self.files if files is None else files
        self.answers[folder] = lambda handler, name: answer(handler, served.get(name))
        return f"http://127.0.0.1:{self.server.server_port}/{folder}/"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def mirrors(tiny):
    started = Mirrors(tiny.packed)
    yield started
    started.close()


@pytest.fixture
def dead():
    """The address of a server that is gone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no data root, and no proxy between the test and its own servers."""
    monkeypatch.setenv("TIGHTLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TIGHTLIP_DATA", raising=False)
    return tmp_path / "cache"
