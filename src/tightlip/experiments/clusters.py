"""Cells on a Ray cluster: one that is started here and ends with the command, or the one that RAY_ADDRESS names.

Ray brings processes on other machines, and gives a cell whose process was killed to another one. The machines must
share the folder of the rows, since each cell writes its own there; that is also how a later run knows what is done.
"""

import importlib
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from ..errors import TightlipError, install
from .cells import Cell
from .executors import LIVES, Attempt, Outcomes

HANDED_ON = "TIGHTLIP_"
"""What the names of environment variables begin with that cells elsewhere see too."""


def on_ray(jobs: int, attempt: Attempt, missing: Sequence[Cell]) -> Outcomes:
    """At most ``jobs`` at once, each on a processor of its own.

    Raises:
        TightlipError: where Ray is not installed, or its cluster cannot be reached.
    """
    ray = _ray(jobs)
    task = ray.remote(num_cpus=1, max_retries=LIVES - 1)(_attempt_there)
    place = os.getcwd(), {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    waiting, running = list(missing), dict[Any, Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running[task.remote(attempt, cell, max(1, torch.get_num_threads() // jobs), *place)] = cell
            ended, _ = ray.wait(list(running))
            for each in ended:
                yield running.pop(each), _reason(ray, each)
    finally:
        ray.shutdown()


def _ray(jobs: int) -> Any:
    """Ray, connected to its cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise TightlipError(
            f"cells on Ray need Ray, which is not installed: {install('cluster')}, or leave out --executor"
        ) from error
    own = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": jobs, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TightlipError(f"no Ray cluster could be started or reached: {error}") from error
    return ray


def _attempt_there(attempt: Attempt, cell: Cell, threads: int, folder: str, environment: dict[str, str]) -> str | None:
    os.environ.update(environment)
    with suppress(OSError):  # another machine may not have it
        os.chdir(folder)
    torch.set_num_threads(threads)
    return attempt(cell)


def _reason(ray: Any, ended: Any) -> str | None:
    """Why a cell failed, or None."""
    try:
        return ray.get(ended)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:  # before it was attempted: its process cannot import what it needs
        return f"its process could not begin: {type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        killed = f"its process was killed {LIVES} times, perhaps for want of memory"
        return f"{killed} ({type(error).__name__}): run again with fewer jobs"
