import gzip
import hashlib
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tightlip.data import load, sources, split
from tightlip.data.cifar import RECORD, CifarSpec, parse
from tightlip.errors import TightlipError

REAL = Path(os.environ.get("TIGHTLIP_DATA", "absent"))
HERE = (REAL / "cifar10" / "cifar-10-binary.tar.gz").is_file()
NAMES = ("small/one.bin", "small/two.bin", "small/three.bin", "small/test.bin")
SIZE = 3 * RECORD


def batch(seed):
    """Three records, of the classes 0, 1 and 2, with random pixels."""
    records = np.random.default_rng(seed).integers(0, 256, (3, RECORD), dtype=np.uint8)
    records[:, 0] = range(3)
    return records.tobytes()


BATCHES = {name: batch(seed) for seed, name in enumerate(NAMES)}


def member(name, content=b"", **fields):
    """What goes into an archive: a header and its content."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def members(**others):
    """The right members, shuffled as they are in the published archive, beside others that nobody asked for."""
    made = {name: member(name, BATCHES[name]) for name in (NAMES[3], *NAMES[:3])}
    unasked = [member("small", type=tarfile.DIRTYPE), member("small/readme.html", b"hello"), member("one.bin", b"1")]
    return [*unasked, *(made | others).values()]


def pack(content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for header, data in content:
            archive.addfile(header, io.BytesIO(data))
    return gzip.compress(stream.getvalue())


def know(monkeypatch, archive, *mirrors):
    """Make ``load("small")`` possible: this archive is the published one."""
    made = CifarSpec(
        name="small",
        archive="small.tar.gz",
        sha256=hashlib.sha256(archive).hexdigest(),
        size=len(archive),
        train=NAMES[:3],
        test=NAMES[3],
        records=3,
        mirrors=mirrors,
        classes=3,
        licence="none",
    )
    monkeypatch.setitem(sources.SPECS, "small", made)
    return made


def place(folder, archive):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.tar.gz").write_bytes(archive)


def test_a_record_is_a_label_and_then_red_green_and_blue_row_by_row():
    record = bytes([7]) + bytes(index % 251 for index in range(3072))
    images, labels = parse([record, record], "made", 10)
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [7, 7]
    for channel, row, column in [(0, 0, 0), (0, 0, 31), (0, 1, 0), (1, 0, 0), (2, 31, 31), (1, 2, 3)]:
        assert images[1, channel, row, column] == record[1 + 1024 * channel + 32 * row + column]


def test_the_batches_become_a_training_part_in_their_order_and_a_test_part(monkeypatch, cache):
    archive = pack(members())
    know(monkeypatch, archive)
    place(cache / "small", archive)
    dataset = load("small")
    assert dataset.images.flatten(1).numpy().tobytes() == b"".join(
        BATCHES[name][start + 1 : start + RECORD] for name in NAMES[:3] for start in range(0, SIZE, RECORD)
    )
    assert dataset.labels.tolist() == [0, 1, 2] * 3
    assert dataset.test_images.shape == (3, 3, 32, 32)
    assert dataset.test_images[2].numpy().tobytes() == BATCHES[NAMES[3]][-3072:]
    assert dataset.test_labels.tolist() == [0, 1, 2]
    assert (dataset.source, dataset.sha256) == ("cache", hashlib.sha256(archive).hexdigest())


@pytest.mark.parametrize("folder", ["small", "."])
def test_the_archive_is_found_under_a_root(tmp_path, monkeypatch, cache, folder):
    archive = pack(members())
    know(monkeypatch, archive)
    place(tmp_path / "root" / folder, archive)
    assert load("small", root=tmp_path / "root").source == "root"
    assert not cache.exists()


def test_a_dead_and_a_corrupt_mirror_are_passed_over(monkeypatch, cache, mirrors, dead):
    archive = pack(members())
    altered = pack(members(**{NAMES[0]: member(NAMES[0], batch(99))}))
    corrupt, good = mirrors.add("corrupt", {"small.tar": altered}), mirrors.add("good", {"small.tar": archive})
    know(monkeypatch, archive, dead, corrupt, good, mirrors.add("never", {"small.tar": archive}))
    with pytest.raises(TightlipError, match=r"small is not complete .*small/small.tar.gz, or pass download=True"):
        load("small")
    dataset = load("small", download=True)
    assert dataset.source == good
    assert mirrors.asked == ["/corrupt/small.tar.gz", "/good/small.tar.gz"]
    again = load("small", download=True)
    assert again.source == "cache"
    assert again.images.equal(dataset.images)
    assert len(mirrors.asked) == 2
    assert {path.name for path in cache.rglob("*") if path.is_file()} - {".lock"} == {"small.tar.gz"}


def test_every_mirrors_failure_is_told_and_nothing_is_kept(monkeypatch, cache, mirrors, dead):
    archive = pack(members())
    cut, longer = mirrors.add("cut", {"small.tar": archive[:-9]}), mirrors.add("long", {"small.tar": archive + b"\0"})
    know(monkeypatch, archive, dead, cut, longer)
    with pytest.raises(TightlipError, match=r"small.tar.gz could not be downloaded") as caught:
        load("small", download=True)
    for reason in (
        f"{dead}small.tar.gz (",
        "it sent a truncated or altered file",
        f"more than the {len(archive):,} bytes",
    ):
        assert reason in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


def test_concurrent_loads_download_the_archive_once(monkeypatch, cache, mirrors):
    archive = pack(members())
    know(monkeypatch, archive, mirrors.add("good", {"small.tar": archive}))
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load("small", download=True), range(4)))
    assert all(dataset.images.equal(loaded[0].images) for dataset in loaded)
    assert mirrors.asked == ["/good/small.tar.gz"]


def test_an_archive_with_another_hash_is_refused_before_it_is_unpacked(monkeypatch, cache):
    know(monkeypatch, pack(members()))
    place(cache / "small", b"\x1f\x8b no archive")
    with pytest.raises(TightlipError, match=r"small.tar.gz is not the published file .*delete it and fetch it again"):
        load("small")


def relabeled(label):
    content = bytearray(BATCHES[NAMES[1]])
    content[2 * RECORD] = label
    return bytes(content)


def patched(content, header, was, now):
    """An archive with some bytes of one member's header replaced, and its checksum made right again."""
    raw = bytearray(gzip.decompress(pack(content)))
    start = raw.index(header.encode().ljust(100, b"\0"))
    block = bytes(raw[start : start + 512]).replace(was, now, 1)
    block = block[:148] + b" " * 8 + block[156:]
    raw[start : start + 512] = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return gzip.compress(bytes(raw))


