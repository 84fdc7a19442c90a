"""Bounds from samples: how often they hold, what they are by hand, and p-values that keep their level."""

import functools
import inspect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from tightlip import TightlipError
from tightlip.transport.confidence import (
    bernstein_lower,
    hoeffding_lower,
    mcdiarmid_upper,
    permutation_p_value,
)

REPETITIONS = 2000
LOWER = [hoeffding_lower, bernstein_lower]


def heads(share, coins, seed):
    """How many of so many coins show 1, again and again."""
    return np.random.default_rng(seed).binomial(coins, share, REPETITIONS).tolist()


@functools.cache
def of_coins(bound, ones_x, n, ones_y, m, alpha):
    """The bound for samples of zeros and ones, which it knows by their counts."""
    x, y = (torch.arange(count) < ones for ones, count in ((ones_x, n), (ones_y, m)))
    return bound(x.double(), y.double(), 1.0, alpha)


# ------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("alpha", [0.5, 0.1])
@pytest.mark.parametrize("bound", LOWER)
@pytest.mark.parametrize("shares", [(0.5, 0.5), (1.0, 0.0), (0.97, 0.03), (0.6, 0.05)])
def test_lower_bounds_are_wrong_no_more_often_than_they_may(bound, shares, alpha):
    """Coins are as hard as values in an interval get."""
    pairs = zip(heads(shares[0], 40, 0), heads(shares[1], 25, 1), strict=True)
    found = [of_coins(bound, x, 40, y, 25, alpha) for x, y in pairs]
    wrong = sum(lower > shares[0] - shares[1] for lower in found) / REPETITIONS
    assert wrong <= alpha + 4 * math.sqrt(alpha / REPETITIONS)


def test_hoeffding_is_about_as_sharp_as_it_can_be_for_fair_coins():
    """A constant that is too large would pass for soundness: normal tails at √(2·ln(1/α)) are .12, .037 and .007."""
    pairs = list(zip(heads(0.5, 100, 2), heads(0.5, 100, 3), strict=True))
    for alpha, least in ((0.5, 0.08), (0.2, 0.02), (0.05, 0.003)):
        wrong = sum(of_coins(hoeffding_lower, x, 100, y, 100, alpha) > 0 for x, y in pairs) / REPETITIONS
        assert least <= wrong <= alpha


def test_both_bounds_hold_around_a_known_distance():
    """The uniform distribution and its translate by 0.3 are 0.3 apart; on the line the W1 of samples is by sorting."""
    generator = torch.Generator().manual_seed(2)
    alpha, below, above = 0.1, 0, 0
    for _ in range(500):
        x = torch.rand(50, generator=generator, dtype=torch.float64) + 0.3
        y = torch.rand(50, generator=generator, dtype=torch.float64)
        below += hoeffding_lower(x, y, 1.3, alpha / 2) > 0.3
        cost = float((x.sort().values - y.sort().values).abs().mean())
        above += mcdiarmid_upper(cost, 50, 50, 1.3, alpha / 2) < 0.3
    assert below / 500 <= alpha / 2 and above / 500 <= alpha / 2


def test_mcdiarmid_holds_where_the_samples_are_often_closer_than_the_distributions():
    """Coins with shares ½ and ½ + g are g apart; with fewer than 1/g² points the plug-in often says less."""
    costs = [abs(x - y) / 30 for x, y in zip(heads(0.5, 30, 4), heads(0.8, 30, 5), strict=True)]
    wrong = sum(mcdiarmid_upper(cost, 30, 30, 1.0, 0.2) < 0.3 for cost in costs) / REPETITIONS
    plugged = sum(cost < 0.3 for cost in costs) / REPETITIONS
    assert 0.01 < wrong <= 0.2 < plugged


# --------------------------------------------------------------------------------------------- known answers


def test_answers_by_hand():
    x, y = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 0.5])
    log = math.log(20)
    assert hoeffding_lower(x, y, 1.0, 0.05) == pytest.approx(0.5 - math.sqrt((1 / 4 + 1 / 2) * log / 2), abs=1e-14)
    log = math.log(80)
    terms = math.sqrt(2 * 0.25 * log / 4) + 7 * log / 9 + math.sqrt(2 * 0.125 * log / 2) + 7 * log / 3
    assert bernstein_lower(x, y, 1.0, 0.05) == pytest.approx(0.5 - terms, abs=1e-13)
    expected = 0.25 + 3 * math.sqrt((1 / 1000 + 1 / 2500) * math.log(10) / 2)
    assert mcdiarmid_upper(0.25, 1000, 2500, 3.0, 0.1) == pytest.approx(expected, abs=1e-14)
    assert mcdiarmid_upper(0.9, 1, 1, 1.0, 0.1) == 1.0  # no distance is above the diameter
    assert mcdiarmid_upper(0.9, 10**6, 10**6, None, 0.1) == math.inf


