"""The rows of an experiment as the report sees them: read, checked, and put together over seeds."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import fill

from tightlip.decimals import bound_up, round_down, round_nearest
from tightlip.errors import TightlipError
from tightlip.report.fields import Fields, read_fields
from tightlip.report.surfaces import Surface, read_surface
from tightlip.report.wording import scalar, spoken

NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")

PROVEN = {"constant": bound_up, "bound": round_down}
"""Metrics that are bounds: shown rounded in the safe direction."""

Curve = dict[str, list[float]]
"""Columns of equal length: the first is drawn along x, each other one along y."""

Explanations = dict[str, dict[str, str]]
"""What each name of "config", "metrics" and "curves" means."""


@dataclass(frozen=True)
class Row:
    """One cell of an experiment: its options, which of them are axes, its seed, numbers, drawings, provenance.

    Rows of earlier versions lack the fields from ``about`` on.
    """

    experiment: str
    summary: str
    config: dict[str, str]
    axes: tuple[str, ...]
    seed: int
    metrics: dict[str, float]
    curve: Curve
    surface: Surface | None
    commit: str
    dirty: bool
    device: str
    machine: str
    seconds: float
    about: str
    preset: str
    place: float
    explanations: Explanations
    truth: dict[str, float]
    true_curves: Curve


@dataclass(frozen=True)
class Group:
    """The rows of one cell over its seeds."""

    key: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What a person would call the cell: 'activation relu, depth 3'."""
        return ", ".join(f"{spoken(name)} {value}" for name, value in self.key) or "the only cell"

    def values(self, name: str) -> list[float]:
        """The finite values of a metric, seed by seed."""
        return [row.metrics[name] for row in self.rows if math.isfinite(row.metrics.get(name, math.nan))]

    def metric(self, name: str) -> str:
        """The mean over seeds and, of several, the range: '0.935 (0.934–0.937)'; a dash where no row has it."""
        values = self.values(name)
        if not values:
            return "–"
        rounded = PROVEN.get(name, round_nearest)
        low, high = rounded(min(values), 4), rounded(max(values), 4)
        notes = [f"{low}–{high}"] if low != high else []
        notes += [f"{len(values)} of {len(self.rows)} seeds"] if len(values) < len(self.rows) else []
        return rounded(fmean(values), 4) + (f" ({', '.join(notes)})" if notes else "")


def is_experiment(folder: Path) -> bool:
    """Whether a folder holds rows of an experiment rather than a run."""
    return folder.is_dir() and not (folder / "metrics.json").exists() and any(folder.glob("*seed*.json"))


def read_groups(folder: Path) -> list[Group]:
    """The rows in a folder, grouped over seeds, in the order of the grid, or where that is unknown of their values.

    A key holds the axes, and options that differ besides (two presets').

    Raises:
        TightlipError: if there is no row, a row is damaged, or rows are of several experiments.
    """
    rows = [_row(read_fields(path)) for path in sorted(Path(folder).glob("*seed*.json"))]
    if not rows:
        raise TightlipError(f"{folder} holds no rows of an experiment: make them with 'tightlip run'")
    if len({row.experiment for row in rows}) > 1:
        names = ", ".join(sorted({row.experiment for row in rows}))
        raise TightlipError(f"{folder} mixes rows of {names}: keep each experiment in a folder of its own")
    axes = dict.fromkeys(axis for row in rows for axis in row.axes)
    options = dict.fromkeys(name for row in rows for name in row.config)
    varying = [name for name in options if len({row.config.get(name) for row in rows}) > 1]
    keys = list(axes | dict.fromkeys(varying))
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple((name, row.config.get(name, "")) for name in keys), []).append(row)
    ordered = [Group(key, tuple(sorted(members, key=lambda row: row.seed))) for key, members in groups.items()]
    return sorted(ordered, key=_rank)


