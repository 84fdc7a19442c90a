"""Intervals and tests on accuracies against scipy's and published values, and how often intervals hold the truth."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from tightlip import TightlipError
from tightlip.robustness import ClassAccuracy, Paired, holm, paired, per_class, wilson, worst_class

COUNTS = [(0, 1), (1, 1), (1, 2), (0, 10), (10, 10), (3, 10), (8119, 10_000), (999_999, 1_000_000)]

# Newcombe 1998, Table III, method 10, and the table of Cavo et al. 2012 in Fagerland, Lydersen and Laake 2017, ch. 8
NEWCOMBE = {
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (18, 12, 2, 18): (0.0562, 0.3290),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (35, 14, 0, 1): (0.1461, 0.4175),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (2, 97, 1, 0): (0.8721, 0.9854),
    (1, 97, 1, 1): (0.8736, 0.9850),
    (0, 29, 1, 0): (0.6666, 0.9882),
    (1, 98, 0, 1): (0.9171, 0.9916),
    (0, 30, 0, 0): (0.8395, 1.0),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (53, 0, 0, 1): (-0.0729, 0.0729),
    (30, 0, 0, 24): (-0.0358, 0.0358),
    (59, 6, 16, 80): (-0.1186, -0.0046),
}


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999, 1 - 1e-6])
@pytest.mark.parametrize(("successes", "trials"), COUNTS)
def test_wilson_is_scipys(successes, trials, confidence):
    known = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    low, high = wilson(successes, trials, confidence)
    assert (low, high) == pytest.approx((known.low, known.high), rel=1e-9, abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == trials)


def test_wilson_mirrors_and_shrinks():
    low, high = wilson(3, 10)
    assert wilson(7, 10) == pytest.approx((1 - high, 1 - low))
    widths = [np.diff(wilson(3 * n, 10 * n))[0] for n in (1, 10, 100)]
    assert widths == sorted(widths, reverse=True) and np.diff(wilson(3, 10, 0.99))[0] > widths[0]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_wilson_holds_the_truth_about_as_often_as_it_says(share):
    """Exactly: the binomial weight of all counts whose interval holds it."""
    weights = binom.pmf(np.arange(201), 200, share)
    held = [low <= share <= high for low, high in (wilson(k, 200) for k in range(201))]
    assert 0.935 < weights[held].sum() < 0.97


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "trials must be an integer from 1 to"),
        ((1, 10**308), "trials must be an integer from 1 to"),
        ((-1, 3), "successes must be an integer from 0 to 3"),
        ((4, 3), "successes must be an integer from 0 to 3"),
        ((0.5, 3), "successes must be an integer"),
        ((True, 3), "successes must be an integer"),
        ((1, 3, 0), "confidence must be a finite number > 0"),
        ((1, 3, 1), "confidence must be a number between 0 and 1"),
        ((1, 3, 95), "confidence must be a number between 0 and 1"),
        ((1, 3, math.nan), "confidence must be a finite number"),
        ((1, 3, "0.95"), "confidence must be a finite number"),
    ],
)
def test_wilson_refuses(arguments, message):
    with pytest.raises(TightlipError, match=message):
        inspect.unwrap(wilson)(*arguments)


@pytest.mark.parametrize(
    ("first_only", "second_only"), [(0, 0), (1, 0), (5, 5), (1, 7), (12, 2), (240, 269), (40, 400), (5000, 5400)]
)
def test_the_test_is_the_exact_binomial_one(first_only, second_only):
    known = binomtest(first_only, first_only + second_only).pvalue if first_only + second_only else 1.0
    for neither in (0, 100):
        p_value = Paired(3, first_only, second_only, neither).p_value
        assert p_value == pytest.approx(known, rel=1e-10) and p_value <= 1
    assert Paired(3, second_only, first_only, 0).p_value == p_value


def test_the_test_of_many_inputs_does_not_overflow():
    assert Paired(0, 500_000, 500_000, 0).p_value == 1.0
    assert Paired(0, 499_000, 501_000, 0).p_value == pytest.approx(binomtest(499_000, 1_000_000).pvalue, rel=1e-7)
    assert Paired(0, 100_000, 0, 0).p_value == 0.0


@pytest.mark.parametrize(("table", "known"), NEWCOMBE.items())
def test_the_interval_of_the_difference_is_the_published_one(table, known):
    assert Paired(*table).interval() == pytest.approx(known, abs=1e-4)


def test_the_interval_of_the_difference_holds_it_and_mirrors():
    for table in itertools.product((0, 1, 4), repeat=4):
        if sum(table):
            one, other = Paired(*table), Paired(table[0], table[2], table[1], table[3])
            (low, high), difference = one.interval(), one.difference
            assert -1 <= low <= difference <= high <= 1 and high > low
            assert other.interval() == pytest.approx((-high, -low)) and other.difference == -difference


@pytest.mark.parametrize("cells", [(0.85, 0.05, 0.03, 0.07), (0.5, 0.2, 0.2, 0.1), (0.9, 0.1, 0.0, 0.0)])
def test_the_interval_of_the_difference_holds_the_truth_about_as_often_as_it_says(cells):
    tables = np.random.default_rng(0).multinomial(100, cells, 4000)
    truth = cells[1] - cells[2]
    intervals = [Paired(*map(int, table)).interval() for table in tables]
    assert 0.935 < np.mean([low <= truth <= high for low, high in intervals]) < 0.985


def test_paired_counts_input_by_input():
    a, b = torch.tensor([True, True, False, False, True]), torch.tensor([True, False, True, False, False])
    result = paired(a, b)
    assert result == Paired(both=1, first_only=2, second_only=1, neither=1) == paired(a.numpy(), b)
    assert (result.inputs, result.difference, result.p_value) == (5, 0.2, 1.0)
    assert paired(b, a) == Paired(1, 1, 2, 1) and paired(a, a) == Paired(3, 0, 0, 2)


def test_pairing_tells_apart_what_two_intervals_do_not():
    """97 % and 98 % of 1000, where the better one has right all that the other has."""
    first, second = wilson(970, 1000), wilson(980, 1000)
    assert first[1] > second[0]
    result = Paired(970, 0, 10, 20)
    assert result.p_value < 0.01 and result.interval()[1] < 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True], torch.tensor([True]), "a must be a tensor or a numpy array"),
        (torch.tensor([1, 0]), torch.tensor([True, False]), "a must be a row of booleans"),
        (torch.tensor([True]), torch.tensor([[True]]), "b must be a row of booleans"),
        (torch.tensor([True]), np.array([], bool), "b must be a row of booleans"),
        (torch.tensor([True]), torch.tensor([True, False]), "a has 1 entries and b 2"),
    ],
)
def test_paired_refuses(a, b, message):
    with pytest.raises(TightlipError, match=message):
        paired(a, b)


def test_holm_raises_p_values_as_rs_p_adjust_does():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.2, 0.9]) == pytest.approx([0.6, 0.6, 0.9]) and holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == [] and holm([0.3]) == [0.3] and holm([0.0, 1.0]) == [0.0, 1.0]
    with pytest.raises(TightlipError, match="each p-value must be a finite number ≥ 0 and ≤ 1"):
        holm([0.5, 1.5])


def test_accuracy_class_by_class():
    labels = torch.tensor([7, 0, 7, 3, 7, 0])
    right = torch.tensor([True, False, False, True, True, False])
    rows = per_class(right, labels)
    assert rows == (ClassAccuracy(0, 0, 2), ClassAccuracy(3, 1, 1), ClassAccuracy(7, 2, 3))
    assert per_class(right.numpy(), labels.numpy().astype(np.int32)) == rows
    assert [row.accuracy for row in rows] == [0, 1, 2 / 3] and rows[2].interval(0.9) == wilson(2, 3, 0.9)
    assert sum(row.successes for row in rows) == int(right.sum()) and sum(row.support for row in rows) == 6


def test_the_worst_class_is_the_one_with_most_inputs_among_equals():
    rows = [ClassAccuracy(0, 1, 2), ClassAccuracy(1, 0, 3), ClassAccuracy(2, 0, 4), ClassAccuracy(3, 0, 4)]
    assert worst_class(rows).label == 2 and worst_class(rows[:1]).label == 0
    with pytest.raises(TightlipError, match="give at least one"):
        worst_class([])


@pytest.mark.parametrize(
    ("successes", "labels", "message"),
    [
        (torch.tensor([True]), torch.tensor([0, 1]), "there are 1 successes and labels of shape"),
        (torch.tensor([True]), torch.tensor([0.0]), "labels must be integers"),
        (torch.tensor([True]), torch.tensor([True]), "labels must be integers"),
        (torch.tensor([True]), [0], "labels must be a tensor or a numpy array"),
        (torch.tensor([0.5]), torch.tensor([0]), "successes must be a row of booleans"),
    ],
)
def test_per_class_refuses(successes, labels, message):
    with pytest.raises(TightlipError, match=message):
        per_class(successes, labels)
