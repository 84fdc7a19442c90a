"""How far sweeps go that try many of one kind: `make test` takes some of each, `make sweeps` all of them."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

EVERYTHING = "SWEEPS" in os.environ


thorough = pytest.mark.skipif(not EVERYTHING, reason="a part of `make sweeps`: it takes 20 s or more")
"""For a test of which others see the essence."""


def some(few: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """A few, which are all that differ in kind, and in `make sweeps` the others, too."""
    return [*few, *(others if EVERYTHING else ())]


def seeds(few: int, all_of_them: int) -> range:
    """The first seeds of a family."""
    return range(all_of_them if EVERYTHING else few)