def test_bernstein_is_better_where_values_vary_little_and_there_are_many():
    steady = 0.5 + 1e-3 * torch.rand(5000, generator=torch.Generator().manual_seed(0))
    assert bernstein_lower(steady, steady - 0.4, 1.0, 0.05) > hoeffding_lower(steady, steady - 0.4, 1.0, 0.05)
    coins = torch.tensor([0.0, 1.0] * 50)
    assert bernstein_lower(coins, coins, 1.0, 0.05) < hoeffding_lower(coins, coins, 1.0, 0.05)


@pytest.mark.parametrize("bound", LOWER)
def test_less_risk_and_fewer_points_and_a_longer_interval_say_less(bound):
    x, y = torch.tensor([0.9, 1.0] * 100), torch.tensor([0.0, 0.1] * 100)
    risks = [bound(x, y, 1.0, alpha) for alpha in (1e-300, 1e-9, 0.01, 0.1, 0.9, 1 - 1e-16)]
    counts = [bound(x[:n], y[:n], 1.0, 0.05) for n in (2, 4, 8, 50, 200)]
    reaches = [bound(x, y, reach, 0.05) for reach in (1e9, 10.0, 1.5, 1.0)]
    for row in (risks, counts, reaches):
        assert all(less < more for less, more in itertools.pairwise(row))
    assert max(risks + counts + reaches) < 0.9


def test_mcdiarmid_falls_with_risk_and_with_points():
    risks = [mcdiarmid_upper(0.1, 50, 70, 1.0, alpha) for alpha in (1e-9, 0.01, 0.1, 0.9)]
    counts = [mcdiarmid_upper(0.1, n, 2 * n, 1.0, 0.05) for n in (1, 10, 1000, 10**6, 10**12)]
    for row in (risks, counts):
        assert all(more >= less > 0.1 for more, less in itertools.pairwise(row))
    assert mcdiarmid_upper(0.0, 10, 10, 0.0, 0.05) == 0.0


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_points_prove_next_to_nothing_and_do_not_fail(n):
    ones, zeros = torch.ones(n), torch.zeros(n)
    assert hoeffding_lower(ones, zeros, 1.0, 0.05) < 0.0
    by_hand = 1 - 2 * 7 * math.log(80) / 3  # without variance
    assert bernstein_lower(ones, zeros, 1.0, 0.05) == (-math.inf if n == 1 else pytest.approx(by_hand))
    assert mcdiarmid_upper(1.0, n, n, 1.0, 0.05) == 1.0
    assert bernstein_lower(torch.ones(1), torch.zeros(10**4), 1.0, 0.05) == -math.inf


# ---------------------------------------------------------------------------------------------------- rounding


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-150, 1.0, 1e150, 1e300])
def test_bounds_are_sound_at_every_scale(scale):
    """n copies of one value and of zero: the truth is the value, and Hoeffding's share of it is known."""
    x, y = torch.full((4000,), scale, dtype=torch.float64), torch.zeros(4000, dtype=torch.float64)
    for bound in LOWER:
        assert bound(x, y, scale, 0.05) <= scale
        if scale > 1e-300:
            assert bound(x, y, scale, 0.05) / scale == pytest.approx(bound(x / scale, y, 1.0, 0.05), rel=1e-12)
    assert mcdiarmid_upper(scale / 2, 9, 9, scale, 0.3) >= scale / 2


def test_a_mean_that_rounds_up_is_rounded_down():
    """Ten times 0.1 sums to 1 in float64, and the float64 0.1 is a little above a tenth: exact sums tell."""
    values = torch.tensor([0.1, 0.2, 0.3, 0.7, 1 / 3], dtype=torch.float64)
    truth = sum(map(Fraction, values.tolist())) / 5
    bound = hoeffding_lower(values, torch.zeros(1, dtype=torch.float64), 0.7, 1 - 2.0**-53)
    assert Fraction(bound) < truth and float(truth) - bound < 2e-8  # √(ln(1/α)/2) is 7e-9


def test_an_interval_is_taken_exactly():
    low, high = torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    length = 0.4 - 0.1  # rounds up, and so is long enough
    assert hoeffding_lower(high, low, length, 0.5) <= 0.3
    with pytest.raises(TightlipError, match="in no interval of length .*clip the function"):
        hoeffding_lower(high, low, math.nextafter(length, 0) - 1e-16, 0.5)


# ----------------------------------------------------------------------------------------------------- p-values


def test_p_values_are_uniform_where_there_is_no_difference():
    generator = np.random.default_rng(0)
    found = [permutation_p_value(generator.random(7), generator.random(5), 19, seed) for seed in range(1000)]
    assert min(found) >= 1 / 20 and max(found) <= 1
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        share = sum(p <= level + 1e-12 for p in found) / 1000
        assert abs(share - level) <= 4 * math.sqrt(level * (1 - level) / 1000)


def test_p_values_keep_their_level_where_most_values_are_equal():
    generator = np.random.default_rng(1)
    found = [
        permutation_p_value((generator.random(12) < 0.2) / 3, (generator.random(6) < 0.2) / 3, 19, seed)
        for seed in range(1000)
    ]
    for level in (0.05, 0.1, 0.25, 0.5):
        assert sum(p <= level + 1e-12 for p in found) / 1000 <= level + 4 * math.sqrt(level / 1000)


