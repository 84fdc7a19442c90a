"""lower ≤ truth ≤ upper, whatever the samples, whenever it ends; the truth is scipy's pairing, its cost exact."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from truths import gaussian

from tightlip import TightlipError, lipschitz
from tightlip.data import load
from tightlip.transport import Funnels, assign
from tightlip.transport import search as searching
from tightlip.transport.candidates import Candidates
from tightlip.transport.pairing import Bounds
from tightlip.transport.samples import posed
from tightlip.transport.search import Clock, Search

NORMS = [1.0, 2.0, math.inf]
NEARLY = 1 - Fraction(1, 10**12)
"""scipy's pairing may cost this much more than the best, since it adds in float64."""

KINDS = {
    "gaussian": lambda rng, n, d: (rng.standard_normal((n, d)), rng.standard_normal((n, d)) + rng.random()),
    "integers with ties": lambda rng, n, d: (rng.integers(0, 3, (n, d)), rng.integers(0, 3, (n, d))),
    "far from zero": lambda rng, n, d: (1e6 + rng.standard_normal((n, d)), 1e6 + rng.standard_normal((n, d))),
    "far apart": lambda rng, n, d: (rng.standard_normal((n, d)), 1e6 + rng.standard_normal((n, d))),
    "tiny": lambda rng, n, d: (1e-150 * rng.standard_normal((n, d)), 1e-150 * rng.standard_normal((n, d))),
    "huge": lambda rng, n, d: (1e150 * rng.standard_normal((n, d)), 1e150 * rng.standard_normal((n, d))),
    "float32": lambda rng, n, d: (rng.random((n, d), np.float32), rng.random((n, d), np.float32)),
    "duplicates": lambda rng, n, d: tuple(rng.standard_normal((3, d))[rng.integers(0, 3, n)] for _ in "xy"),
    "heavy tails": lambda rng, n, d: (rng.standard_cauchy((n, d)), rng.standard_cauchy((n, d))),
    "shared points": lambda rng, n, d: (x := rng.standard_normal((n, d)), np.where(rng.random((n, 1)) < 0.5, x, -x)),
}


def exact_cost(x, y, pairing, p):
    """The mean cost of a pairing: exact, or in 60 digits for p = 2."""
    with mpmath.workdps(60):
        total = Fraction(0)
        for a, b in zip(x.tolist(), y[pairing].tolist(), strict=True):
            sizes = [abs(Fraction(s) - Fraction(t)) for s, t in zip(a, b, strict=True)]
            if p == 2:
                square = sum(s * s for s in sizes)
                root = mpmath.sqrt(mpmath.mpf(square.numerator) / square.denominator)
                total += Fraction(int(root.man)) * Fraction(2) ** int(root.exp)
            else:
                total += sum(sizes) if p == 1 else max(sizes)
        return total / len(x)


def truth(x, y, p):
    scale = max(float(np.abs(x).max()), float(np.abs(y).max())) or 1.0
    a, b = (torch.from_numpy(v / scale) for v in (x.astype(np.float64), y.astype(np.float64)))
    _, pairing = linear_sum_assignment(torch.linalg.vector_norm(a[:, None] - b, p, dim=-1).numpy())
    return exact_cost(x, y, pairing, p)


def relative_gap(found):
    return (found.upper - found.lower) / found.upper if found.upper else 0.0


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_lies_between_the_bounds(kind, p):
    rng = np.random.default_rng(abs(hash((len(kind), p))) % 1000)
    for trial in range(8):
        n, d = int(rng.integers(1, 61 if trial == 0 else 20)), int(rng.integers(1, 13))
        x, y = KINDS[kind](rng, n, d)
        tolerance = [1e-3, 1e-2, 1e-6, 0.0][trial % 4]
        found, true = assign(x, y, p=p, tolerance=tolerance), truth(x, y, p)
        assert Fraction(found.lower) <= true and true * NEARLY <= Fraction(found.upper)
        assert exact_cost(x, y, found.assignment.numpy(), p) <= Fraction(found.upper)
        assert sorted(found.assignment.tolist()) == list(range(n))
        assert relative_gap(found) <= max(tolerance, 1e-11) and found.reason in ("gap", "exact")


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_plane_fewer_points_come_first(kind, p, monkeypatch):
    monkeypatch.setattr(searching, "TRIED", 4)  # 64 points begin as 16, and these as 4
    asked, real = [], Search._of_fewer
    monkeypatch.setattr(Search, "_of_fewer", lambda self: asked.append(len(self.x)) or real(self))
    for d in (2, 3):
        x, y = KINDS[kind](np.random.default_rng(d), 64, d)
        found, true = assign(x, y, p=p, tolerance=1e-3), truth(x, y, p)
        assert Fraction(found.lower) <= true and true * NEARLY <= Fraction(found.upper) and relative_gap(found) <= 1e-3
    assert kind != "gaussian" or asked == [64, 16, 4] * 2


