"""The gallery: every experiment that docs/gallery.md names is drawn from its committed rows, by the report's own code.

Each gets the page that `tightlip report results/NAME` writes. The gallery shows some of its drawings, and a link.
"""

import re
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
GALLERY = "gallery.md"
SHOWN = re.compile(r"^<!-- drawings: (\w+)((?: \d+)+) -->$", re.MULTILINE)
"""An experiment, and which of its drawings, from 1 on, in the order of its page."""
FIGURE = re.compile(r'<figure class="panel">.*?</figure>', re.DOTALL)
COLORS = re.compile(r"--[a-z]+(?:-\d)?: #[0-9a-f]{3,8};")


@cache
def report(name: str) -> str:
    """The page of an experiment's rows."""
    from tightlip.report import render_experiments

    return render_experiments([ROOT / "results" / name])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for each experiment of the gallery, and the colors of its drawings."""
    text = files.get_file_from_path(GALLERY).content_string
    for name, _ in SHOWN.findall(text):
        files.append(File.generated(config, f"gallery/{name}.html", content=report(name)))
    style = (ROOT / "src" / "tightlip" / "report" / "style.css").read_text(encoding="utf-8")
    files.append(File.generated(config, "stylesheets/drawings.css", content=colors(style)))
    config.extra_css.append("stylesheets/drawings.css")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The drawings take their places."""
    if page.file.src_uri != GALLERY:
        return markdown
    return SHOWN.sub(lambda match: drawings(match[1], [int(place) for place in match[2].split()]), markdown)


def drawings(name: str, places: list[int]) -> str:
    """Some drawings of an experiment, as they stand on its page, and a link to all of it."""
    there = FIGURE.findall(report(name))
    figures = [re.sub(r"\n\s*", "\n", there[place - 1]).replace("h4>", "p>") for place in places]  # they head no part
    more = f'<p><a href="gallery/{name}.html">All of it, with its table</a></p>'
    return f'<div class="figures">\n{"".join(figures)}\n</div>\n{more}'


def colors(style: str) -> str:
    """The variables that drawings use: the report's, switched as the manual is."""
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    parts = {"default": light, "slate": dark.partition("* {")[0]}
    blocks = (
        f'[data-md-color-scheme="{scheme}"] {{ {" ".join(COLORS.findall(part))} }}' for scheme, part in parts.items()
    )
    return "\n".join([*blocks, ""])
