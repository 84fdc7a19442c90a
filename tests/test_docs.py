"""The documentation is true: its code runs, its links lead somewhere, and every public name is explained."""

import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(p for d in ("docs", "benchmarks", "results") for p in (ROOT / d).rglob("*.md"))])
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?[^)]*\)")


def blocks(text: str) -> list[tuple[int, str]]:
    """The (line, code) of each block fenced as ```python; ```python no-run is not run."""
    found = []
    for match in FENCE.finditer(text):
        if match[1].split() == ["python"]:
            found.append((text.count("\n", 0, match.start()) + 1, match[2]))
    return found


def dangling(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    links = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    relative = [link for link in links if not re.match(r"[a-z][a-z0-9+.-]*:|#", link)]
    return [link for link in relative if not (page.parent / link.partition("#")[0]).exists()]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


RUNNABLE = [p for p in PAGES if (p.name == "README.md" or ROOT / "docs" in p.parents) and blocks(p.read_text("utf-8"))]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)  # a page may write files; not into the tree
    namespace = {"__name__": "__page__"}
    for line, code in blocks(page.read_text(encoding="utf-8")):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    assert dangling(page) == []


def test_the_readme_gives_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_every_public_name_is_explained():
    import tightlip

    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert tightlip.__all__
    for name in tightlip.__all__:
        thing = getattr(tightlip, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
            assert own and own.strip(), f"tightlip.{name} has no docstring"
            assert not own.startswith(f"{name}("), f"tightlip.{name} has only the docstring that dataclass makes"
        assert re.search(rf"`(tightlip\.)?{re.escape(name)}\b", api), f"docs/api.md does not name `{name}`"


def test_a_false_page_is_caught(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[here](page.md) [part](page.md#x) [web](https://example.org) ![gone](gone.png)\n"
        "```python\n1 / 0\n```\n```python no-run\nnever()\n```\n```sh\n[x](y)\n```\n"
    )
    assert dangling(page) == ["gone.png"]
    assert blocks(page.read_text()) == [(2, "1 / 0\n")]