@pytest.mark.parametrize("questions", [0, 1, 2, 3, 5, 10, 20, 40])
def test_interrupted_while_fewer_points_come_first(questions, monkeypatch):
    monkeypatch.setattr(searching, "TRIED", 4)
    x, y = gaussian(150, 2), gaussian(150, 2, seed=1)
    bounds = Bounds(posed(x, y), 2.0)
    assert Search(bounds, 0.0, Interrupting(questions), 0).run(progress=False) == "time"
    lower, upper = bounds.in_units(bounds.unit)
    assert Fraction(lower) <= truth(x.numpy(), y.numpy(), 2) <= Fraction(upper)


def test_time_is_looked_at_between_few_pairs_while_fewer_points_come_first(monkeypatch):
    looked, asked = [], []
    x, y = gaussian(150, 2), gaussian(150, 2, seed=1)
    bounds, real = Bounds(posed(x, y), 2.0, Clock(math.inf)), searching.least_sums

    def counted(x, y, prices, p):
        looked.append(len(x) * len(y))
        return real(x, y, prices, p)

    monkeypatch.setattr(searching, "TRIED", 8)
    monkeypatch.setattr(searching, "AT_ONCE", 300)
    monkeypatch.setattr(searching, "least_sums", counted)
    search = Search(bounds, 1e-3, bounds.clock, 0)
    monkeypatch.setattr(search.clock, "check", lambda: asked.append(len(looked)))
    assert len(search._of_fewer()[0]) == 150
    assert len(asked) > 70 and max(looked) <= 300  # 37 · 37 and 150 · 37 pairs


@pytest.mark.parametrize("p", NORMS)
def test_the_prices_prove_the_lower_bound(p):
    """By `Funnels`, which are 1-Lipschitz: the potential separates the means by what was said."""
    x, y = gaussian(80, 3), gaussian(80, 3, seed=1) + 0.5
    y[:20] = x[:20]
    found = assign(x, y, p=p)
    f = Funnels(y, found.prices, p)
    assert lipschitz(f, p).constant == 1
    assert float(f(x).mean() - f(y).mean()) >= found.lower - 1e-12
    assert float(f(x).mean() - found.prices.mean()) >= found.lower - 1e-12


@pytest.mark.parametrize("p", NORMS)
def test_no_prices_prove_too_much_and_no_pairing_costs_too_little(p):
    x, y = gaussian(40, 12), 1e6 + gaussian(40, 12, seed=1)
    bounds, true = Bounds(posed(x, y), p), truth(x.numpy(), y.numpy(), p)
    unit = Fraction(2) ** bounds.problem.exponent
    best = assign(x, y, p=p, tolerance=0).prices * 2.0**-bounds.problem.exponent
    for trial in range(30):
        prices = best + 10.0 ** -(trial % 15) * gaussian(40, seed=trial)
        assert bounds.value(prices) * unit <= true
        assert bounds.cost(torch.randperm(40, generator=torch.Generator().manual_seed(trial))) * unit >= true
    assert bounds.value(best) * unit >= true * NEARLY


@pytest.mark.parametrize("seconds", [0, 0.02, 0.1])
@pytest.mark.parametrize("d", [2, 16])
def test_interrupted_by_time_it_still_bounds(seconds, d):
    x, y = gaussian(700, d), gaussian(700, d, seed=1) + 0.3
    found = assign(x, y, tolerance=0, seconds=seconds)
    true = truth(x.numpy(), y.numpy(), 2)
    assert found.reason in ("time", "exact") and (seconds > 0 or found.reason == "time")
    assert 0 < Fraction(found.lower) <= true and true * NEARLY <= Fraction(found.upper)


class Interrupting(Clock):
    """Time is up after so many questions."""

    def __init__(self, questions):
        super().__init__(math.inf)
        self.questions = questions

    def check(self):
        self.questions -= 1
        if self.questions < 0:
            raise searching.TimeUp


