import gzip
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import filelock
import pytest

from tightlip.data import download, load
from tightlip.errors import TightlipError


def test_nothing_is_downloaded_unasked(cache, tiny, mirrors):
    tiny.know(mirrors.add("good"))
    with pytest.raises(TightlipError, match="--download"):
        load("tiny")
    assert mirrors.asked == []
    assert not cache.exists()


def test_mirrors_are_tried_in_turn_until_one_gives_the_right_bytes(cache, tiny, mirrors, dead):
    wrong = {name: gzip.compress(content[:-1] + b"\xff") for name, content in tiny.raw.items()}
    corrupt, good = mirrors.add("corrupt", wrong), mirrors.add("good")
    tiny.know(dead, corrupt, good, mirrors.add("never"))
    dataset = load("tiny", download=True)
    assert tiny.equals(dataset)
    assert dataset.source == good
    assert mirrors.asked == [f"/{folder}/{name}.gz" for name in tiny.raw for folder in ("corrupt", "good")]
    assert tiny.held(cache) == tiny.names
    assert load("tiny").source == "cache"
    assert len(mirrors.asked) == 8


def test_only_what_is_missing_is_downloaded(cache, tiny, mirrors):
    tiny.know(mirrors.add("good"))
    tiny.place(cache / "tiny", {name: tiny.packed[name] for name in ("train-images", "train-labels")})
    assert load("tiny", download=True).source == f"cache, http://127.0.0.1:{mirrors.server.server_port}/good/"
    assert mirrors.asked == ["/good/t10k-images.gz", "/good/t10k-labels.gz"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda send, content: send(content[:-5], length=len(content)), r"cut short after \d+ of \d+ bytes"),
        (lambda send, content: send(content[:-5], length=0), "truncated or altered file"),
        (lambda send, content: None, "closed connection without response"),
        (lambda send, content: send(bytes(10_000_000), length=0), r"sends more than the 65,\d+ bytes expected"),
        (lambda send, content: send(gzip.compress(bytes(10_000_000))), "truncated or altered file"),
        (lambda send, content: send(gzip.decompress(content)[:-1]), "truncated or altered file"),
        (lambda send, content: send(None), "404"),
        (lambda send, content: send.args[0].wfile.write(b"nonsense\r\n\r\n"), r"nonsense\)"),
    ],
    ids=["cut short", "cut short, no length", "hangs up", "endless", "gzip bomb", "altered", "absent", "no HTTP"],
)
def test_a_bad_download_is_explained_and_not_kept(cache, tiny, mirrors, answer, says):
    tiny.know(mirrors.add("bad", answer=lambda handler, content: answer(partial(mirrors.send, handler), content)))
    with pytest.raises(TightlipError, match=rf"train-images.gz could not be downloaded, .*bad.*{says}.*TIGHTLIP_DATA"):
        load("tiny", download=True)
    assert tiny.held(cache) == set()


def test_a_mirror_that_falls_silent_is_given_up(cache, tiny, mirrors, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    over = threading.Event()
    tiny.know(mirrors.add("silent", answer=lambda *arguments: over.wait(5)), mirrors.add("good"))
    dataset = load("tiny", download=True)
    over.set()
    assert dataset.source.endswith("/good/")


def test_the_error_names_every_mirror_with_its_reason(cache, tiny, mirrors, dead):
    tiny.know(dead, mirrors.add("empty", {}))
    with pytest.raises(
        TightlipError, match=f"{dead}train-images.gz .*refused.*; .*empty/train-images.gz .HTTP Error 404"
    ):
        load("tiny", download=True)


def test_concurrent_loads_download_each_file_once(cache, tiny, mirrors):
    def slowly(handler, content):
        time.sleep(0.05)
        mirrors.send(handler, content)

    tiny.know(mirrors.add("slow", answer=slowly))
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(lambda _: load("tiny", download=True), range(6)))
    assert all(tiny.equals(dataset) for dataset in loaded)
    assert sorted(mirrors.asked) == sorted(f"/slow/{name}.gz" for name in tiny.raw)
    assert tiny.held(cache) == tiny.names


def test_a_lock_that_is_never_given_back_is_an_error(cache, tiny, mirrors, monkeypatch):
    tiny.know(mirrors.add("good"))
    monkeypatch.setattr(download, "LOCK_TIMEOUT", 0.1)
    (cache / "tiny").mkdir(parents=True)
    with filelock.FileLock(cache / "tiny" / ".lock"), pytest.raises(TightlipError, match="locked by another download"):
        load("tiny", download=True)
    assert tiny.equals(load("tiny", download=True))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_download_leaves_nothing_half_written(cache, tiny, mirrors, monkeypatch, interruption):
    tiny.know(mirrors.add("good"))

    def interrupt(*arguments):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises((KeyboardInterrupt, TightlipError)) as caught:
            load("tiny", download=True)
    assert tiny.held(cache) == set()
    if isinstance(interruption, OSError):
        assert "cannot be written (No space left on device): set TIGHTLIP_CACHE" in str(caught.value)


def test_what_a_killed_download_left_is_overwritten(cache, tiny, mirrors):
    tiny.know(mirrors.add("good"))
    tiny.place(cache / "tiny", {"train-images": bytes(10_000)}, ".gz.part")
    assert tiny.equals(load("tiny", download=True))
    assert tiny.held(cache) == tiny.names


def test_a_cache_that_cannot_be_made_is_an_error(cache, tiny, mirrors):
    tiny.know(mirrors.add("good"))
    cache.write_text("a file where a folder is needed")
    with pytest.raises(TightlipError, match=r"train-images.gz cannot be written .*TIGHTLIP_CACHE"):
        load("tiny", download=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_cache_is_an_error_to_write_and_not_to_read(cache, tiny, mirrors):
    tiny.know(mirrors.add("good"))
    (cache / "tiny").mkdir(parents=True)
    (cache / "tiny").chmod(0o555)
    with pytest.raises(TightlipError, match=r"cannot be written .Permission denied.*TIGHTLIP_CACHE"):
        load("tiny", download=True)
    (cache / "tiny").chmod(0o755)
    tiny.place(cache / "tiny")
    (cache / "tiny").chmod(0o555)
    assert tiny.equals(load("tiny", download=True))
