"""The package is what it says: one version in all places, and files that make both distributions complete."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import tightlip

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_the_same_in_all_places():
    version = PROJECT["version"]
    assert tightlip.__version__ == version
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == version
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert re.fullmatch(rf"{re.escape(version)} — (unreleased|\d{{4}}-\d\d-\d\d)", heading)


def test_the_command_has_the_name_of_the_package():
    commands = {PROJECT["name"]: "tightlip.cli:main", "tightlip-check": "tightlip_check:main"}
    assert PROJECT["scripts"] == commands  # without the first `pipx run tightlip` would find none


def test_the_first_page_of_the_manual_names_every_extra_for_users():
    told = set(re.findall(r"^\| `tightlip\[(\w+)\]` \|", (ROOT / "docs" / "index.md").read_text("utf-8"), re.MULTILINE))
    assert told == set(PROJECT["optional-dependencies"]) - {"test", "lint", "dev"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Both, as hatchling builds them."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(distributions):
    names = set(zipfile.ZipFile(distributions[1]).namelist())
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in (source / "tightlip").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name} | {"tightlip_check.py"}
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {"tightlip/py.typed", "tightlip/data/mnist5k.npz", "tightlip/data/mnist5k.LICENSE.txt"} <= names


def test_the_source_distribution_builds_the_manual_and_runs_the_tests(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"mkdocs.yml", "docs/index.md", "tests/conftest.py", "constraints.txt", "Makefile", "README.md", "LICENSE"}
    assert needed <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "site/", "dist/"))]
