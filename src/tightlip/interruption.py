"""Ctrl-C and SIGTERM: while the command is still being imported there is nothing to keep or to tell, later there is.

The package imports this first.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

NAMES = ("tightlip", "tightlip.exe", "tightlip-script.py")
"""What the command is called."""

MODULE = ["-m", "tightlip"]
"""What Python is given to run it as a module."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: to end as after Ctrl-C."""


class Stopped(KeyboardInterrupt):
    """An interruption of a run that has left something to go on from: the folder called ``kept``."""

    def __init__(self, kept: str) -> None:
        super().__init__(kept)
        self.kept = kept


def quiet_start() -> None:
    """In a process that runs the command ``tightlip``: from now on, Ctrl-C is exit code 130 without a traceback.

    Other programs that import the library, and handlers of their own, are left alone.
    """
    called = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    words = getattr(sys, "orig_argv", [])
    as_module = called == "-m" and any(words[place : place + 2] == MODULE for place in range(len(words)))
    ours = (called in NAMES or as_module) and threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """In here Ctrl-C is a `KeyboardInterrupt` again and SIGTERM is `Terminated`, a second one the end.

    Handlers of other programs are left alone.
    """
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ours = free and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(*_: object) -> None:
    os._exit(130)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


quiet_start()
