"""Python in a process of its own, forked from one that has imported torch and the library, whose seconds count once.

For whatever needs a process, because it is killed in it, because the tests' shape checks are not in it, or because no
other test was. What an import itself does is tested in processes that are started anew.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Self

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._dynamo", "tightlip.public", "tightlip.experiments", "tightlip.cli.train"])


class Started:
    """``python *arguments`` while it runs: a script and its arguments, or ``-c`` and a program.

    What it says goes to two files; where the block ends, it is killed.
    """

    def __init__(self, *arguments: object, cwd: Path | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tightlip-process-")
        self.files = [Path(self.folder.name, name) for name in ("out", "err")]
        words = [str(argument) for argument in arguments]
        self.process = SERVER.Process(target=_run, args=(words, str(cwd or Path.cwd()), dict(os.environ), self.files))
        self.process.start()
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.join()
        self.folder.cleanup()

    def poll(self) -> int | None:
        """What it ended with, None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def end(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Its exit code, or minus the signal that ended it, and what it said."""
        self.process.join(timeout)
        out, err = (file.read_text(encoding="utf-8") for file in self.files)
        if self.process.is_alive():
            raise TimeoutError(err)
        return subprocess.CompletedProcess([], self.process.exitcode, out, err)


def python(*arguments: object, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """What becomes of ``python *arguments``."""
    with Started(*arguments, cwd=cwd) as process:
        return process.end(timeout)


def _run(words: list[str], cwd: str, environment: dict[str, str], files: list[Path]) -> None:
    """What the fork does."""
    for stream, place in enumerate((os.devnull, *files)):
        opened = os.open(place, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    program = words[0] == "-c"
    sys.argv = ["-c", *words[2:]] if program else words
    sys.path.insert(0, "" if program else str(Path(words[0]).parent))
    if program:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        runpy.run_path(words[0], run_name="__main__")
