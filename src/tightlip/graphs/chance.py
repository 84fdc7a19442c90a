"""Random numbers and clocks in a forward: refused if they are used at all, for a rare branch may not show in a trace.

The states of torch's and NumPy's generators are compared before and after. Calls of Python's own generators, of the
machine's random bytes and of its clocks are seen as they happen (`sys.setprofile`), unless a library makes them. No
garbage is collected meanwhile: what others do then (`gc.callbacks`, some of which ask for the time) is no part of it.
"""

import _random
import contextlib
import datetime
import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy
import torch

from ..errors import TightlipError

_ASKED = {
    "time": {"time", "monotonic", "perf_counter", "process_time", "thread_time", "localtime", "gmtime"},
    "posix": {"urandom", "getrandom"},
    "nt": {"urandom"},
    "_uuid": {"generate_time_safe", "UuidCreate"},
}
"""Functions, by the module that defines them, whose answer is another at each call."""

_LIBRARIES = {"torch", "tightlip", "beartype", "jaxtyping"}
"""Who may draw for purposes of their own, such as checking some entry of a list."""


@contextlib.contextmanager
def refuse_chance() -> Iterator[None]:
    """Raise if what runs inside draws random numbers or asks for the time."""
    found: list[str] = []
    before, other, collects = _generators(), sys.getprofile(), gc.isenabled()

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and _is_chance(called) and not _by_library(frame):
            found.append(called.__name__)

    gc.disable()
    sys.setprofile(look)
    try:
        yield
    finally:
        if other is None or callable(other):
            sys.setprofile(other)
        else:  # cProfile's
            other.enable()
        if collects:
            gc.enable()
    if _generators() != before:
        found.append("a random generator")
    if found:
        raise TightlipError(f"it is random or depends on the time (it uses {found[0]}): make it the same at each call")


def _is_chance(called: Any) -> bool:
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if isinstance(owner, type):
        return issubclass(owner, datetime.date) and name in ("now", "today", "utcnow")
    if isinstance(owner, _random.Random):
        return True
    return name.removesuffix("_ns") in _ASKED.get(getattr(owner, "__name__", ""), ())


def _by_library(frame: FrameType | None) -> bool:
    """Whether the first one, outside of the standard library, that led to a call is a library's code."""
    while frame is not None and _top(frame) in sys.stdlib_module_names:
        frame = frame.f_back
    return frame is not None and (_top(frame) in _LIBRARIES or frame.f_code.co_filename.startswith("<@beartype"))


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _generators() -> list[Any]:
    """Where the generators are that all share."""
    numpys = numpy.random.mtrand._rand._bit_generator.state  # type: ignore[attr-defined]
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [str(numpys), *(state.tolist() for state in (torch.get_rng_state(), *cards))]
