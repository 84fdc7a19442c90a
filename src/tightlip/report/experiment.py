"""The page of one experiment or of several: for each a table over its cells, their curves and their surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightlip.atomic import replacing
from tightlip.errors import TightlipError
from tightlip.records import Definition
from tightlip.report.cells import Group, Row
from tightlip.report.drawings import DRAWINGS, Kind
from tightlip.report.page import environment
from tightlip.report.pivot import Pivot, pivot
from tightlip.report.rows import columns, definition, presets, read_groups, shared, truth
from tightlip.report.script import script


@dataclass(frozen=True)
class Section:
    """An experiment and what is drawn of it; ``id`` begins the ids of all that it shows."""

    id: str
    groups: Sequence[Group]
    drawings: Sequence[tuple[Kind, Sequence[Any]]]
    pivot: Pivot | None

    @property
    def rows(self) -> list[Row]:
        """All rows of all cells."""
        return [row for group in self.groups for row in group.rows]

    @property
    def axes(self) -> list[str]:
        """What tells the cells apart."""
        return columns(self.groups)[0]

    @property
    def metrics(self) -> list[str]:
        """What is measured."""
        return columns(self.groups)[1]

    @property
    def words(self) -> Definition:
        """What the experiment and its names mean."""
        return definition(self.groups)

    @property
    def shared(self) -> dict[str, str]:
        """The options that are the same in all rows."""
        return shared(self.groups)

    @property
    def truth(self) -> dict[str, str]:
        """Metrics whose true value is known."""
        return truth(self.groups)

    @property
    def presets(self) -> list[str]:
        """The presets that the rows were made with."""
        return presets(self.groups)

    @property
    def seconds(self) -> float:
        """How long all rows took."""
        return sum(row.record.seconds["total"] for row in self.rows)

    @property
    def commits(self) -> list[str]:
        """The commits that the rows were made at."""
        return sorted({row.commit for row in self.rows})

    @property
    def installed(self) -> bool:
        """Whether all rows are of an installed package, which has a version and no commit."""
        return all(commit.endswith(", installed") for commit in self.commits)

    @property
    def machines(self) -> list[str]:
        """The machines that the rows were made on."""
        return sorted({f"{row.record.machine} ({row.record.device})" for row in self.rows})

    @property
    def dirty(self) -> bool:
        """Whether a row was made with uncommitted changes."""
        return any(row.record.dirty for row in self.rows)


def render_experiments(folders: Sequence[Path]) -> str:
    """One self-contained HTML page of the rows in each folder, in this order; the same rows give the same text.

    Raises:
        TightlipError: if no folder is given; see also `read_groups`.
    """
    if not folders:
        raise TightlipError("a report needs at least one folder of rows: name what 'tightlip run' wrote")
    sections = [_section(Path(folder), f"experiment-{place}") for place, folder in enumerate(folders, 1)]
    turning = any(kind.turns for section in sections for kind, _ in section.drawings)
    page = environment().get_template("experiments.html")
    return page.render(sections=sections, script=script("surface.js") if turning else None)


def write_experiments(folders: Sequence[Path], page: Path) -> None:
    """Render the page and put it at ``page``, whole or not at all."""
    text = render_experiments(folders)
    with replacing(Path(page)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _section(folder: Path, name: str) -> Section:
    groups = read_groups(folder)
    drawn = [(kind, kind.draw(groups, definition(groups).curves, name)) for kind in DRAWINGS.values()]
    return Section(id=name, groups=groups, drawings=[pair for pair in drawn if pair[1]], pivot=pivot(groups))