@pytest.mark.parametrize("questions", [0, 1, 2, 3, 5, 10, 30, 100, 300])
@pytest.mark.parametrize("d", [3, 20])  # all pairs are listed, or few of them
def test_interrupted_anywhere_it_still_bounds(questions, d):
    x, y = gaussian(150, d), gaussian(150, d, seed=1)
    bounds = Bounds(posed(x, y), 2.0)
    assert Search(bounds, 0.0, Interrupting(questions), 0).run(progress=False) == "time"
    lower, upper = bounds.in_units(bounds.unit)
    assert Fraction(lower) <= truth(x.numpy(), y.numpy(), 2) <= Fraction(upper)
    assert sorted(bounds.whole_assignment().tolist()) == list(range(150))


def test_more_points_than_candidates_by_products_and_by_differences(monkeypatch):
    x, y = gaussian(300, 20), gaussian(300, 20, seed=1) + 0.2
    true = truth(x.numpy(), y.numpy(), 2)
    for shift in (0.0, 1e6):  # by the rounding of products in float32, not one digit of distances would be left
        found = assign(x + shift, y + shift, tolerance=1e-5)
        assert found.lower <= float(true) * (1 + 1e-9) and float(true) <= found.upper * (1 + 1e-9)
        assert relative_gap(found) <= 1e-5
    monkeypatch.setattr(searching, "SMALL", 10)  # phases that leave points out
    assert relative_gap(assign(x, y, tolerance=1e-4)) <= 1e-4


def test_heavy_tails_do_not_end_in_endless_bids():
    """Prices of points far from all others rise by large steps first; by small ones it takes 18,000 bids."""
    rng = np.random.default_rng(0)
    bounds = Bounds(posed(rng.standard_cauchy((200, 5)), rng.standard_cauchy((200, 5))), 2.0)
    assert Search(bounds, 1e-3, Interrupting(4000), 0).run(progress=False) == "gap"


def test_coarse_products_are_noticed():
    """Pairs near to one another in clusters far apart."""
    places = 1e4 * (torch.arange(200) % 2)[:, None]
    x, y = gaussian(200, 20) + places, gaussian(200, 20, seed=1) + places
    found, true = assign(x, y), truth(x.numpy(), y.numpy(), 2)
    assert Fraction(found.lower) <= true <= Fraction(found.upper) and relative_gap(found) <= 1e-3
    problem = posed(x, y)
    candidates = Candidates(problem.x, problem.y, 2.0, careful=False)
    candidates.fill(torch.zeros(200, dtype=torch.float64), lambda: None)
    assert candidates.blur() > 1e-5


@pytest.mark.parametrize("p", NORMS)
def test_on_a_line_it_is_exact(p):
    rng = np.random.default_rng(5)
    for n in (1, 2, 17, 500):
        x, y = rng.standard_normal(n), rng.standard_normal(n) * 2 + 1e6 * (n == 17)
        found = assign(x, y, p=p, tolerance=0)
        true = sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(sorted(x), sorted(y), strict=True)) / n
        assert Fraction(found.lower) <= true <= Fraction(found.upper)
        assert found.reason == "exact" and relative_gap(found) < 1e-15
        f = Funnels(y[:, None], found.prices, p)
        value = f(torch.from_numpy(x)[:, None]).mean() - f(torch.from_numpy(y)[:, None]).mean()
        assert float(value) == pytest.approx(float(true))
    other = torch.full((500, 2), 7.0, dtype=torch.float64)  # coordinates that never change
    other[:, 0] = torch.from_numpy(x)
    twin = other.clone()
    twin[:, 0] = torch.from_numpy(y)
    assert assign(other, twin, p=p).upper == found.upper


@pytest.mark.parametrize("shape", [(1, 3), (40, 1), (40, 5)])
def test_the_same_points_in_another_order_are_at_no_distance(shape):
    x = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(0)) * 0.1
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    found = assign(x, x[order])
    assert (found.lower, found.upper, found.reason) == (0.0, 0.0, "exact")
    assert torch.equal(x, x[order][found.assignment])
    assert assign(-0.0 * x, 0.0 * x).upper == 0


def test_digits_three_and_eight():
    """Known from the network simplex: 8.2233113054."""
    data = load("mnist5k")
    pixels = data.images.flatten(1).double() / 255
    found = assign(*(pixels[data.labels == digit] for digit in (3, 8)), tolerance=1e-4)
    assert 0.9999 * 8.2233113054 <= found.lower <= 8.2233113055
    assert 8.2233113053 <= found.upper <= 8.2233113054 * 1.0001


