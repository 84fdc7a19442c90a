"""Links that leave docs/ lead on: what they name is a page of the site, or a file in it.

Pages in docs/ read on the forge as they are, so they link to `../ARCHITECTURE.md`, `../examples`, `../results/x.json`.
Here such a link is turned to where the site has the same: files at the root become pages of the project, examples one
page, an experiment's folder its page in the gallery, and a row is copied.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
NEIGHBORS = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LOG.md", "SECURITY.md")
EXAMPLES = "examples.md"
HOMES = {f"project/{name.lower()}": name for name in NEIGHBORS} | {EXAMPLES: "examples/README.md"}
"""Where in the repository a page comes from that does not lie in docs/."""

FENCE = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The neighbors of docs/, the examples, and every row that a page links to."""
    for uri, source in HOMES.items():
        text = examples() if uri == EXAMPLES else (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    for uri in sorted(
        {place for page in files.documentation_pages() for place in rows(page.content_string, origin(page))}
    ):
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Every relative link to something outside of docs/, or from there, leads to its place in the site."""
    here, source = posixpath.dirname(page.file.src_uri), origin(page.file)

    def turned(match: re.Match[str]) -> str:
        place = in_site(target(source, match[2]), match[3])
        return match.group() if place is None else f"{match[1]}{posixpath.relpath(place, here or '.')}{match[3]}"

    return outside_of_code(markdown, lambda text: LINK.sub(turned, text))


def examples() -> str:
    """All examples on one page, each under its name."""
    parts = ["# Examples\n\nShort scripts; each ends in the property that it shows.\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        parts.append(f"## {path.name} {{ #{path.stem} }}\n\n```python\n{path.read_text(encoding='utf-8')}```\n")
    return "\n".join(parts)


def origin(file: File) -> str:
    """The path in the repository that a page's links start from."""
    return HOMES.get(file.src_uri, f"docs/{file.src_uri}")


def target(source: str, link: str) -> str:
    """The path in the repository that a page's link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def in_site(path: str, rest: str = ")") -> str | None:
    """The place in the site of a path in the repository, or None where it has none."""
    pages = {source: uri for uri, source in HOMES.items()}
    if path in pages:
        return pages[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "examples" or path.startswith("examples/"):
        return EXAMPLES
    if (ROOT / path / "experiment.json").is_file():
        return f"gallery/{posixpath.basename(path)}.html"
    return path if is_row(path) else None


def is_row(path: str) -> bool:
    """Whether a path is a committed row."""
    return path.startswith("results/") and path.endswith(".json") and (ROOT / path).is_file()


def rows(markdown: str, source: str) -> list[str]:
    """The committed rows that a page links to."""
    links = LINK.findall(FENCE.sub("", markdown))
    return [path for path in (target(source, link) for _, link, _ in links) if is_row(path)]


def outside_of_code(markdown: str, change) -> str:
    """The text with everything changed that is not a fenced block."""
    pieces, end = [], 0
    for match in FENCE.finditer(markdown):
        pieces += [change(markdown[end : match.start()]), match.group()]
        end = match.end()
    return "".join([*pieces, change(markdown[end:])])