def negative():
    """A member of −512 bytes: its successor is itself, and a reader that goes back never ends (CVE-2025-8194)."""
    return patched(members(), "small/readme.html", b"00000000005\0", b"\xff" * 10 + b"\xfe\0")


HOSTILE = {
    "absent": (lambda: pack(members()[:-1]), "lacks small/three.bin: give the binary version"),
    "all absent": (
        lambda: pack([member("other", b"1")]),
        "lacks small/one.bin, small/two.bin, small/three.bin, small/test",
    ),
    "symlink": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], type=tarfile.SYMTYPE, linkname="/etc/passwd")})),
        "holds small/one.bin as something else than a plain file",
    ),
    "hard link": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], type=tarfile.LNKTYPE, linkname=NAMES[3])})),
        "holds small/one.bin as something else",
    ),
    "folder": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], type=tarfile.DIRTYPE)})),
        "holds small/one.bin as something else",
    ),
    "device": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], type=tarfile.CHRTYPE)})),
        "holds small/one.bin as something else",
    ),
    "short": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], BATCHES[NAMES[0]][:-1])})),
        "holds 9,218 bytes of small/one.bin, not 9,219",
    ),
    "long": (
        lambda: pack(members(**{NAMES[0]: member(NAMES[0], BATCHES[NAMES[0]] + b"1")})),
        "holds 9,220 bytes of small/one.bin, not 9,219",
    ),
    "second of a name": (lambda: pack([*members(), member(NAMES[0], b"1")]), "holds 1 bytes of small/one.bin"),
    "label": (lambda: pack(members(**{NAMES[1]: member(NAMES[1], relabeled(3))})), "has the label 3, but 3 classes"),
    "bomb": (lambda: pack([*members(), member("zeros", bytes(1 << 21))]), "holds more than the 1,085,452 bytes"),
    "bomb in a header": (
        lambda: pack([member("zeros", bytes(1 << 21), type=tarfile.XHDTYPE), *members()]),
        "holds more than the 1,085,452 bytes",
    ),
    "headers without end": (
        lambda: pack([member("long", b"x\0", type=tarfile.GNUTYPE_LONGNAME)] * 1000),
        "cannot be read as a tar archive",
    ),
    "nonsense in a header": (
        lambda: pack([member("pax", b"20 GNU.sparse.map=x\n", type=tarfile.XHDTYPE), *members()]),
        "cannot be read as a tar archive",
    ),
    "negative size": (negative, "cannot be read as a tar archive"),
    "cut tar": (
        lambda: gzip.compress(gzip.decompress(pack(members()))[:-20_000]),
        "cannot be read as a tar archive",
    ),
    "no tar": (lambda: gzip.compress(b"no archive " * 100), "cannot be read as a tar archive"),
    "cut gzip": (lambda: pack(members())[:-100], "is truncated or damaged"),
    "empty": (lambda: b"", "cannot be read as a tar archive .empty file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_lies_is_refused_even_if_its_hash_is_right(monkeypatch, cache, kind):
    make, says = HOSTILE[kind]
    archive = make()
    know(monkeypatch, archive)
    place(cache / "small", archive)
    with pytest.raises(TightlipError, match=rf"small.tar.gz .*{says}") as caught:
        load("small")
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")


def test_nothing_is_ever_extracted(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    archive = pack([member("../escaped", b"1"), member(str(tmp_path / "absolute"), b"1"), *members()])
    know(monkeypatch, archive)
    place(cache / "small", archive)
    load("small")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["small.tar.gz"]


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    made = know(monkeypatch, pack(members()))
    with pytest.raises(TightlipError, match=r"cannot be read .Is a directory.: check the path"):
        made._verify(tmp_path)


def test_the_published_archive_is_pinned():
    made = sources.SPECS["cifar10"]
    assert (len(made.sha256), made.size, made.records, len(made.train)) == (64, 170_052_171, 10_000, 5)
    assert "unspecified" in made.licence
    assert replace(made, name="x").mirrors == ("https://www.cs.toronto.edu/~kriz/",)


@pytest.mark.skipif(not HERE, reason="TIGHTLIP_DATA is not set: no cifar10/cifar-10-binary.tar.gz to test on")
def test_the_complete_set_loads_and_splits():
    dataset = load("cifar10", root=REAL)
    assert dataset.images.shape == (50000, 3, 32, 32)
    assert dataset.labels.bincount().tolist() == [5000] * 10
    assert dataset.test_labels.bincount().tolist() == [1000] * 10
    assert dataset.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert [len(part) for part in vars(split(dataset, seed=0)).values()] == [45833, 4167, 10000]
