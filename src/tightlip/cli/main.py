"""What a command ends with: a mistake of the user is one sentence on stderr and exit code 2, never a traceback."""

import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ..errors import TightlipError
from ..interruption import listen
from .bench import Bench
from .certify import Certify
from .experiment import List, Run
from .parsing import Command, parse
from .report import Report
from .train import Train

COMMANDS: dict[str, type] = {
    "train": Train,
    "certify": Certify,
    "report": Report,
    "list": List,
    "run": Run,
    "bench": Bench,
}
"""Each a dataclass whose fields are its flags, and which runs when called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: the process's); the exit code.

    0 is success, 2 a mistake that a sentence on stderr explains, 130 an interruption.
    """
    command, began = None, time.time()
    try:
        listen()
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        if arguments in (["--version"], ["-V"]):
            sys.stdout.write(f"tightlip {metadata.version('tightlip')}\n")
            return 0
        command = parse(arguments, COMMANDS)
        began = time.time()
        sys.stdout.write(command() + "\n")
    except (TightlipError, OSError) as error:
        sys.stderr.write(f"tightlip: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"tightlip: interrupted; {_advice(command, began)}\n")
        return 130
    return 0


def _advice(command: Command | None, began: float) -> str:
    """What an interrupted command has kept, and how to go on."""
    if isinstance(command, Run):
        return "complete rows are kept: give the same command again to go on"
    kept = _folder(command, began) if isinstance(command, Train) else None
    return "nothing was kept" if kept is None else f"continue with the same options and --resume --name {kept.name}"


def _folder(command: Train, began: float) -> Path | None:
    """The folder of an interrupted run, if it has left one: that of its --name, else the newest made meanwhile."""
    if command.name is not None:
        folder = command.runs / command.name
        return folder if folder.is_dir() else None
    made = [path.parent for path in command.runs.glob("*/config.json") if path.stat().st_mtime > began - 1]
    return max(made, key=lambda path: path.stat().st_mtime, default=None)
