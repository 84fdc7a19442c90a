"""What a command ends with: a mistake of the user is one sentence on stderr and exit code 2, never a traceback."""

import sys
from collections.abc import Sequence
from importlib import metadata

from ..errors import TightlipError
from ..interruption import Stopped, Terminated, listening
from .again import again
from .commands import COMMANDS
from .parsing import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: the process's); the exit code.

    0 is success, 2 a mistake that a sentence on stderr explains, 130 an interruption and 143 a SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        sys.stdout.write(f"tightlip {metadata.version('tightlip')}\n")
        return 0
    commands = COMMANDS.of_task(arguments)
    commands.get(arguments[0] if arguments else "")  # imported before anyone listens: there is nothing to tell yet
    try:
        with listening():
            sys.stdout.write(parse(arguments, commands)() + "\n")
    except (TightlipError, OSError) as error:
        sys.stderr.write(f"tightlip: {error}\n")
        return 2
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated) or isinstance(stop.__cause__, Terminated)
        sys.stderr.write(f"tightlip: {'terminated' if terminated else 'interrupted'}; {_advice(arguments, stop)}\n")
        return 143 if terminated else 130
    return 0


def _advice(arguments: Sequence[str], stop: KeyboardInterrupt) -> str:
    """What an interrupted command has kept, and how to go on."""
    if arguments[:1] in (["run"], ["tune"]):
        return f"complete rows are kept: give the same command again to go on, {again(arguments)}"
    return f"continue with: {again(arguments, stop.kept)}" if isinstance(stop, Stopped) else "nothing was kept"
