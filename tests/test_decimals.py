"""Numbers in decimals: bounds on their safe side, keys without rounding."""

import math

import pytest

from tightlip.decimals import (
    bound_up,
    bracketed,
    ceiled,
    decimals,
    exact,
    fixed,
    floored,
    radius_words,
    round_down,
    round_nearest,
    round_up,
)


@pytest.mark.parametrize("value", [0.3, 1.0, 3e-7, 0.1234567891, 0.1 + 0.2, 5e-324, 2.0**31, 1e300])
def test_a_key_is_exact_and_short(value):
    assert float(exact(value)) == value
    assert (exact(0.3), exact(1.0), exact(3e-7)) == ("0.3", "1", "3e-07")


@pytest.mark.parametrize("value", [0.99999999999, 1.00000001, 1 / 3, 1e-9, 123456789.5, 0.0])
def test_bounds_are_printed_on_their_safe_side(value):
    assert float(round_up(value)) >= value >= float(round_down(value))
    assert float(round_up(value)) == pytest.approx(value, rel=1e-7)


def test_what_is_not_finite_has_a_sign():
    assert [round_up(x) for x in (1.0, 1000.0, math.inf, math.nan)] == ["1", "1000", "∞", "–"]


def test_a_rounding_error_above_one_is_shown_as_such():
    values = (1.0000000000000044, 1.0000009, 1.0001, 1.0, 0.99999994, math.inf, math.nan)
    assert [bound_up(x, 4) for x in values] == ["1 + 5e-15", "1 + 9e-7", "1.001", "1", "1", "∞", "–"]


@pytest.mark.parametrize(("value", "wanted"), [(0.87, 2), (1.0, 0), (120, 0), (1e-9, 6), (0.1 + 0.2, 6), (0, 0)])
def test_decimals_that_a_number_needs(value, wanted):
    assert decimals(value) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.5, "0.50"), (-0.125, "-0.12"), (3, "3.00"), (float("nan"), "–"), (1e12, "1e+12")]
)
def test_fixed_decimals(value, wanted):
    assert fixed(value, 2) == wanted


def test_zero_has_no_sign():
    assert round_nearest(-0.0) == "0"


def test_shares_are_rounded_to_their_safe_side_and_intervals_outward():
    assert [floored(x) for x in (0.66875, 0.57, 1, 0)] == ["66.87", "57.00", "100.00", "0.00"]
    assert [ceiled(x) for x in (0.66875, 0.57, 1, 0, 1e-9)] == ["66.88", "57.00", "100.00", "0.00", "0.01"]
    assert bracketed((0.80412, 0.81942)) == "[80.41%, 81.95%]" and bracketed((0.0, 1.0)) == "[0.00%, 100.00%]"


@pytest.mark.parametrize("steps", [1, 2, 8, 36, 72, 108, 300])
def test_a_radius_in_steps_of_eight_bits_is_written_as_such(steps):
    assert radius_words(steps / 255) == f"{steps}/255"
    assert radius_words(float(f"{steps / 255:.4g}")) == f"{steps / 255:.4g}"  # rounded, it is another number


@pytest.mark.parametrize("eps", [0.0, 0.2, 1.0, 51 / 255, 1.58, 1 / 7, 0.1 + 0.2, 2.0**31, 1e300, math.inf])
def test_other_radii_are_written_in_full(eps):
    assert radius_words(eps) == exact(eps)
