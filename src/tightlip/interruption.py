"""Ctrl-C while the command is still being imported ends it quietly: there is nothing yet to keep or to tell.

The package imports this first.
"""

import os
import signal
import sys
import threading

_NAMES = ("tightlip", "tightlip.exe", "tightlip-script.py")


def quiet_start() -> None:
    """In a process that runs the command ``tightlip``: from now on, Ctrl-C is exit code 130 without a traceback.

    Other programs that import the library, and handlers of their own, are left alone.
    """
    called = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    ours = called in _NAMES and threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def listen() -> None:
    """From now on, Ctrl-C is a `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os._exit(130)


quiet_start()
