"""The laws of `Gains`: composition is a min-plus product of tables that respect ‖x‖_∞ ≤ ‖x‖₂ ≤ ‖x‖₁."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightlip import Gains, TightlipError

INF = math.inf
NORMS = (1.0, 2.0, INF)
PAIRS = [(p, q) for p, q in itertools.product(NORMS, NORMS) if p <= q]

fractions = st.fractions(0, 10, max_denominator=30)
constants = st.one_of(fractions, st.sampled_from([Fraction(0), Fraction(1), Fraction(10) ** 400]))
tables = st.builds(Gains, st.dictionaries(st.sampled_from(PAIRS), constants, min_size=1))
"""Every combination of proven and missing pairs."""


def below(table, other):
    """Whether the first proves whatever the second proves, at most as large."""
    return all(pair in table and table[pair] <= constant for pair, constant in other.items())


def by_hand(inner, outer):
    """The composition again, from its definition."""
    found = {}
    for p, r, q in itertools.product(NORMS, repeat=3):
        if (p, r) in inner and (r, q) in outer:
            found[p, q] = min(inner[p, r] * outer[r, q], found.get((p, q), INF))
    return found


@given(tables, tables)
def test_composition_is_the_best_product_over_the_norm_in_between(a, b):
    assert a.then(b).table == by_hand(a.table, b.table)


@given(tables, tables, tables)
def test_composition_is_associative(a, b, c):
    assert a.then(b).then(c).table == a.then(b.then(c)).table


@given(tables)
def test_the_constant_one_is_neutral_on_both_sides(a):
    one = Gains.constant(1.0)
    assert one.then(a).table == a.table == a.then(one).table


@given(tables, tables, tables, st.dictionaries(st.sampled_from(PAIRS), constants))
def test_composition_is_monotone_in_both(a, b, c, more):
    """Proving more of a layer, or less of a constant, never makes the whole worse."""
    better = Gains({**a.table, **{pair: min(value, a.table.get(pair, value)) for pair, value in more.items()}})
    assert below(better.table, a.table)
    assert below(better.then(b).table, a.then(b).table)
    assert below(c.then(better).table, c.then(a).table)


@given(tables, tables)
def test_what_is_composed_is_closed_under_the_order_of_norms(a, b):
    for table in (a.table, a.then(b).table):
        assert Gains(table).table == table
        for (p, q), (r, s) in itertools.product(table, PAIRS):
            if r <= p and q <= s:
                assert table[r, s] <= table[p, q]


@given(tables, tables, fractions)
def test_a_factor_may_stand_before_or_after(a, b, K):
    scale = Gains(dict.fromkeys(PAIRS, K))
    scaled = {pair: constant * K for pair, constant in a.then(b).table.items()}
    assert scale.then(a).then(b).table == a.then(scale).then(b).table == a.then(b).then(scale).table == scaled


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_two_constants_multiply_exactly(a, b):
    product = Fraction(a) * Fraction(b)
    assert Gains.constant(a).then(Gains.constant(b)).table == dict.fromkeys(PAIRS, product)


def test_floats_are_taken_exactly_and_never_rounded_in_a_product():
    product = Gains.constant(0.1).then(Gains.constant(0.1)).table[2.0, 2.0]
    assert product == Fraction(0.1) ** 2 != Fraction(0.1 * 0.1)


def test_what_nothing_proves_stays_unproven():
    assert Gains({(2.0, INF): 1}).then(Gains({(2.0, 2.0): 1})).table == {}
    assert Gains({(1.0, 1.0): 2}).then(Gains({(1.0, 2.0): 3})).table == {(1.0, 2.0): 6, (1.0, INF): 6}


@pytest.mark.parametrize("bad", [-1, math.nan, INF, -INF])
def test_a_constant_is_finite_and_not_negative(bad):
    with pytest.raises(TightlipError, match="must be ≥ 0, .* give finite numbers"):
        Gains({(2.0, 2.0): 1.0, (1.0, 1.0): bad})
