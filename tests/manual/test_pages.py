"""What the manual's pages say of names is true, and each page has its place."""

import importlib
import re
from pathlib import Path

import pytest

import tightlip

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = re.compile(r"(\S+\.md)$", re.MULTILINE)


def meaning(path):
    """What a dotted name after 'tightlip.' means."""
    thing, name = tightlip, "tightlip"
    for part in path.split("."):
        name = f"{name}.{part}"
        thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(name)
    return thing


@pytest.mark.parametrize("page", ["migration.md", "peers.md", "choosing.md", "guides/convert.md"])
def test_names_in_tables_are_names_of_the_library(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for code in re.findall(r"`([^`\n]+)`", text):
        for path in re.findall(r"\btightlip\.([A-Za-z_][\w.]*\w)", code):
            assert meaning(path) is not None


def test_a_wrong_name_is_caught():
    with pytest.raises(ModuleNotFoundError, match="SpectralLinear"):
        meaning("SpectralLinear")


def test_every_page_has_its_place_in_the_navigation():
    nav = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    told = set(FOLDER.findall(nav))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages - told == set()
    assert {page for page in told - pages if not page.startswith("project/")} == {"examples.md"}  # made by hooks
