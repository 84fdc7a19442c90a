"""The fixtures of the convention suite; `cells` says what a cell is and what the suite is for."""

from collections.abc import Iterator

import pytest
from conventions.cells import cells
from conventions.members import seeded
from jaxtyping import config as jaxtyping


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cells(...): which cells a convention is tried in; see conventions/cells.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("cells")
        chosen = cells(**(marker.kwargs if marker else {}), test=metafunc.function.__name__)
        metafunc.parametrize("cell", list(chosen), ids=str)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    seeded(0)


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Annotations are not checked, as in a user's process: what is passed by mistake reaches the library itself."""
    before = jaxtyping.jaxtyping_disable
    jaxtyping.update("jaxtyping_disable", True)
    yield
    jaxtyping.update("jaxtyping_disable", before)
