"""`tightlip tune`: how much clean accuracy certified accuracy costs, and which setting to train with."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..decimals import bracketed, exact, floored, radius_words
from ..errors import TightlipError
from ..experiments import tuning
from ..experiments.classification_options import Config as Options
from ..experiments.classification_options import check
from ..experiments.front import on_front, points_at, write_fronts
from ..experiments.loading import loaded
from ..experiments.protocol import Preset
from ..experiments.rows import run_cells
from ..records import CellRow
from ..report import write_experiments
from ..robustness import wilson
from .options import Processor, writable

MARK = "←"
"""Beside what no other setting beats."""


@dataclass(frozen=True)
class Tune:
    """Train with several margins, draw clean against certified accuracy on validation data, and name the best."""

    config: Annotated[tuning.Config, tyro.conf.arg(name="")] = field(default_factory=tuning.Config)
    offsets: tuple[float, ...] | None = None
    """Values to try of offset, or for row_l1 and distances of a (default: 0.4, 1 and 2 times the offset that suits the
    first eps, or 0.75, 1 and 1.5 times the a)."""
    jobs: int = 1
    """Networks trained at once, each in a process of its own."""
    executor: Literal["processes", "ray"] = "processes"
    """Who trains them: processes of this machine, or a Ray cluster: that of RAY_ADDRESS, or one started here."""
    output: Path = Path("runs")
    """Rows and page go to a folder in this one, named after the data and the options."""
    machine: Annotated[Processor, tyro.conf.arg(name="")] = field(default_factory=Processor)

    def __call__(self) -> str:
        """Run; the table, where the page is, and the command that trains the best setting."""
        self.machine.prepare()
        axis, values = tuning.axis(self.config), self._values()
        radii = _radii(self.config)
        for value in values:
            check(tuning.options_of(self._setting(axis, value)))
        loaded(tuning.options_of(self.config))
        shared = asdict(replace(self.config, eps=radii))
        folder = writable(self.output / self._name(shared))
        rows = run_cells(tuning, Preset(shared, 1, {axis: values}, "tune"), folder, self.jobs, self.executor)  # type: ignore[arg-type]
        page = folder / "report.html"
        write_experiments([write_fronts(rows, radii, folder), folder], page)
        best = max(range(len(rows)), key=lambda place: points_at(rows, radii[0])[place][::-1])
        options = tuning.options_of(self._setting(axis, values[best]))
        told = f"best at {radius_words(radii[0])}, with {axis} {exact(values[best])}: {_command(options)}"
        return "\n\n".join(["\n".join(_table(axis, rows, radii)), f"page  {page.resolve()}", told])

    def _values(self) -> tuple[float, ...]:
        """What is tried, each once."""
        axis = tuning.axis(self.config)
        if getattr(self.config, axis) is not None:
            raise TightlipError(f"tune tries several values of {axis}: leave out --{axis}, and give them as --offsets")
        given = tuning.usual(self.config) if self.offsets is None else self.offsets
        values = tuple(dict.fromkeys(map(float, given)))
        if len(values) < 2:
            raise TightlipError(
                f"a front needs two settings: give --offsets several values, got {' '.join(map(exact, values))}"
            )
        return values

    def _setting(self, axis: str, value: float) -> tuning.Config:
        changed: dict[str, Any] = {axis: value}
        return replace(self.config, eps=_radii(self.config), **changed)

    def _name(self, shared: dict[str, Any]) -> str:
        """Of the folder: the data, the norm, and a hash of what all settings share."""
        digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]
        return f"tune-{Path(self.config.data).stem or 'data'}-l{self.config.norm}-{digest}"


def _radii(config: tuning.Config) -> tuple[float, ...]:
    """The radii, each once.

    Raises:
        TightlipError: for what is no radius.
    """
    radii = tuple(dict.fromkeys(tuning.radii(config)))
    if not all(0 <= eps <= 2**31 for eps in radii):
        raise TightlipError(f"--eps must be numbers ≥ 0, got {' '.join(map(exact, radii))}")
    return radii


def _table(axis: str, rows: Sequence[CellRow], radii: Sequence[float]) -> Iterator[str]:
    """A line for each setting: its clean accuracy, and what is certified at each radius."""
    inputs = rows[0].metrics["inputs"]
    marks = [on_front(points_at(rows, eps)) for eps in radii]
    lines = [[axis, "clean", *(f"certified at {radius_words(eps)}" for eps in radii)]]
    for place, row in enumerate(rows):
        certified = [row.metrics[tuning.named(eps)] for eps in radii]
        told = [_share(share, inputs) for share in (row.metrics["accuracy"], *certified)]
        told[1:] = [f"{words} {MARK if mark[place] else ''}" for words, mark in zip(told[1:], marks, strict=True)]
        lines.append([exact(row.config[axis]), *told])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    yield f"{inputs} validation inputs, 95% Wilson intervals; {MARK} no other setting beats it and its clean accuracy"


def _share(share: float, inputs: int) -> str:
    """An accuracy and what so many inputs tell of it."""
    return f"{floored(share)}% {bracketed(wilson(round(share * inputs), inputs))}"


def _command(options: Options) -> str:
    """What trains with these options, word for word; those that are as by default are left out."""
    words = ["tightlip", "train"]
    for option in fields(Options):
        value = getattr(options, option.name)
        if value != option.default:
            values = value if isinstance(value, tuple) else (value,)
            word = radius_words if option.name == "eps" else _word
            words += [f"--{option.name.replace('_', '-')}", *map(word, () if value is True else values)]
    return shlex.join(words)


def _word(value: Any) -> str:
    return exact(value) if isinstance(value, float) else str(value)
