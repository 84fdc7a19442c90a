import math
from contextlib import contextmanager, nullcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tightlip import TightlipError
from tightlip.linalg.rounding import (
    FLUSHED,
    UNIT_ROUNDOFF,
    cholesky_error,
    gamma,
    norm_above,
    normalize_exactly,
    round_down,
    round_up,
    sqrt_up,
    widened,
)

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


@contextmanager
def flushing():
    """This thread treats denormal numbers as zero, as workers of a pool may do without being asked."""
    assert torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


anywhere = st.builds(
    lambda mantissa, exponent, sign: sign * math.ldexp(mantissa, exponent),
    st.floats(0.5, 1.0, exclude_max=True),
    st.one_of(st.integers(-1074, 1000), st.integers(-1074, -1000), st.integers(-560, -480), st.integers(990, 1000)),
    st.sampled_from([1.0, -1.0, 0.0]),
)
NORM_SQUARED = {
    1: lambda v: sum(map(abs, v)) ** 2,
    2: lambda v: sum(a * a for a in v),
    math.inf: lambda v: max(map(abs, v)) ** 2,
}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("order", NORM_SQUARED)
@given(st.lists(st.tuples(anywhere, anywhere), min_size=1, max_size=12))
def test_a_norm_is_bounded_at_every_scale_whatever_is_flushed(order, flushed, rows):
    x = torch.tensor(rows, dtype=torch.float64)
    exact = [NORM_SQUARED[order]([Fraction(v) for v in column]) for column in zip(*rows, strict=True)]
    with flushing() if flushed else nullcontext():
        found = norm_above(x, order, 0), norm_above(x.mT, order, -1)
    for bounds in found:
        for bound, square in zip(bounds.tolist(), exact, strict=True):
            assert Fraction(bound) ** 2 >= square
            excess = Fraction(bound) - Fraction(FLUSHED) * 2
            assert excess <= 0 or excess**2 <= square * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize("n", [1, 100, 100_000])
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-162, 1.0, 1e160, 1e300])
def test_squares_beyond_the_range_of_floats_do_not_widen_the_bound(n, scale):
    value = Fraction(torch.full((1,), scale, dtype=torch.float64).item())
    bound = Fraction(float(norm_above(torch.full((n,), scale, dtype=torch.float64), 2, 0)))
    assert n * value**2 <= bound**2
    assert scale < 1e-280 or bound**2 <= n * value**2 * (1 + Fraction(1, 10**9))


@pytest.mark.parametrize("order", [1, 2])
def test_a_norm_is_bounded_in_every_order_of_summation(order, monkeypatch):
    """One by one, from the largest on, every addend is lost to rounding."""
    monkeypatch.setattr(torch.Tensor, "sum", lambda x, dim: x.cumsum(dim).select(dim, -1))
    small = 2.0**-54 if order == 1 else 2.0**-27
    x = torch.cat((torch.ones(1), torch.full((4096,), small))).double()
    assert float(x.abs().pow(order).sum(0)) == 1.0
    assert Fraction(float(norm_above(x, order, 0))) ** order >= 1 + 4096 * Fraction(2) ** -54


def test_what_is_not_finite_has_no_finite_norm_and_nothing_has_none():
    for bad in (math.nan, math.inf):
        for order in (1, 2, math.inf):
            assert not torch.isfinite(norm_above(torch.tensor([1.0, bad], dtype=torch.float64), order, 0))
    assert norm_above(torch.zeros(3, 0, dtype=torch.float64), 2, 1).tolist() == [0.0] * 3
    with pytest.raises(TightlipError, match="choose 1, 2 or inf"):
        norm_above(torch.ones(2, dtype=torch.float64), 3, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_widening_is_exact_to_the_last_denormal_number(dtype):
    kind = torch.finfo(dtype)
    tiny = kind.smallest_normal * kind.eps  # the smallest number that the dtype has
    values = [tiny, -3 * tiny, kind.smallest_normal, kind.max, -0.0, 1.0, 1.0 + kind.eps]
    narrow = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert widened(narrow).tolist() == values and widened(narrow).dtype == torch.float64
    assert widened(narrow.repeat(2, 1).mT).mT[0].tolist() == values
    assert math.copysign(1.0, float(widened(narrow)[4])) == -1.0
    assert widened(torch.tensor(2.0, dtype=dtype)).shape == ()
    kept = widened(narrow)
    kept.zero_()
    assert float(narrow[0]) == tiny


def test_views_and_the_callers_floating_point_errors_change_nothing():
    negative = torch._neg_view(torch.tensor([1.0, 2.0]))
    assert widened(negative).tolist() == [-1.0, -2.0]
    with np.errstate(all="raise"):
        assert widened(torch.tensor([1e-45])).item() > 0
        assert normalize_exactly(torch.tensor([[5e-324, 1.7e308]], dtype=torch.float64))[1] == 1024


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, dtype=torch.int64),
        torch.ones(2, dtype=torch.bool),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, device="meta"),
    ],
    ids=str,
)
def test_numbers_that_float64_may_not_hold_are_refused(tensor):
    with pytest.raises(TightlipError, match="cannot be read exactly"):
        widened(tensor)


def test_a_thread_that_flushes_proves_nothing():
    tiny = Fraction(1, 10**310)
    with flushing():
        for act in (lambda: widened(torch.ones(1)), lambda: round_up(tiny), lambda: round_down(-tiny)):
            with pytest.raises(TightlipError, match="set_flush_denormal"):
                act()
        assert round_up(Fraction(1, 3)) == 0.33333333333333337
    assert Fraction(round_up(tiny)) >= tiny


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_error_of_a_factorization_is_not_below_its_theorem(n):
    """γ_{n+1}/(1 − γ_{n+1})·trace, in rationals."""
    matrix = torch.diag(torch.arange(1.0, n + 1, dtype=torch.float64) / 3)
    u = Fraction(1, 2**53)
    share = (n + 1) * u / (1 - (n + 1) * u)
    exact = share / (1 - share) * sum(Fraction(entry) for entry in matrix.diagonal().tolist())
    assert exact <= Fraction(cholesky_error(matrix)) <= 2 * exact


def test_beyond_the_largest_number_rounding_up_gives_infinity():
    largest = math.nextafter(math.inf, 0)
    assert round_up(Fraction(largest)) == largest
    assert round_up(Fraction(largest) + 1) == math.inf and round_down(-Fraction(largest) - 1) == -math.inf
