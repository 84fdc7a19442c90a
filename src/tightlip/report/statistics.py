"""What the test inputs of runs tell: intervals, classes, and pairs of runs on the same inputs, all from their JSON."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tightlip.data.dataset import called
from tightlip.report.runs import Run
from tightlip.robustness import ClassAccuracy, Paired, holm, paired, per_class, wilson, worst_class

MOST_CLASSES = 20
"""That a table shows; of more, those with the lowest accuracies."""

UNLIKELY = math.log(1e-12)

T = TypeVar("T")

Interval = tuple[float, float]

UNKNOWN: Interval = (math.nan, math.nan)


def interval(share: float, trials: int) -> Interval:
    """Wilson's 95 % interval of a share of so many trials; NaN where the share is none."""
    return wilson(round(share * trials), trials) if trials > 0 and 0 <= share <= 1 else UNKNOWN


@dataclass(frozen=True)
class ClassRow:
    """A class with test inputs: which are right, and which are certified at the main eps, if there is one."""

    name: str
    clean: ClassAccuracy
    certified: ClassAccuracy | None


@dataclass(frozen=True)
class ClassTable:
    """The classes to show, how many there are, and the labels of the worst ones; None where all are alike."""

    rows: tuple[ClassRow, ...]
    classes: int
    worst_clean: int | None
    worst_certified: int | None


def class_table(run: Run) -> ClassTable | None:
    """Accuracy by class; None without test inputs."""
    if not len(run.proof.label):
        return None
    clean = per_class(run.certified(0.0), run.proof.label)
    eps = run.main_eps
    certified = None if eps is None else per_class(run.certified(float(eps)), run.proof.label)
    names = run.row.data.class_names
    rows = [
        ClassRow(called(row.label, names), row, sure)
        for row, sure in zip(clean, certified or itertools.repeat(None), strict=False)
    ]
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: (row.certified or row.clean).accuracy)[:MOST_CLASSES]
    return ClassTable(tuple(rows), len(clean), _worst(clean), None if certified is None else _worst(certified))


def _worst(classes: Sequence[ClassAccuracy]) -> int | None:
    """The label of the worst class, where one does worse than another."""
    return None if len({row.accuracy for row in classes}) == 1 else worst_class(classes).label


@dataclass(frozen=True)
class Test:
    """One comparison of a pair: clean where ``eps`` is None, else certified; ``adjusted`` is Holm's p-value."""

    eps: str | None
    result: Paired
    adjusted: float


@dataclass(frozen=True)
class Pair:
    """Two runs by their places, on the same test inputs."""

    first: int
    second: int
    tests: tuple[Test, ...]


def pairs_of(runs: Sequence[Run]) -> list[Pair]:
    """Each pair of runs with the same test inputs; p-values are adjusted for the number of all tests."""
    found = [
        (i, j, {eps: paired(*(run.certified(float(eps or 0)) for run in pair)) for eps in _radii(*pair)})
        for (i, j), pair in zip(_twos(range(len(runs))), _twos(runs), strict=True)
        if same_test_inputs(*pair)
    ]
    adjusted = iter(holm([result.p_value for _, _, results in found for result in results.values()]))
    return [
        Pair(i, j, tuple(Test(eps, result, next(adjusted)) for eps, result in results.items()))
        for i, j, results in found
    ]


def _twos(things: Sequence[T]) -> Iterator[tuple[T, T]]:
    return itertools.combinations(things, 2)


def _radii(first: Run, second: Run) -> list[str | None]:
    """None for clean accuracy, and the main eps where both have the same in the same norm and scale."""
    one, other = first.main_eps, second.main_eps
    alike = first.scale == second.scale
    return [None, one] if alike and one is not None and other is not None and float(one) == float(other) else [None]


def same_test_inputs(first: Run, second: Run) -> bool:
    """Whether two runs were tested on the very same inputs in the same order, as far as their files say.

    Their data and the sizes of their parts are the same, and so are all labels. Where the seeds of the split differ, so
    do the test parts unless the data set brings its own: two that were drawn would have their labels in the same order
    by chance, which must be less likely than 1e-12.
    """
    a, b = first.row.data, second.row.data
    labels = first.proof.label
    alike = (a.sha256, a.split) == (b.sha256, b.split) and np.array_equal(labels, second.proof.label)
    return alike and len(labels) > 0 and (first.row.seed == second.row.seed or _chance(labels) < UNLIKELY)


def _chance(labels: NDArray[np.int64]) -> float:
    """The logarithm of how likely a random order of labels is any given one: Π count! / n!."""
    counts = np.unique(labels, return_counts=True)[1].tolist()
    return sum(math.lgamma(count + 1) for count in counts) - math.lgamma(len(labels) + 1)
