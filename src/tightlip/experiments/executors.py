"""Where cells are computed: here, or in processes of their own. Another way is one more function like these.

A process that the system kills takes the others of its pool along; the cells that have no row yet are given to a new
pool. joblib would add nothing: its pool gives up where a process is killed, and does not end with this process.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection

import torch

from ..errors import TightlipError
from .cells import Cell

Attempt = Callable[[Cell], str | None]
"""Computes a cell and writes its row; why that failed, or None. It must pickle."""

Outcomes = Generator[tuple[Cell, str | None], None, None]
"""Cells as they end, each with the reason why it failed, or None."""

Executor = Callable[[int, Attempt, Sequence[Cell]], Outcomes]
"""Attempts every cell, so many at once, in any order; if it is closed or interrupted, nothing goes on."""


LIVES = 3
"""How often a cell may lose its process before it is given up."""


def here(attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    """One after the other, in this process."""
    for cell in missing:
        yield cell, attempt(cell)


def processes(jobs: int, attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    """In ``jobs`` processes, which leave when a pipe closes: as this one ends, in whatever way, or is interrupted.

    Raises:
        TightlipError: where processes are killed `LIVES` times in a row without a cell having ended in between.
    """
    left, lives = list(missing), LIVES
    while left:
        try:
            with closing(_pool(jobs, attempt, tuple(left))) as outcomes:
                for cell, reason in outcomes:
                    left.remove(cell)
                    lives = LIVES
                    yield cell, reason
        except BrokenProcessPool as error:
            lives -= 1
            if not lives:
                raise TightlipError(
                    f"processes were killed {LIVES} times in a row, perhaps for want of memory; complete rows are "
                    "kept: run again with fewer jobs"
                ) from error


def _pool(jobs: int, attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    spawn = multiprocessing.get_context("spawn")  # forked processes hang in OpenMP
    theirs, ours = spawn.Pipe(duplex=False)
    options = (max(1, torch.get_num_threads() // jobs), theirs)
    with theirs, ours, ProcessPoolExecutor(jobs, spawn, _begin, options) as pool:
        try:
            with _uninterrupted():
                futures = {pool.submit(attempt, cell): cell for cell in missing}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            ours.close()
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started in here never hears Ctrl-C, not even while it imports; this process hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(threads: int, pipe: Connection) -> None:
    """What a process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(pipe,), daemon=True).start()
    torch.set_num_threads(threads)


def _leave_with(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)
