"""Rows of a table without the column of classes: the class that is predicted for each, and its certified radius."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float32
from torch import Tensor

from ..atomic import replacing
from ..data.dataset import called
from ..data.labeled import Rows, column_names, is_blank, read_rows
from ..data.sources import is_table
from ..decimals import bracketed, floored, radius_words, round_up
from ..errors import TightlipError
from ..report.wording import reach
from ..robustness import Certificate
from .origin import Origin

MOST = 20
"""Rows that are printed; a file has all."""

Scales = Mapping[str, float] | None
"""By their names, the standard deviations that a model divides features by."""

_NAMED = 12
"""Features that an error names."""


@dataclass(frozen=True)
class Unlabeled:
    """Rows (n, features) as the model of a run takes them, whose classes are not known."""

    images: Tensor
    source: str
    run: Origin

    def table(self, certificate: Certificate) -> list[tuple[int, str, float]]:
        """For each row its number, the name of its class, and its radius."""
        names = [called(label, self.run.class_names) for label in certificate.prediction.tolist()]
        return list(zip(range(len(names)), names, certificate.radius.tolist(), strict=True))


def unlabeled_rows(run: Origin | None, data: str | None, label: str | None, scales: Scales) -> Unlabeled | None:
    """The rows of a table that has no column of classes; None where there are classes, or it is no table.

    Raises:
        TightlipError: where its columns are not those that the run was trained on, or it cannot be read.
    """
    if run is None or not run.feature_names or label is not None or data is None:
        return None
    path = Path(data)
    if not is_table(data) or not path.is_file() or run.label is None or has_labels(path, run.label):
        return None
    return Unlabeled(as_trained(path, run, None, scales)[1], path.name, run)


def has_labels(path: Path, label: str | None) -> bool:
    """Whether a table has this column, and anything in it."""
    return label is not None and label in column_names(path) and not is_blank(path, label)


def as_trained(
    path: Path, run: Origin, label: str | None, scales: Scales
) -> tuple[Rows, Float32[Tensor, "rows features"]]:
    """A table, and its features as the model of a run takes them, by their names; of ``label`` the cells stay apart.

    ``scales`` are what the model divides them by, if it does.

    Raises:
        TightlipError: where its columns are not those that the run was trained on, or it cannot be read.
    """
    names = column_names(path)
    drop = tuple(name for name in (*run.left_out(path), run.label) if name in names and name != label)
    if label is None or label in names:
        _refuse_others(path.name, [name for name in names if name not in (label, *drop)], run, label)
    rows = read_rows(path, label, labeled=label is not None, drop=drop)
    return rows, rows.features(scales)[:, [rows.names.index(name) for name in run.feature_names]]


def _refuse_others(source: str, names: Sequence[str], run: Origin, label: str | None) -> None:
    wanted = run.feature_names
    if sorted(names) == sorted(wanted):
        return
    absent = next((f"misses {name!r}" for name in wanted if name not in names), None)
    more = next((f"has {name!r} more" for name in names if name not in wanted), "has one of them twice")
    why = "" if label else f"has no column {run.label!r}, so its rows are to be predicted, and it "
    raise TightlipError(
        f"{source} {why}{absent or more}: give the columns that {run.folder} was trained on, "
        f"{', '.join(wanted[:_NAMED])}{', …' * (len(wanted) > _NAMED)}"
    )


def refuse_files(output: Path | None, inputs: Path | None) -> None:
    """Refuse files that would need classes.

    Raises:
        TightlipError: for ``--inputs``, or an ``--output`` that is no ``.csv``.
    """
    if inputs is not None:
        raise TightlipError("--inputs are for tightlip-check, which takes rows with labels of classes: leave it out")
    if output is not None and output.suffix != ".csv":
        raise TightlipError(
            f"--output {output}: predictions are written as a table, so give it a name that ends in .csv"
        )


def write_predictions(output: Path, rows: Unlabeled, certificate: Certificate) -> None:
    """A table of row, class and radius."""
    with replacing(output) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("row", "class", "radius"), *rows.table(certificate)])


def told_predictions(rows: Unlabeled, certificate: Certificate, radii: Sequence[float]) -> Iterator[str]:
    """The first rows, and how many of all keep their class within each of the radii."""
    table, width = rows.table(certificate), max(5, *map(len, rows.run.class_names or ("",)))
    constant = round_up(certificate.bound.constant, 9)
    yield f"{rows.source}: {len(table)} rows, {rows.run.label} predicted; audited constant {constant}"
    yield f"{'row':>5}  {'class':<{width}}  certified radius"
    for row, name, radius in table[:MOST]:
        yield f"{row:>5}  {name:<{width}}  {reach(radius)}"
    if len(table) > MOST:
        yield f"  and {len(table) - MOST} more, which --output FILE.csv writes"
    for eps in radii:
        share = f"{floored(certificate.accuracy(eps))}% {bracketed(certificate.interval(eps))}"
        yield f"the class stays the same within {radius_words(eps)}: {share}"
