"""`tightlip report RUN…`: the page of one run, or several side by side."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..report import write


@dataclass(frozen=True)
class Report:
    """Make one self-contained page from the JSON of one or more run folders."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, e.g. runs/first runs/second."""
    output: Path | None = None
    """The page to write (default: report.html in the only run's folder, else ./report.html)."""

    def __call__(self) -> str:
        """Run; where the page is."""
        page = self.output or (self.runs[0] / "report.html" if len(self.runs) == 1 else Path("report.html"))
        write(self.runs, page)
        return f"page  {page}"
