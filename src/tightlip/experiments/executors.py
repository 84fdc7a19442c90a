"""Where cells are computed: here, or in processes of their own. Another way is one more function like these."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection

import torch

from ..errors import TightlipError
from .cells import Cell

Attempt = Callable[[Cell], str | None]
"""Computes a cell and writes its row; why that failed, or None. It must pickle."""

Outcomes = Generator[tuple[Cell, str | None], None, None]
"""Cells as they end, each with the reason why it failed, or None."""

Executor = Callable[[Attempt, Sequence[Cell]], Outcomes]
"""Attempts every cell, in any order; if it is closed or interrupted, nothing goes on."""


def executor(jobs: int) -> Executor:
    """What computes that many cells at once."""
    return here if jobs == 1 else partial(processes, jobs)


def here(attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    """One after the other, in this process."""
    for cell in missing:
        yield cell, attempt(cell)


def processes(jobs: int, attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    """In ``jobs`` processes, which leave when a pipe closes: as this one ends, in whatever way, or is interrupted."""
    spawn = multiprocessing.get_context("spawn")  # forked processes hang in OpenMP
    theirs, ours = spawn.Pipe(duplex=False)
    options = (max(1, torch.get_num_threads() // jobs), theirs)
    with theirs, ours, ProcessPoolExecutor(jobs, spawn, _begin, options) as pool:
        try:
            with _uninterrupted():
                futures = {pool.submit(attempt, cell): cell for cell in missing}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise TightlipError(
                "a process was killed, perhaps for want of memory; complete rows are kept: run again with fewer jobs"
            ) from error
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
