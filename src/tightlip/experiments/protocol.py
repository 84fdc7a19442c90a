"""How an experiment is described: a grid of cells, and presets that say how large they are.

An experiment is a module of this folder with five names:

    Config    a frozen dataclass: all that determines a cell's numbers, except for the seed
    GRID      the fields that span the table, each with its values
    SMOKE     a `Preset` that takes seconds
    PAPER     a `Preset` with the full sizes
    run       (config, seed) -> `Outcome`

and up to three that tell a stranger what is seen (so do the strings below the fields of Config):

    METRICS      each metric: a `Metric`, or its words alone
    CURVES       each column of the curve in words
    TRUE_CURVES  columns of the curve whose true values are known, as functions of the first column
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..choices import chosen


@dataclass(frozen=True)
class Preset:
    """What a preset changes: fields that all cells share, how many seeds, and other values for axes of the grid.

    ``name`` is what its rows say they were made with; `named` gives it.
    """

    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a cell leaves: numbers by name, what is drawn of it, and files.

    ``drawings`` are by their kind (``report.drawings`` has them all): "curve", columns of equal length; "surface", an
    object of "x", "y" and "z", a list for each x of a number for each y; "images", a grid of them with headings
    (`report.images`). ``data`` names what it was computed from.
    ``write``, where there is one, puts files into a folder of the cell's own.
    """

    metrics: Mapping[str, Any]
    drawings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=lambda: {"name": "synthetic", "sha256": None})
    write: Callable[[Path], object] | None = None


@runtime_checkable
class Experiment(Protocol):
    """What a module must hold to be one (see above); its docstring's first line is what `tightlip list` shows."""

    __name__: str
    __doc__: str | None
    Config: type
    GRID: Mapping[str, Sequence[Any]]
    SMOKE: Preset
    PAPER: Preset

    def run(self, config: Any, seed: int) -> Outcome:
        """One cell, computed."""
        ...


def named(experiment: Experiment, name: str) -> Preset:
    """The preset of an experiment that is called smoke or paper, with its name.

    Raises:
        TightlipError: for any other name.
    """
    return replace(chosen("preset", name, {"smoke": experiment.SMOKE, "paper": experiment.PAPER}), name=name)


def preset_name(experiment: Experiment, preset: Preset) -> str:
    """A preset's own name, else that of the experiment's preset that it is, or alone is equal to."""
    held = {"paper": experiment.PAPER, "smoke": experiment.SMOKE}
    same = [name for name, other in held.items() if other is preset]
    equal = [name for name, other in held.items() if other == preset]
    return preset.name or (same + equal * (len(equal) == 1) + ["other"])[0]
