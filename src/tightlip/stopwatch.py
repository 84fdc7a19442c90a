"""Clocks that wait for their device, and steps timed round by round, so that a load on the machine hits all of them."""

import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch


def stopwatch(device: str) -> Callable[[], float]:
    """A clock that is read when ``device`` has done what it was given."""
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def read() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return read


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 0,
    slow: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, float]]:
    """Seconds of every step, round by round, after ``warm_up`` rounds that do not count.

    A step that took longer than ``slow`` times the first of ``steps``, in the second round and in the third, runs in
    every third round from there on.
    """
    rare = set(steps)
    for number in range(warm_up + rounds):
        runs = [name for name in steps if number < 3 or name not in rare or (number - warm_up) % 3 == 0]
        times = {name: _seconds(steps[name], clock) for name in runs}
        if number in (1, 2):
            rare &= {name for name in steps if times[name] > slow * times[next(iter(steps))]}
        if number >= warm_up:
            yield times


def _seconds(step: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    step()
    return clock() - began
