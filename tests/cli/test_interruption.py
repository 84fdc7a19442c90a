"""What each command advises when it is interrupted: never an option that it lacks, nor a run that is not there."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tightlip.cli import main, train
from tightlip.cli.certify import Certify
from tightlip.experiments import EXPERIMENTS

pytestmark = pytest.mark.usefixtures("workplace")


def interrupted(capsys, *command, how="interrupted"):
    """The advice."""
    assert main(list(command)) == {"interrupted": 130, "terminated": 143}[how]
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"tightlip: {how}; ")
    return error.removeprefix(f"tightlip: {how}; ")


def stop(*_, **__):
    raise KeyboardInterrupt


def stop_after_a_checkpoint(config, folder, *_):
    (folder / "checkpoint.pt").touch()
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [["--name", "r"], []])
def test_training_that_kept_nothing_says_so(capsys, monkeypatch, name):
    monkeypatch.setattr(train, "run", stop)
    assert interrupted(capsys, "train", *name) == "nothing was kept"
    assert os.listdir("runs") == []


def test_training_that_has_a_checkpoint_is_resumed_by_its_name(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    advice = interrupted(capsys, "train", "--name", "mine", "--runs", "here")
    assert advice == "continue with: tightlip train --runs here --resume --name mine"
    assert interrupted(capsys, *shlex.split(advice.removeprefix("continue with: tightlip "))) == advice


def test_training_without_a_name_is_resumed_by_the_one_that_it_got(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    old = Path("runs/old/config.json")
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (0, 0))
    advice = interrupted(capsys, "train")
    (name,) = set(os.listdir("runs")) - {"old"}
    assert advice == f"continue with: tightlip train --resume --name {name}"


def test_the_advice_is_what_was_typed_word_for_word(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    options = ["--hidden", "8", "16", "--data", "my data.npz", "--name=a b", "--epochs=3"]
    advice = interrupted(capsys, "train", *options)
    assert advice == "continue with: tightlip train --hidden 8 16 --data 'my data.npz' --epochs=3 --resume --name 'a b'"


def test_the_command_is_called_as_it_was(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    program = tmp_path / "bin" / "tightlip"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert f"continue with: {program} train" in interrupted(capsys, "train", "--name", "a")
    monkeypatch.setenv("PATH", str(program.parent))
    assert "continue with: tightlip train" in interrupted(capsys, "train", "--name", "b")


def test_python_m_is_told_as_it_was_called(capsys, monkeypatch):
    monkeypatch.setattr(train, "run", stop_after_a_checkpoint)
    monkeypatch.setattr(sys, "argv", [str(Path(train.__file__).parents[1] / "__main__.py")])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert "continue with: python -m tightlip train --resume --name a" in interrupted(capsys, "train", "--name", "a")


def test_a_sigterm_is_told_like_an_interruption(capsys, monkeypatch):
    def terminated(config, folder, *_):
        (folder / "checkpoint.pt").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(train, "run", terminated)
    advice = interrupted(capsys, "train", "--name", "mine", how="terminated")
    assert advice == "continue with: tightlip train --resume --name mine"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_another_program_is_left_alone(capsys, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        monkeypatch.setattr(Certify, "__call__", lambda _: os.kill(os.getpid(), signal.SIGTERM) or "done")
        assert main(["certify", "model.safetensors"]) == 0 and heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_experiment_goes_on_by_the_same_command(capsys, monkeypatch):
    monkeypatch.setattr(EXPERIMENTS["bjorck_convergence"], "run", stop)
    advice = interrupted(capsys, "run", "bjorck_convergence")
    assert "give the same command again" in advice and "--resume" not in advice
    assert advice.endswith("tightlip run bjorck_convergence")


def test_other_commands_have_kept_nothing(capsys, monkeypatch):
    monkeypatch.setattr(Certify, "__call__", stop)
    assert interrupted(capsys, "certify", "model.safetensors") == "nothing was kept"


def test_while_options_are_read(capsys, monkeypatch):
    monkeypatch.setattr("tyro.cli", stop)
    assert interrupted(capsys, "train") == "nothing was kept"


SCRIPT = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name == "torch":
            print("importing", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
from tightlip.cli import main
sys.exit(main())
"""


def interrupted_while_importing(name):
    Path(name).write_text(SCRIPT)
    command = [sys.executable, name, "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    return process.returncode, error


def test_the_command_ends_quietly_while_it_is_imported():
    assert interrupted_while_importing("tightlip") == (130, "")


def test_other_programs_that_import_the_library_hear_of_it_as_ever():
    code, error = interrupted_while_importing("program.py")
    assert code != 130 and "KeyboardInterrupt" in error
