"""The folder of a synthetic run, and the way to make more of them."""

import importlib.util
from pathlib import Path

import pytest
from driving import driven

# Tests are imported by file (importlib mode), so a neighbor that holds no tests is loaded by its path.
_SPEC = importlib.util.spec_from_file_location("synthetic_runs", Path(__file__).with_name("synthetic.py"))
_SYNTHETIC = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SYNTHETIC)


@pytest.fixture(scope="session")
def synthetic():
    return _SYNTHETIC


@pytest.fixture
def folder(synthetic, tmp_path):
    return synthetic.write_run(tmp_path / "run")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """One browser for the pages of a file of tests, none of which it complains of."""
    with driven(tmp_path_factory.mktemp("driven")) as tab:
        yield tab
        assert tab.said == []


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The page of one synthetic run, rendered once."""
    from tightlip.report import render

    return render([_SYNTHETIC.write_run(tmp_path_factory.mktemp("once") / "run")])


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """The page of the same synthetic run twice, rendered once."""
    from tightlip.report import render

    return render([_SYNTHETIC.write_run(tmp_path_factory.mktemp("twice") / "run")] * 2)
