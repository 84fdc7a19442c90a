"""What every test may rely on: one thread per worker, a seed to ask for, and a cache that is not the user's.

Nothing of tightlip is imported here: jaxtyping's checks must be in place before the package is.
"""

import gc
import io
import os
import shutil
import signal
import tempfile

import annotations
import numpy as np
import pytest
import torch
from hypothesis import settings

annotations.install()
gc.disable()  # until tests begin: a million objects are made, and stay

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, and so all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # an xdist worker: it inherits the controller's environment
        os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
        torch.set_num_threads(1)
        return
    previous, cache = os.environ.get("TIGHTLIP_CACHE"), tempfile.mkdtemp(prefix="tightlip-test-cache-")
    os.environ["TIGHTLIP_CACHE"] = cache

    def restore() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        if previous is None:
            del os.environ["TIGHTLIP_CACHE"]
        else:
            os.environ["TIGHTLIP_CACHE"] = previous

    config.add_cleanup(restore)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what is there now is looked through no more
    gc.enable()


def pytest_runtest_setup() -> None:
    annotations.CALLS.clear()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # Triton complains of what it finds alive at the end


@pytest.fixture
def seed() -> int:
    """Seeds torch and numpy; returns the seed for whatever takes one."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for third-party code that still reads the global state
    return 0


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of pages are laid out and stay empty, where nothing is asked of them: tests/report looks at them."""
    from matplotlib.figure import Figure

    def empty(figure: Figure, file: io.StringIO, **_: object) -> None:
        file.write('<svg viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr(Figure, "savefig", empty)
