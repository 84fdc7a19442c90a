"""Files survive a disk that fails or loses its power at any operation.

`make redteam` kills, starves and blacks out whole commands (`deaths`).
"""

import errno
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from red_team import lives
from red_team.deaths import is_a_sentence
from red_team.disk import Disk, Failing, Ledger, put
from red_team.lives import Life
from torch import nn

from tightlip import TightlipError, atomic
from tightlip.atomic import discard, make_folder, put_in_place, replacing
from tightlip.cli.folders import new_folder
from tightlip.cli.options import writable
from tightlip.locking import sole_writer
from tightlip.provenance import write_json
from tightlip.serialization import save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are named by /proc")

OLD, NEW = b"what was there before\n" * 9, b"what comes in its place\n" * 7


# ------------------------------------------------------------------------------------------------- the disk that fails


def carefully(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_bytes(NEW)


def in_place(path: Path) -> None:
    path.write_bytes(NEW)


def unflushed(path: Path) -> None:
    (path.parent / ".new").write_bytes(NEW)
    (path.parent / ".new").replace(path)
    atomic._flush_folder(path.parent)


def name_unflushed(path: Path) -> None:
    (path.parent / ".new").write_bytes(NEW)
    atomic._flush(path.parent / ".new")
    (path.parent / ".new").replace(path)


def removed_first(path: Path) -> None:
    (path.parent / ".new").write_bytes(NEW)
    path.unlink()
    put_in_place(path.parent / ".new", path)


def in_an_unflushed_folder(path: Path) -> None:
    (path.parent / "made").mkdir()
    carefully(path.parent / "made" / "other")


def in_a_folder(path: Path) -> None:
    make_folder(path.parent / "made" / "deep")
    carefully(path.parent / "made" / "deep" / "other")


def blacked_out(write: Callable[[Path], None], folder: Path) -> tuple[set[bytes | None], set[str], list[str]]:
    """What the file may hold when the power is lost, what is not whole, and what can be lost afterwards."""
    folder.mkdir()
    (folder / "file").write_bytes(OLD)
    found, broken = set[bytes | None](), set[str]()

    def seen(ledger: Ledger) -> None:
        for tree in ledger.states():
            found.add(tree.get("file"))
            broken.update(ledger.lost(tree))

    ledger = Ledger(folder, seen)
    with ledger.watched():
        write(folder / "file")
    seen(ledger)
    return found, broken, ledger.absent()


def test_whenever_the_power_is_lost_a_file_is_the_old_or_the_new_one(tmp_path):
    assert blacked_out(carefully, tmp_path / "a") == ({OLD, NEW}, set(), [])
    assert blacked_out(in_a_folder, tmp_path / "b") == ({OLD}, set(), [])


@pytest.mark.parametrize(
    ("careless", "found", "broken", "absent"),
    [
        (in_place, {OLD, b"", NEW[: len(NEW) // 2], bytes(len(NEW))}, {"file"}, ["file"]),
        (unflushed, {OLD, b"", NEW[: len(NEW) // 2], bytes(len(NEW))}, {"file"}, ["file"]),
        (name_unflushed, {OLD, NEW}, set(), ["file"]),
        (removed_first, {OLD, None, NEW}, set(), []),
        (in_an_unflushed_folder, {OLD}, set(), ["made", "made/other"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_this_disk_sees_who_writes_without_care(careless, found, broken, absent, tmp_path):
    assert blacked_out(careless, tmp_path / "a") == (found, broken, absent)


def operations(write: Callable[[Path], None], folder: Path) -> list[str]:
    folder.mkdir()
    disk = Disk(folder)
    with disk.watched():
        write(folder / "file")
    return [kind for kind, _ in disk.operations]


def test_the_operations_are_all_seen(tmp_path):
    count = Counter(operations(carefully, tmp_path / "a"))
    assert count == {"open": 2, "fsync": 2, "replace": 1, "unlink": 1}
    count = Counter(operations(in_a_folder, tmp_path / "b"))
    assert count == {"mkdir": 3, "open": 2, "fsync": 4, "replace": 1, "unlink": 1}  # mkdir finds no parent at first


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("write", [carefully, in_a_folder])
def test_whichever_operation_fails_is_a_sentence_and_the_file_is_whole(write, number, lasting, tmp_path):
    failed = 0
    for at in range(1, len(operations(write, tmp_path / "counted")) + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "file").write_bytes(OLD)
        try:
            with Disk(folder, Failing(at, number, lasting)).watched():
                write(folder / "file")
        except TightlipError as error:
            failed += 1
            assert f"cannot be written to ({os.strerror(number)}): choose another" in str(error)
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        assert (folder / "file") in files and {path.read_bytes() for path in files} <= {OLD, NEW}
        write(folder / "file")  # the disk works again
        assert [path.name for path in folder.rglob(".*")] == []
    assert failed >= 4


def test_a_write_that_fails_half_way_leaves_the_earlier_file_whatever_wrote(tmp_path):
    """The limit on the size of a file stops native code in the midst of its writing too."""
    network = nn.Sequential(nn.Linear(40, 40))
    writers = {
        "torch": lambda path: _replaced(path, lambda partial: torch.save(network.state_dict(), partial)),
        "numpy": lambda path: _replaced(path, lambda partial: np.zeros(1000).tofile(partial)),
        "weights": lambda path: save(network, path),
        "json": lambda path: write_json(path, list(range(3000))),
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, write in writers.items():
        path = tmp_path / name
        path.write_bytes(OLD)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
            with pytest.raises(TightlipError, match=f"{name} cannot be written to .*: choose another place or make ro"):
                write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == OLD
        write(path)
        assert path.stat().st_size > 3000
    assert sorted(os.listdir(tmp_path)) == sorted(writers)


def _replaced(path: Path, write: Callable[[Path], object]) -> None:
    with replacing(path) as partial:
        write(partial)


def test_weights_are_written_under_no_other_name_than_the_neighbors(tmp_path, monkeypatch):
    """A killed writer would leave it for good; and others may read what they may read of every file."""
    monkeypatch.setattr(atomic, "discard", lambda path: None)
    seen = []
    monkeypatch.setattr(atomic, "put_in_place", lambda partial, path: seen.extend(os.listdir(tmp_path)))
    inode = []
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda self: (touch(self), inode.append(self.stat().st_ino)))
    save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.safetensors")
    (partial,) = seen
    assert [(tmp_path / partial).stat().st_ino] == inode
    (tmp_path / "other").touch()
    assert (tmp_path / partial).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_another_process_of_this_number_left_is_removed(tmp_path):
    """In containers, the first process has always the same number."""
    mine = [f".file.{os.uname().nodename}-{os.getpid()}-{number}.partial" for number in (10**9, 10**9 + 1)]
    for name in mine:
        (tmp_path / name).touch()
    with replacing(tmp_path / "file") as outer:
        outer.touch()
        carefully(tmp_path / "file")
        assert sorted(os.listdir(tmp_path)) == sorted(["file", outer.name])  # what is being written stays
    assert os.listdir(tmp_path) == ["file"]


def test_systems_that_cannot_flush_folders_still_write(tmp_path):
    for number in atomic._NO_SUCH_THING:
        carefully_at = tmp_path / str(number)
        count = operations(carefully, carefully_at)
        with Disk(carefully_at, Failing(len(count) - 1, number)).watched():
            carefully(carefully_at / "file")
        assert os.listdir(carefully_at) == ["file"]


def test_two_commands_may_prove_at_once_that_a_folder_is_writable(tmp_path, monkeypatch):
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda self: (touch(self), self.unlink()))  # the other one is done with it
    assert writable(tmp_path / "runs") == tmp_path / "runs"


def test_what_cannot_be_removed_is_no_matter(tmp_path):
    carefully(tmp_path / "file")
    with Disk(tmp_path, Failing(1, errno.EROFS)).watched():
        discard(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


# ------------------------------------------------------------------------------------------------------------- clocks


def test_a_lock_of_an_impossible_time_is_still_a_lock(tmp_path):
    with sole_writer(tmp_path):
        for since in ("1e300", "-1e300", "NaN", '"yesterday"'):
            (tmp_path / ".lock").write_text(f'{{"pid": 1, "host": "h", "since": {since}}}')
            with pytest.raises(TightlipError, match="is being written by another process"), sole_writer(tmp_path):
                pass


@pytest.mark.parametrize("years", [-55, 300])
def test_a_clock_that_is_off_names_folders_and_locks(years, tmp_path):
    with lives.wrong_clock(years):
        first, second = new_folder(tmp_path, "a"), new_folder(tmp_path, "a")
        assert second.name.startswith(first.name) or second.name > first.name
        with sole_writer(first), pytest.raises(TightlipError, match="since"), sole_writer(first):
            pass


def test_a_process_that_fails_must_say_what_to_do():
    good = "epoch 1\ntightlip: a.pt cannot be written to (No space left on device): choose another place\n"
    assert is_a_sentence(Life(2, good, 0))
    for code, said in [(1, good), (2, "Traceback\n" + good), (2, "tightlip: [Errno 28] full: a"), (2, "tightlip: no")]:
        assert not is_a_sentence(Life(code, said, 0))


def test_put_makes_what_was_found(tmp_path):
    put({"a": None, "a/b": b"c"}, tmp_path)
    assert (tmp_path / "a" / "b").read_bytes() == b"c"
