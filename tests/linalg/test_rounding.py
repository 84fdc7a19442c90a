import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tightlip import TightlipError
from tightlip.linalg.rounding import UNIT_ROUNDOFF, gamma, normalize_exactly, round_down, round_up, sqrt_up

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.fractions())
def test_rounding_up_gives_the_next_float_and_not_the_one_after(value):
    up = round_up(value)
    assert Fraction(up) >= value > Fraction(math.nextafter(up, -math.inf))


@given(st.fractions())
def test_rounding_down_mirrors_rounding_up(value):
    down = round_down(value)
    assert Fraction(down) <= value < Fraction(math.nextafter(down, math.inf))


@given(finite)
def test_floats_are_their_own_roundings(value):
    assert round_up(Fraction(value)) == round_down(Fraction(value)) == value


def test_beyond_the_largest_float_lies_infinity_on_the_safe_side_only():
    huge = Fraction(10) ** 400
    assert round_up(huge) == math.inf
    assert round_up(-huge) == -1.7976931348623157e308
    assert round_down(huge) == 1.7976931348623157e308


def test_below_the_smallest_float_a_positive_number_does_not_become_zero():
    assert round_up(Fraction(1, 10**400)) == 5e-324


@pytest.mark.parametrize("n", [1, 2, 100, 10**6])
def test_gamma_bounds_its_formula_and_is_not_much_larger(n):
    u = Fraction(UNIT_ROUNDOFF)
    exact = n * u / (1 - n * u)
    assert exact <= Fraction(gamma(n)) <= 2.01 * exact


def test_the_unit_roundoff_is_the_first_gap_halved():
    assert 1.0 + UNIT_ROUNDOFF == 1.0
    assert 1.0 + 2 * UNIT_ROUNDOFF > 1.0


@given(st.floats(min_value=0, allow_infinity=False))
def test_the_root_is_rounded_up(value):
    assert Fraction(sqrt_up(value)) ** 2 >= Fraction(value)
    assert sqrt_up(value) <= math.sqrt(value) * (1 + 1e-15)


@given(st.lists(finite.filter(lambda v: v == 0 or abs(v) > 1e-250), min_size=1, max_size=5))
def test_normalizing_divides_by_an_exact_power_of_two(row):
    largest = max(map(abs, row))
    row = [v if abs(v) > largest * 1e-40 else 0.0 for v in row]  # nothing underflows
    matrix, exponent = normalize_exactly(torch.tensor([row], dtype=torch.float64))
    assert [Fraction(v) * Fraction(2) ** exponent for v in matrix[0].tolist()] == [Fraction(v) for v in row]
    assert largest == 0 or 0.5 <= float(matrix.abs().max()) < 1


@pytest.mark.parametrize("value", [5e-324, 2.0**-1022, 1.7976931348623157e308])
def test_the_ends_of_the_range_are_normalized_exactly(value):
    matrix, exponent = normalize_exactly(torch.tensor([[value]], dtype=torch.float64))
    assert Fraction(float(matrix)) * Fraction(2) ** exponent == Fraction(value)


def test_normalizing_leaves_the_weight_alone_and_refuses_nan():
    weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    normalize_exactly(weight)[0].zero_()
    assert weight.tolist() == [[3.0, 4.0]]
    with pytest.raises(TightlipError, match="NaN or infinity"):
        normalize_exactly(torch.tensor([[math.nan]]))


def test_zero_keeps_exponent_zero():
    matrix, exponent = normalize_exactly(torch.zeros(2, 2))
    assert exponent == 0
    assert not matrix.any()
