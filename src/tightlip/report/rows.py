"""The rows of an experiment, read and checked: its cells in the order of the grid, and what they have in common."""

import math
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from textwrap import fill

from tightlip.decimals import round_nearest
from tightlip.errors import TightlipError
from tightlip.records import CellRow, Definition, Fields, read_fields
from tightlip.records.metric import FILE
from tightlip.report.cells import Group, Row
from tightlip.report.drawings import DRAWINGS
from tightlip.report.wording import scalar

NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def is_experiment(folder: Path) -> bool:
    """Whether a folder holds rows of an experiment rather than a run."""
    return folder.is_dir() and not (folder / "metrics.json").exists() and any(folder.glob("*seed*.json"))


def read_groups(folder: Path) -> list[Group]:
    """The rows in a folder, grouped over seeds, in the order of the grid, or where that is unknown of their values.

    A key holds the axes, and options that differ besides (two presets').

    Raises:
        TightlipError: if there is no row, a row is damaged, or rows are of several experiments.
    """
    rows = _read_rows(folder)
    axes = dict.fromkeys(axis for row in rows for axis in row.record.axes)
    options = dict.fromkeys(name for row in rows for name in row.config)
    varying = [name for name in options if len({row.config.get(name) for row in rows}) > 1]
    keys = list(axes | dict.fromkeys(varying))
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple((name, row.config.get(name, "")) for name in keys), []).append(row)
    ordered = [Group(key, tuple(sorted(members, key=lambda row: row.record.seed))) for key, members in groups.items()]
    return sorted(ordered, key=_rank)


def columns(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """The names of the axes and of the metrics as they occur, save that what was published follows what it is of."""
    axes = dict.fromkeys(name for group in groups for name, _ in group.key)
    names = dict.fromkeys(name for group in groups for row in group.rows for name in row.metrics)
    published = {name: definition(groups).of(name).published for name in names}
    pairs = {name: other for name, other in published.items() if other in names}
    metrics = [[name, pairs[name]] if name in pairs else [name] for name in names if name not in pairs.values()]
    return list(axes), [name for pair in metrics for name in pair if name is not None]


def shared(groups: Sequence[Group]) -> dict[str, str]:
    """The options that are the same in all rows and no axes."""
    axes, _ = columns(groups)
    return {name: value for name, value in groups[0].rows[0].config.items() if name not in axes}


def definition(groups: Sequence[Group]) -> Definition:
    """What the experiment says of itself, in its file or in its rows."""
    return reduce(Definition.with_words_of, (row.definition for group in groups for row in group.rows))


def truth(groups: Sequence[Group]) -> dict[str, str]:
    """Metrics whose true value is known."""
    known = {name: metric.truth for name, metric in definition(groups).metrics.items()}
    return {name: round_nearest(value) for name, value in known.items() if value is not None}


def presets(groups: Sequence[Group]) -> list[str]:
    """The names of the presets that the rows were made with, as far as they say."""
    return sorted({row.record.preset for group in groups for row in group.rows if row.record.preset})


def text_table(groups: Sequence[Group]) -> str:
    """The table for a terminal, columns aligned; the truth, where it is known, in the last line."""
    axes, metrics = columns(groups)
    lines = [[*axes, *metrics]]
    lines += [[dict(g.key).get(axis, "") for axis in axes] + [g.metric(name) for name in metrics] for g in groups]
    if known := truth(groups):
        lines += [[*["truth"][: len(axes)], *[""] * (len(axes) - 1), *(known.get(name, "") for name in metrics)]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(rows)


def text_key(groups: Sequence[Group]) -> str:
    """For a terminal: what is the same in all rows, and what each column means."""
    axes, metrics = columns(groups)
    words = definition(groups)
    same = ", ".join(f"{name} {value}" for name, value in shared(groups).items())
    lines = [f"preset: {' and '.join(presets(groups))}"] if presets(groups) else []
    lines += [f"the same in all rows: {same}"] if same else []
    lines += [f"{name}: {words.config[name]}" for name in axes if name in words.config]
    lines += [f"{name}: {words.of(name).words}" for name in metrics if words.of(name).words]
    return "\n".join(fill(line, 100, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _rank(group: Group) -> tuple[float, list[list[str | float]]]:
    """The place in the grid; then values by the numbers in them: few, few3, few15."""
    values = [NUMBER.split(value) for _, value in group.key]
    natural = [[float(part) if place % 2 else part for place, part in enumerate(parts)] for parts in values]
    places = [row.record.place for row in group.rows]
    return min(math.inf if place is None else place for place in places), natural


def _read_rows(folder: Path) -> list[Row]:
    """All rows of a folder, which must be of one experiment."""
    files = [read_fields(path) for path in sorted(Path(folder).glob("*seed*.json"))]
    if not files:
        raise TightlipError(f"{folder} holds no rows of an experiment: make them with 'tightlip run'")
    told = [Definition.read(folder / FILE)] if (folder / FILE).exists() else []
    names = sorted({fields.text("experiment") for fields in files} | {one.experiment for one in told})
    if len(names) > 1:
        raise TightlipError(f"{folder} mixes rows of {', '.join(names)}: keep each experiment in a folder of its own")
    return [_row(fields, told[0] if told else Definition(names[0])) for fields in files]


def _row(fields: Fields, told: Definition) -> Row:
    """One row; what it says of itself, in format 1, holds where the experiment's file does not."""
    record = CellRow.from_json(fields)
    old = fields.values["format"] == 1
    drawings = fields.inside("metrics" if old else "drawings") if record.drawings else fields
    drawn = {kind: known.read(drawings, kind) for kind, known in DRAWINGS.items() if kind in record.drawings}
    if len({len(column) for column in (*drawn.get("curve", {}).values(), *record.true_curves.values())}) > 1:
        fields.fail("true_curves", "columns as long as the curve's")
    return Row(
        record,
        Definition.from_json(fields).with_words_of(told) if old else told,
        {name: scalar(value) for name, value in record.config.items()},
        {name: math.nan if value is None else float(value) for name, value in record.metrics.items()},
        drawn,
    )
