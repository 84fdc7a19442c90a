"""How long a search may take, and the exception that ends it."""

import time
from typing import Any

from ..arguments import number


class TimeUp(Exception):  # noqa: N818  no error
    """The clock has run out."""


class Clock:
    """Seconds since it was made, a limit, and what of it is set aside for the last proof."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.began, self.limit, self.aside = time.perf_counter(), limit, 0.0

    def elapsed(self) -> float:
        """Seconds."""
        return time.perf_counter() - self.began

    def left(self) -> float:
        """Seconds until what is set aside is all that is left."""
        return self.limit - self.aside - self.elapsed()

    def over(self) -> bool:
        """Whether only what is set aside is left."""
        return self.left() <= 0

    def affords_proof(self) -> bool:
        """Whether what was set aside is left, or nearly."""
        return self.elapsed() + self.aside <= 1.1 * self.limit

    def check(self) -> None:
        """Raise if only what is set aside is left."""
        if self.over():
            raise TimeUp


def started(seconds: Any) -> Clock:
    """A clock that allows so many seconds from now on; None: any number.

    Raises:
        TightlipError: for anything else, or fewer than 0.
    """
    return Clock() if seconds is None else Clock(number("seconds", seconds, least=0))