def test_p_values_are_never_zero_and_ties_count_as_reached():
    assert permutation_p_value(torch.arange(50.0) + 100, torch.arange(50.0), 99) == 0.01
    assert permutation_p_value(torch.arange(50.0), torch.arange(50.0) + 100, 99) == 1.0
    for value in (0.1, 1 / 3, 1e9 + 0.1, 0.0, 1e-310, 1e308):
        assert permutation_p_value(np.full(7, value), np.full(5, value), 50) == 1.0
    thirds = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)  # sums of them depend on their order
    assert permutation_p_value(thirds.repeat(9), thirds.flip(0).repeat(9), 3) > 0.25
    assert permutation_p_value(torch.ones(1), torch.zeros(1), 200) == pytest.approx(0.5, abs=0.15)


def test_ties_of_sums_are_not_broken_by_rounding():
    """Whole numbers have exact sums; a tenth of them has not, and their order would tell."""
    generator = np.random.default_rng(2)
    for seed in range(20):
        x, y = generator.integers(-7, 8, 15).astype(float), generator.integers(-7, 8, 14).astype(float)
        y = np.append(y, -x.sum() - y.sum())  # of mean zero
        assert permutation_p_value(x / 10, y / 10, 99, seed) == permutation_p_value(x, y, 99, seed)


def test_p_values_do_not_change_with_scale_shift_or_run():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    first = permutation_p_value(x + 0.6, y, 500, seed=4)
    assert 1 / 501 < first < 0.5
    assert first == permutation_p_value(x + 0.6, y, 500, seed=4) != permutation_p_value(x + 0.6, y, 500, seed=5)
    for scale, shift in ((1e300, 0.0), (1e-300, 0.0), (2.0, 1000.0)):
        assert permutation_p_value((x + 0.6) * scale + shift, y * scale + shift, 500, seed=4) == first


# ----------------------------------------------------------------------------------------------------- bad input

ONE = torch.tensor([0.5])


@pytest.mark.parametrize("bound", LOWER)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.empty(0), ONE, 1.0, 0.1), r"values_x has shape \(0,\): give one number for each"),
        ((ONE, torch.ones(3, 1), 1.0, 0.1), r"values_y has shape \(3, 1\)"),
        ((ONE, [0.1], 1.0, 0.1), "values_y must be a tensor or a numpy array, got a list"),
        ((torch.tensor([1]), ONE, 1.0, 0.1), "values_x of this kind .*int64.* convert it"),
        ((ONE, ONE * math.nan, 1.0, 0.1), "1 of 1 values_y are NaN or infinite"),
        ((ONE / 0, ONE, 1.0, 0.1), "1 of 1 values_x are NaN or infinite"),
        ((ONE, ONE + 1.01, 1.0, 0.1), "values from 0.5 to 1.5099.* are in no interval of length 1: clip"),
        ((ONE, ONE, -1.0, 0.1), "reach must be a finite number ≥ 0, got -1.0"),
        ((ONE, ONE, math.inf, 0.1), "reach must be a finite number ≥ 0, got inf"),
        ((ONE, ONE, 1.0, 0.0), "alpha must be a finite number > 0, got 0.0"),
        ((ONE, ONE, 1.0, 1.0), "alpha must be a number between 0 and 1, got 1.0: 0.05 is usual"),
        ((ONE, ONE, 1.0, math.nan), "alpha must be"),
    ],
)
def test_what_no_bound_can_be_made_of_is_one_sentence(bound, arguments, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        inspect.unwrap(bound)(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-0.1, 5, 5, 1.0, 0.1), "cost must be a finite number ≥ 0, got -0.1"),
        ((math.nan, 5, 5, None, 0.1), "cost must be a finite number"),
        ((0.1, 0, 5, 1.0, 0.1), "n must be an integer ≥ 1, got 0"),
        ((0.1, 5, 2.5, 1.0, 0.1), "m must be an integer ≥ 1, got 2.5"),
        ((0.1, 5, 5, -1.0, 0.1), "diameter must be a finite number ≥ 0"),
        ((0.1, 5, 5, math.inf, 0.1), "diameter must be a finite number ≥ 0, got inf"),
        ((1.1, 5, 5, 1.0, 0.1), "the samples are 1.1 apart, so what they are drawn from has a diameter above 1: give"),
        ((0.1, 5, 5, 1.0, 1.5), "alpha must be a number between 0 and 1"),
    ],
)
def test_what_no_upper_bound_can_be_made_of_is_one_sentence(arguments, sentence):
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(mcdiarmid_upper)(*arguments)


def test_a_p_value_needs_permutations_and_a_seed():
    for options, sentence in (
        ({"permutations": 0}, "permutations must be an integer ≥ 1, got 0"),
        ({"seed": -1}, "seed must be an integer ≥ 0, got -1"),
        ({"seed": 1.5}, "seed must be an integer"),
    ):
        with pytest.raises(TightlipError, match=sentence):
            inspect.unwrap(permutation_p_value)(ONE, ONE, **options)
    with pytest.raises(TightlipError, match="values_y are NaN"):
        permutation_p_value(ONE, ONE * math.nan)
