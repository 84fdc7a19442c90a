"""Print whether a critic of ours makes GANs as good as the usual two critics do, from the rows of `tightlip run wgan`.

    python scripts/gan_verdict.py [FOLDER]                           default: results/wgan

For each data set and each 1-Lipschitz critic: the mean over seeds is to be no worse than that of the better usual
critic by more than one standard error of the latter, in Fréchet distance and in recall, at equal steps of the generator
and at equal processor time; its audited constant is to be at most 1 + 1e-6 at every logged step, and its step to cost
no more than one with a gradient penalty. What both rest on is asked too: a classifier that is good enough, and four
paces tried. A data set is answered yes if one critic holds all of it. A number that a seed lacks holds nothing.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from tightlip.decimals import round_down, round_nearest, round_up
from tightlip.errors import TightlipError
from tightlip.experiments.gan_parts import CRITICS
from tightlip.report.cells import Row
from tightlip.report.rows import read_groups

ROOT = Path(__file__).parents[1]
USUAL = tuple(name for name, kind in CRITICS.items() if not kind.constrained)
OURS = tuple(name for name, kind in CRITICS.items() if kind.constrained)
PENALTY = next(name for name, kind in CRITICS.items() if kind.penalized)

COMPARED = {
    "Fréchet distance, equal steps": ("frechet", 1),
    "Fréchet distance, equal time": ("frechet_at_equal_seconds", 1),
    "recall, equal steps": ("recall", -1),
    "recall, equal time": ("recall_at_equal_seconds", -1),
}
"""Metrics, and whether less of them is better."""

LARGEST_CONSTANT, PACES = 1 + 1e-6, 4
LEAST_ACCURACY = {"mnist": 0.99, "fashion-mnist": 0.91}
"""Of the classifier in whose features images are compared, by data set; of others any will do."""

HEAD = ("data", "critic", "asked", "it has", "it needs", "holds")

Seeds = Sequence[Row]
"""The rows of one cell, seed by seed."""


@dataclass(frozen=True)
class Line:
    """One thing that is asked of one critic."""

    data: str
    critic: str
    asked: str
    has: str
    needs: str
    holds: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """As the table has them."""
        return self.data, self.critic, self.asked, self.has, self.needs, "yes" if self.holds else "**no**"


def lines(folder: Path) -> list[Line]:
    """All that is asked, data set by data set.

    Raises:
        TightlipError: if rows are damaged, or a critic or a seed is missing.
    """
    cells: dict[str, dict[str, list[Row]]] = {}
    for group in read_groups(folder):
        for row in group.rows:
            config = row.record.config
            cells.setdefault(config.get("data", "?"), {}).setdefault(config.get("critic", "?"), []).append(row)
    for data, critics in cells.items():
        _refuse_incomplete(data, critics)
    return [line for data, critics in cells.items() for critic in OURS for line in _asked(data, critic, critics)]


def table(folder: Path = ROOT / "results" / "wgan") -> str:
    """The lines in Markdown, and below them the answer for each data set; before there are rows, a sentence."""
    if not folder.is_dir():
        return "There are no rows to compare yet: `tightlip run wgan --preset paper --output results`.\n"
    found = lines(folder)
    rows = [HEAD, ("---",) * len(HEAD), *(line.cells for line in found)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + "\n" + "".join(_answers(found))


def _answers(found: Sequence[Line]) -> Iterator[str]:
    for data in dict.fromkeys(line.data for line in found):
        of_data = [line for line in found if line.data == data]
        missed = {critic: sum(not line.holds for line in of_data if line.critic == critic) for critic in OURS}
        good = [critic for critic, count in missed.items() if count == 0]
        words = f"yes, {' and '.join(good)}" if good else "no: of each critic something does not hold"
        yield f"* {data}: {words}\n"


def _refuse_incomplete(data: str, critics: Mapping[str, Seeds]) -> None:
    seeds = {critic: sorted(row.record.seed for row in critics.get(critic, ())) for critic in CRITICS}
    once = sorted(set(seeds[PENALTY]))
    if len(once) < 2 or any(numbers != once for numbers in seeds.values()):
        told = ", ".join(f"{critic} {numbers}" for critic, numbers in seeds.items())
        raise TightlipError(
            f"of {data} each critic needs the same two seeds or more, and one row of each; here: {told}"
        )


def _asked(data: str, critic: str, critics: Mapping[str, Seeds]) -> Iterator[Line]:
    ours = critics[critic]
    for asked, (metric, sign) in COMPARED.items():
        yield Line(data, critic, asked, *_beside(ours, {name: critics[name] for name in USUAL}, metric, sign))
    constants, accuracies = _values(ours, "constant"), _values(ours, "judge_accuracy")
    holds = all(constant <= LARGEST_CONSTANT for constant in constants)
    yield Line(data, critic, "audited constant", round_up(max(constants)), f"{LARGEST_CONSTANT:.7g} at most", holds)
    step, penalized = (1e3 * fmean(_values(rows, "critic_step_seconds")) for rows in (ours, critics[PENALTY]))
    needs = f"{round_nearest(penalized, 3)} at most: {PENALTY}'s"
    yield Line(data, critic, "milliseconds of a step", round_nearest(step, 3), needs, step <= penalized)
    least = LEAST_ACCURACY.get(data, 0.0)
    holds = all(accuracy >= least for accuracy in accuracies)
    yield Line(data, critic, "the classifier's accuracy", round_down(min(accuracies)), f"{least:g} at least", holds)
    tried = [len(row.record.config.get("paces", ())) for name in (critic, *USUAL) for row in critics[name]]
    yield Line(data, critic, "paces tried", str(min(tried)), f"{PACES} of each", min(tried) >= PACES)


def _beside(ours: Seeds, usual: Mapping[str, Seeds], metric: str, sign: int) -> tuple[str, str, bool]:
    """What ours has, what it needs, and whether it has it; NaN anywhere is no."""
    mean, error = _summed(_values(ours, metric))
    theirs = {name: _summed(_values(rows, metric)) for name, rows in usual.items()}
    best = min(theirs, key=lambda name: sign * theirs[name][0])
    limit = theirs[best][0] + sign * theirs[best][1]
    known = all(math.isfinite(found) for found, _ in theirs.values())
    words = f"{round_nearest(limit)} {'at most' if sign > 0 else 'at least'}: {best}'s {_spread(*theirs[best])}"
    return (
        _spread(mean, error),
        words if known else "a number of each usual critic",
        known and sign * mean <= sign * limit,
    )


def _values(rows: Seeds, metric: str) -> list[float]:
    return [row.metrics.get(metric, math.nan) for row in rows]


def _summed(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return (
        (fmean(values), stdev(values) / math.sqrt(len(values))) if all(map(math.isfinite, values)) else (math.nan,) * 2
    )


def _spread(mean: float, error: float) -> str:
    return f"{round_nearest(mean)} ± {round_nearest(error, 2)}" if math.isfinite(mean) else "–"


def main() -> None:
    """Print."""
    sys.stdout.write(table(*map(Path, sys.argv[1:2])))


if __name__ == "__main__":
    main()