def columns(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """The names of the axes and of the metrics as they occur, save that what was published follows the objective."""
    axes = dict.fromkeys(name for group in groups for name, _ in group.key)
    metrics = list(dict.fromkeys(name for group in groups for row in group.rows for name in row.metrics))
    if {"objective", "published"} <= set(metrics):
        metrics.remove("published")
        metrics.insert(metrics.index("objective") + 1, "published")
    return list(axes), metrics


def shared(groups: Sequence[Group]) -> dict[str, str]:
    """The options that are the same in all rows and no axes."""
    axes, _ = columns(groups)
    return {name: value for name, value in groups[0].rows[0].config.items() if name not in axes}


def explanations(groups: Sequence[Group]) -> Explanations:
    """What the rows together explain."""
    rows = [row for group in groups for row in group.rows]
    parts = ("config", "metrics", "curves")
    return {part: {k: v for row in rows for k, v in row.explanations.get(part, {}).items()} for part in parts}


def truth(groups: Sequence[Group]) -> dict[str, str]:
    """Metrics whose true value is known."""
    known = {name: value for group in groups for row in group.rows for name, value in row.truth.items()}
    return {name: round_nearest(value) for name, value in known.items()}


def presets(groups: Sequence[Group]) -> list[str]:
    """The names of the presets that the rows were made with, as far as they say."""
    return sorted({row.preset for group in groups for row in group.rows if row.preset})


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
    words = explanations(groups)
    same = ", ".join(f"{name} {value}" for name, value in shared(groups).items())
    lines = [f"preset: {' and '.join(presets(groups))}"] if presets(groups) else []
    lines += [f"the same in all rows: {same}"] if same else []
    lines += [f"{name}: {words['config'][name]}" for name in axes if name in words["config"]]
    lines += [f"{name}: {words['metrics'][name]}" for name in metrics if name in words["metrics"]]
    return "\n".join(fill(line, 100, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _rank(group: Group) -> tuple[float, list[list[str | float]]]:
    """The place in the grid; then values by the numbers in them: few, few3, few15."""
    values = [NUMBER.split(value) for _, value in group.key]
    natural = [[float(part) if place % 2 else part for place, part in enumerate(parts)] for parts in values]
    return min(row.place for row in group.rows), natural


def _row(fields: Fields) -> Row:
    config = fields.inside("config")
    metrics = fields.inside("metrics")
    axes = fields.raw("axes")
    numbers = {
        name: metrics.number(name) if not isinstance(value, bool) else float(value)
        for name, value in metrics.values.items()
        if name not in ("curve", "surface")
    }
    curve: Curve = {}
    if "curve" in metrics.values:
        curve = _columns(metrics, "curve")
    true_curves = _columns(fields, "true_curves") if "true_curves" in fields.values else {}
    if len({len(column) for column in (*curve.values(), *true_curves.values())}) > 1:
        fields.fail("true_curves", "columns as long as the curve's")
    return Row(
        experiment=fields.text("experiment"),
        summary=fields.text("summary"),
        config={name: scalar(value) for name, value in config.values.items()},
        axes=tuple(str(axis) for axis in axes) if isinstance(axes, list) else fields.fail("axes", "a list of options"),
        seed=fields.integer("seed"),
        metrics=numbers,
        curve=curve,
        surface=read_surface(metrics.inside("surface")) if "surface" in metrics.values else None,
        commit=_commit(fields),
        dirty=bool(fields.raw("dirty")),
        device=fields.text("device"),
        machine=fields.text("machine"),
        seconds=fields.inside("seconds").number("total"),
        about=fields.text("about") if "about" in fields.values else "",
        preset=fields.text("preset") if "preset" in fields.values else "",
        place=fields.integer("place") if "place" in fields.values else math.inf,
        explanations=_explanations(fields),
        truth=fields.table("truth") if "truth" in fields.values else {},
        true_curves=true_curves,
    )


def _columns(fields: Fields, key: str) -> Curve:
    inside = fields.inside(key)
    columns = {name: inside.numbers(name).tolist() for name in inside.values}
    if len({len(column) for column in columns.values()}) > 1:
        fields.fail(key, "columns of equal length")
    return columns


def _commit(fields: Fields) -> str:
    """The commit, or of an installed package its version."""
    if fields.raw("commit") is not None:
        return fields.text("commit")
    versions = fields.inside("versions") if "versions" in fields.values else None
    version = versions.text("tightlip") if versions is not None and "tightlip" in versions.values else None
    return "unknown" if version is None else f"tightlip {version}, installed"


def _explanations(fields: Fields) -> Explanations:
    if "explanations" not in fields.values:
        return {}
    parts = fields.inside("explanations")
    return {
        key: {name: part.text(name) for name in part.values} for key in parts.values for part in [parts.inside(key)]
    }
