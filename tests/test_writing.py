"""Files are whole, on the disk before they have their name, and written by one process at a time."""

import copy
import importlib
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import Started

import tightlip
from tightlip import TightlipError
from tightlip.atomic import replacing, sha256
from tightlip.cli import main
from tightlip.experiments import EXPERIMENTS
from tightlip.locking import sole_writer

LIGHT = f"""
import sys, time, types, pathlib
sys.modules["tightlip"] = types.ModuleType("tightlip")  # without torch, which takes its seconds
sys.modules["tightlip"].__path__ = [{str(Path(tightlip.__file__).parent)!r}]
"""

HOLD = """
from tightlip.locking import sole_writer
with sole_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""

WRITE = """
from tightlip.atomic import replacing
path, letter = pathlib.Path(sys.argv[1]), sys.argv[2]
for _ in range(150):
    with replacing(path) as partial, partial.open("w") as file:
        for _ in range(40):
            file.write(letter * 500)
            file.flush()
"""


@pytest.fixture
def start():
    """Starts Python with a script; whatever still runs at the end is killed."""
    started = []

    def run(script, *arguments):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def holder(start, tmp_path):
    """A process that holds the folder ``run``."""
    (tmp_path / "run").mkdir()
    process = start(LIGHT + HOLD, tmp_path / "run")
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(holder, tmp_path):
    for _ in range(2):  # the first refusal must not wipe out what the second is told
        with pytest.raises(TightlipError, match="another|writ") as caught, sole_writer(tmp_path / "run"):
            pass
        text = str(caught.value)
        assert f"process {holder.pid} on {socket.gethostname()} since 2" in text and str(tmp_path / "run") in text


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_writer_holds_nothing_back(holder, tmp_path, how):
    holder.send_signal(how)
    holder.wait()
    assert os.listdir(tmp_path / "run") == [".lock"]
    with sole_writer(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path / "run") == []


def test_a_lock_is_given_back_at_the_end_and_after_an_error(tmp_path):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):  # noqa: PT012
            assert os.listdir(tmp_path) == [".lock"]
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_lock_is_not_shared_within_a_process_either(tmp_path):
    with sole_writer(tmp_path / "a.pt"), sole_writer(tmp_path / "b.pt"), sole_writer(tmp_path):
        for path in (tmp_path / "a.pt", tmp_path):
            with pytest.raises(TightlipError, match=f"process {os.getpid()}"), sole_writer(path):
                pass


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_a_folder_whose_lock_file_was_removed_is_still_held(holder, tmp_path):
    (tmp_path / "run" / ".lock").unlink()
    for _ in range(2):
        with pytest.raises(TightlipError, match="is being written by another process"), sole_writer(tmp_path / "run"):
            pass
    assert os.listdir(tmp_path / "run") == []
    holder.kill()
    holder.wait()
    with sole_writer(tmp_path / "run"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_a_writer_whose_lock_file_was_removed_takes_it_again(tmp_path):
    with sole_writer(tmp_path / "a.pt") as look_again:
        look_again()
        (tmp_path / ".a.pt.lock").unlink()
        look_again()
        with pytest.raises(TightlipError, match=f"process {os.getpid()}"), sole_writer(tmp_path / "a.pt"):
            pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_a_writer_whose_place_was_taken_stops_and_leaves_the_others_lock(start, tmp_path):
    path, lock = tmp_path / "a.pt", tmp_path / ".a.pt.lock"
    with sole_writer(path) as look_again:
        lock.unlink()
        other = start(LIGHT + HOLD, path)
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TightlipError, match=f"was removed, and it is being written by process {other.pid}"):
            look_again()
    with pytest.raises(TightlipError, match=f"is being written by process {other.pid}"), sole_writer(path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_a_fit_whose_checkpoint_another_writes_stops_before_it_writes(start, tmp_path):
    path, epochs = tmp_path / "c.pt", []

    def augment(x, generator):
        epochs.append(path.exists())
        if len(epochs) == 2:  # in the second epoch
            (tmp_path / ".c.pt.lock").unlink()
            assert start(LIGHT + HOLD, path).stdout.readline() == "held\n"
            path.write_text("the other's")
        return x

    part = torch.rand(8, 4), torch.arange(8) % 2
    options = {"epochs": 3, "checkpoint": path, "augment": augment, "tag": "a", "progress": False}
    with pytest.raises(TightlipError, match=r"the lock of .*c\.pt was removed, .* this writer stops"):
        inspect.unwrap(tightlip.fit)(torch.nn.Linear(4, 2), torch.nn.functional.cross_entropy, part, **options)
    assert epochs == [False, True] and path.read_text() == "the other's"


def test_where_no_lock_can_be_made_is_one_sentence(tmp_path):
    with pytest.raises(TightlipError, match="cannot be locked"), sole_writer(tmp_path / "absent" / "a.pt"):
        pass


def test_writers_at_the_same_time_leave_one_whole_file(start, tmp_path):
    target = tmp_path / "file"
    writers = [start(LIGHT + WRITE, target, letter) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            content = target.read_text()
            assert len(content) == 20_000 and len(set(content)) == 1
            seen.add(content[0])
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0] and seen
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_of_this_machine_left_is_removed_and_nothing_else(start, tmp_path):
    dead = start("pass")
    dead.wait()
    host = socket.gethostname()
    left = [f".file.{host}-{dead.pid}-0.partial", f".file.{host}-{dead.pid}-7.partial"]
    kept = [f".file.{host}-{os.getppid()}-0.partial", f".file.other-{dead.pid}-0.partial", f".else.{host}-1-0.partial"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    with replacing(tmp_path / "file") as partial:
        partial.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "file"])


def test_names_with_patterns_in_them_are_names(tmp_path):
    with replacing(tmp_path / "a[0]*.json") as partial:
        partial.write_text("whole")
    assert os.listdir(tmp_path) == ["a[0]*.json"]


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_the_name_afterwards(tmp_path, monkeypatch):
    events, sync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else "?")
        sync(descriptor)

    def replaced(source, target, **others):
        events.append("named")
        replace(source, target, **others)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with replacing(tmp_path / "file") as partial:
        partial.write_text("whole")
    assert events in ([str(partial), "named", str(tmp_path)], ["?", "named", "?"])


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as partial:  # noqa: PT012
        partial.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "earlier" and os.listdir(tmp_path) == ["file"]


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(TightlipError, match="absent"):
        sha256(tmp_path / "absent")


def test_two_fits_with_one_checkpoint_are_one_fit_and_one_sentence(start, tmp_path):
    holder = start(LIGHT + HOLD, tmp_path / "c.pt")
    assert holder.stdout.readline() == "held\n"
    network, data = tightlip.mlp([2, 4, 1]), (torch.rand(8, 2), torch.rand(8, 1))
    options = {"epochs": 1, "checkpoint": tmp_path / "c.pt", "progress": False}
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TightlipError, match=f"c.pt is being written by process {holder.pid}"):
        tightlip.fit(network, torch.nn.functional.mse_loss, data, data, **options)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    holder.kill()
    holder.wait()
    tightlip.fit(network, torch.nn.functional.mse_loss, data, data, **options)
    assert os.listdir(tmp_path) == ["c.pt"]


TRAIN = """
import sys
from tightlip.cli import main
sys.exit(main(sys.argv[1:]))
"""


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_two_trainings_in_one_folder_are_one_training_and_one_sentence(tmp_path, capsys):
    command = ["train", "--runs", str(tmp_path), "--name", "r", "--hidden", "4", "--threads", "1", "--epochs"]
    with Started("-c", TRAIN, *command, "2000") as first:
        wait_for(tmp_path / "r" / "checkpoint.pt", first)
        assert main([*command, "2000", "--resume"]) == 2
        error = capsys.readouterr().err
        assert f"r is being written by process {first.pid}" in error and error.count("\n") == 1
        assert first.poll() is None and (tmp_path / "r" / "config.json").exists()
    assert main([*command, "2", "--resume"]) == 2
    assert "began with epochs=2000" in capsys.readouterr().err  # and not: is being written


RUN = """
import sys, sleeper
from tightlip.cli import main
from tightlip.experiments import EXPERIMENTS
EXPERIMENTS["sleeper"] = sleeper
sys.exit(main(["run", "sleeper", "--output", sys.argv[1]]))
"""
SLEEPER = '''"""Cells that sleep."""
import pathlib, time
from dataclasses import dataclass
from tightlip.experiments.protocol import Outcome, Preset

@dataclass(frozen=True)
class Config:
    number: int = 0

GRID = {"number": (0,)}
SMOKE = PAPER = Preset()

def run(config, seed):
    pathlib.Path(__file__).with_name("started").touch()
    time.sleep(300)
    return Outcome({})
'''


def test_two_runs_of_an_experiment_in_one_folder_are_one_run_and_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    with Started("-c", RUN, tmp_path / "runs", cwd=tmp_path) as first:
        wait_for(tmp_path / "started", first)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(EXPERIMENTS, "sleeper", importlib.import_module("sleeper"))
        assert main(["run", "sleeper", "--output", str(tmp_path / "runs")]) == 2
        assert f"is being written by process {first.pid}" in capsys.readouterr().err
