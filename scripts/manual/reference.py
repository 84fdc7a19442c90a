"""The reference: docs/api.md is its index, and each of that page's sections gets a page of docstrings.

A section's names are those in the first cells of its tables, so a name is added to both by its one line there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

INDEX = Path(__file__).parents[2] / "docs" / "api.md"
PLACE = "reference/*"
"""What stands in the navigation where these pages come."""

SPAN = re.compile(r"`([\w.]+)((?:\([^`]*\))?)`")


@dataclass(frozen=True)
class Section:
    """A section of the index: its heading, and the full names that its tables explain."""

    title: str
    names: tuple[str, ...]

    @property
    def uri(self) -> str:
        """Where its page is."""
        words = re.sub(r"\W+", "-", self.title.removeprefix("tightlip.").lower())
        return f"reference/{words}.md"


def sections(text: str) -> list[Section]:
    """Those of the index that name anything."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        names = [
            full for row in _rows(part) for full, _ in spans(_first(row)) if not isinstance(resolve(full), ModuleType)
        ]
        found.append(Section(part.partition("\n")[0].replace("`", ""), tuple(names)))
    return [section for section in found if section.names]


def spans(cell: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The full name of each piece of code in a first cell: 'tightlip.transport.one(…)', 'another(…)'."""
    home = "tightlip"
    for match in SPAN.finditer(cell):
        name = match[1]
        if name.startswith("tightlip."):
            home = name.rpartition(".")[0]
        yield (name if name.startswith("tightlip.") else f"{home}.{name}"), match


def resolve(full: str) -> object:
    """What a name means."""
    import importlib

    thing: object = importlib.import_module("tightlip")
    path = "tightlip"
    for part in full.split(".")[1:]:
        path = f"{path}.{part}"
        thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(path)
    return thing


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The pages take their place in the navigation."""
    pages = [{section.title: section.uri} for section in sections(INDEX.read_text(encoding="utf-8"))]
    config.nav = _placed(config.nav, pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for each section."""
    for section in sections(INDEX.read_text(encoding="utf-8")):
        body = "\n\n".join(f"::: {name}" for name in section.names)
        files.append(File.generated(config, section.uri, content=f"# {section.title}\n\n{body}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """In the index, names lead to their docstrings."""
    if page.file.src_uri != INDEX.name:
        return markdown
    homes = {name: section.uri for section in sections(markdown) for name in section.names}
    return "\n".join(_linked(line, homes) if line.startswith("| `") else line for line in markdown.splitlines())


def _linked(row: str, homes: dict[str, str]) -> str:
    cell = _first(row)
    linked = cell
    for full, match in spans(cell):
        if full in homes:
            linked = linked.replace(match.group(), f"[{match.group()}]({homes[full]}#{full})", 1)
    return row.replace(cell, linked, 1)


def _rows(part: str) -> list[str]:
    return [line for line in part.splitlines() if line.startswith("| `")]


def _first(row: str) -> str:
    return re.split(r"(?<!\\)\|", row)[1]


def _placed(nav: list, pages: list) -> list:
    """The navigation with the pages where they belong."""
    made: list = []
    for entry in nav:
        if entry == PLACE:
            made.extend(pages)
        elif isinstance(entry, dict):
            made.append(
                {title: _placed(inner, pages) if isinstance(inner, list) else inner for title, inner in entry.items()}
            )
        else:
            made.append(entry)
    return made