def test_the_same_seed_gives_the_same_bounds():
    x, y = gaussian(200, 5), gaussian(200, 5, seed=1)
    first, second, other = (assign(x, y, seed=seed) for seed in (3, 3, 4))
    assert (first.lower, first.upper) == (second.lower, second.upper)
    assert torch.equal(first.prices, second.prices) and not torch.equal(first.prices, other.prices)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_goes_on_from_what_one_that_was_stopped_has_found(kind):
    x, y = KINDS[kind](np.random.default_rng(5), 120, 4)
    true, stopped = truth(x, y, 2.0), assign(x, y, seconds=0)
    found = assign(x, y, tolerance=1e-6, start=stopped)
    assert stopped.lower <= found.lower * (1 + 1e-9) and found.upper <= stopped.upper
    assert Fraction(found.lower) <= true and true * NEARLY <= Fraction(found.upper)
    assert relative_gap(found) <= 1e-6
    again = assign(x, y, tolerance=1e-6, start=found)
    assert found.lower <= again.lower * (1 + 1e-6) and again.upper <= found.upper


def test_a_start_is_not_believed():
    x, y = gaussian(100, 3), gaussian(100, 3, seed=1)
    good = assign(x, y)
    bad = replace(good, lower=99.0, upper=0.0, prices=1e3 * gaussian(100, 1)[:, 0], assignment=torch.arange(100))
    found = assign(x, y, start=bad)
    assert found.lower <= good.upper and good.lower <= found.upper and relative_gap(found) <= 1e-3


def test_who_listens_hears_bounds_that_hold_and_never_worsen(monkeypatch):
    monkeypatch.setattr(searching, "PATIENCE", 0.0)
    monkeypatch.setattr(searching, "SPARSE", 0.0)
    x, y = gaussian(100, 4), gaussian(100, 4, seed=1) + 0.3
    heard = []
    found = assign(x, y, heard=heard.append)
    assert len(heard) > 3 and {one.reason for one in heard} == {"going on"}
    for before, after in itertools.pairwise([*heard, found]):
        assert before.lower <= after.lower <= found.upper and found.lower <= after.upper <= before.upper
        assert before.seconds <= after.seconds
        assert sorted(after.assignment.tolist()) == list(range(100))
    assert heard[-1].lower > heard[0].lower and heard[-1].upper < heard[0].upper


def test_what_listens_may_end_the_search():
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assign(gaussian(300, 4), gaussian(300, 4, seed=1), heard=stop)


def test_progress_is_shown_only_where_it_is_wanted(capsys):
    assign(gaussian(50, 2), gaussian(50, 2, seed=1))
    assert capsys.readouterr() == ("", "")


ONES = torch.ones(3, 2)
APART = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
TWICE = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: assign(ONES * math.nan, ONES), "3 of 3 points of x are NaN or infinite"),
        (lambda: assign(ONES, ONES * math.inf), "points of y are NaN or infinite"),
        (lambda: assign(ONES, torch.ones(3, 3)), r"points of x have shape \(2,\), those of y \(3,\)"),
        (lambda: assign(ONES, torch.ones(4, 2)), r"got \(3, 2\) and \(4, 2\)"),
        (lambda: assign(torch.ones(0, 2), torch.ones(0, 2)), r"give points \(n, …\), at least 1"),
        (lambda: assign(torch.tensor(1.0), ONES), r"x has shape \(\)"),
        (lambda: assign("abc", ONES), "x must be a tensor or a numpy array, got a str"),
        (lambda: assign(np.array([["a"]]), ONES), "x must be numbers"),
        (lambda: assign(ONES > 0, ONES > 0), "must hold numbers, got torch.bool"),
        (lambda: assign(torch.full((3, 2), 2**60), ONES), "numbers that float64 has exactly, .*got torch.int64"),
        (lambda: assign(ONES + 0j, ONES), "x must be real numbers"),
        (lambda: assign(ONES, ONES, p=3), "choose 1, 2 or inf"),
        (lambda: assign(ONES, ONES, tolerance=-0.1), "tolerance must be a finite number ≥ 0"),
        (lambda: assign(ONES, ONES, seconds=-1), "seconds must be a finite number ≥ 0"),
        (lambda: assign(ONES, ONES, seed=-1), "seed must be an integer ≥ 0"),
        (lambda: assign(ONES, 2 * ONES, start=assign(ONES[:2], 2 * ONES[:2])), "start is of other samples"),
        (lambda: assign(ONES[:1], -ONES[:1], start=assign(ONES, -ONES)), "start is of other samples"),
        (lambda: assign(APART, -APART, start=replace(assign(APART, -APART), prices=APART * math.nan)), "start is of"),
        (lambda: assign(APART, -APART, start=replace(assign(APART, -APART), assignment=TWICE)), "start is of other"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, sentence):
    with pytest.raises(TightlipError, match=sentence):
        wrong()
