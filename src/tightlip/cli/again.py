"""The command to type, word for word, to go on after an interruption."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence

from ..interruption import MODULE, NAMES


def again(arguments: Sequence[str], name: str | None = None) -> str:
    """The command line again; with the ``name`` of a run, so that it resumes that one.

    >>> again(["train", "--epochs", "9", "--name=a"], "a b").partition(" ")[2]
    "train --epochs 9 --resume --name 'a b'"
    """
    words = list(arguments) if name is None else [*_without_name(arguments), "--resume", "--name", name]
    return shlex.join([*_program(), *words])


def _without_name(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for word in rest:
        if word == "--name":
            next(rest, None)
        elif word != "--resume" and not word.startswith("--name="):
            yield word


def _program() -> list[str]:
    """How the command was called: in a word, if that finds it."""
    called = sys.argv[0] if getattr(sys, "argv", None) else ""
    if called == os.path.join(os.path.dirname(os.path.dirname(__file__)), "__main__.py"):
        return [_python(), *MODULE]
    if os.path.basename(called) not in NAMES:
        return [NAMES[0]]
    found = shutil.which(NAMES[0])
    return [NAMES[0] if found and os.path.realpath(found) == os.path.realpath(called) else called]


def _python() -> str:
    """This Python: in a word, if that finds it."""
    found = shutil.which("python")
    return "python" if found and os.path.realpath(found) == os.path.realpath(sys.executable) else sys.executable
