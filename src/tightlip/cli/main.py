"""Parsing and errors: a mistake of the user is one sentence on stderr and exit code 2, never a traceback."""

import contextlib
import io
import itertools
import operator
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import TightlipError
from ..interruption import listen
from .bench import Bench
from .certify import Certify
from .experiment import List, Run
from .report import Report
from .train import Train

_Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Certify, tyro.conf.subcommand("certify")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)
_NAMES = ("train", "certify", "report", "list", "run", "bench")


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
        command = _parse(arguments)
        sys.stdout.write(command() + "\n")
    except (TightlipError, OSError, _ParseError) as error:
        sys.stderr.write(f"tightlip: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"tightlip: interrupted; {_advice(command, began)}\n")
        return 130
    return 0


def _advice(command: Callable[[], str] | None, began: float) -> str:
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


class _ParseError(Exception):
    """What the parser could not make sense of."""


def _parse(arguments: Sequence[str]) -> Callable[[], str]:
    """The command meant; the parser's framed message becomes one sentence."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(  # type: ignore[no-any-return]
                _Command,  # type: ignore[arg-type]
                prog="tightlip",
                description="Networks whose Lipschitz constant is proven: train, certify, look. Also: --version.",
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if not end.code:
            raise
    lines = [line.strip(" │|╰╯─-") for line in box.getvalue().splitlines()[1:]]  # below the title; rules become empty
    message = " ".join(itertools.takewhile(bool, itertools.dropwhile(operator.not_, lines)))
    asked = " ".join(["tightlip", *(word for word in arguments[:1] if word in _NAMES)])
    raise _ParseError(f"{message or 'these options make no sense'}: see {asked} --help")
