"""The examples are the manual: each runs as it stands, and each is short."""

from pathlib import Path

import pytest
from processes import python

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
ABSENT = """
import importlib.util
import runpy
import sys

importlib.util.find_spec = lambda name, package=None: None  # no package is installed
for example in sys.argv[1:]:
    try:
        runpy.run_path(example)
    except SystemExit as end:
        assert not end.code
"""


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_is_short(example, tmp_path):
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 60
    done = python(example, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_its_package_an_example_says_so_in_one_sentence_and_stops():
    optional = [path for path in EXAMPLES if "skipped: this example needs" in path.read_text(encoding="utf-8")]
    done = python("-c", ABSENT, *optional)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(optional) > 5
    assert all("pip install" in line and line.startswith("skipped: this example needs") for line in said)
