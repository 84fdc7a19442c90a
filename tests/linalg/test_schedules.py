"""What a schedule promises is a fact about a scalar polynomial: here it is proven from the table, in rationals."""

from fractions import Fraction
from itertools import pairwise

import pytest
import sympy
import torch

from tightlip import TightlipError
from tightlip.linalg.polar import iterate, norm_bound, orthonormalize, residual
from tightlip.linalg.schedules import CUSHION, Schedule, bjorck, express, extremes, series, value

SLACK = sympy.Rational(1, 10**8)
BJORCK = [bjorck(1, order) for order in range(1, 6)]
EXPRESS = [express(), express(1e-6), express(0.1), express(0.01, 3, 1), express(0.01, 7, 5), express(0.9, 3)]
MUON = tuple(Fraction(c) for c in ("3.4445", "-4.7750", "2.0315"))  # in powers of σ²


def in_residual(a, b, c):
    return (a + b + c, -b - 2 * c, c)


def by_sigma_squared(polynomial):
    """q with p(σ) = σ·q(σ²), with rational coefficients."""
    x = sympy.symbols("x")
    return sympy.Poly(sum(sympy.Rational(Fraction(c)) * (1 - x) ** j for j, c in enumerate(polynomial)), x)


def stays_within_zero_and_one(polynomial, end=1):
    """Sturm's theorem: neither p nor 1 + 1e-8 − p has a zero in (0, end], and both are positive somewhere there."""
    q = by_sigma_squared(polynomial)
    sigma = sympy.symbols("sigma")
    p = sympy.Poly(q.as_expr().subs(sympy.symbols("x"), sigma**2) * sigma, sigma)
    end = sympy.Rational(Fraction(end))
    above = sympy.Poly(1 + SLACK - p.as_expr(), sigma)
    positive = q.eval(sympy.Rational(1, 10**6)) > 0 and q.count_roots(0, end**2) == 0
    return bool(positive and above.count_roots(0, end) == 0)


@pytest.mark.parametrize("schedule", [*BJORCK, *EXPRESS], ids=repr)
def test_every_step_maps_zero_to_one_and_what_rounding_adds_into_zero_to_one(schedule):
    assert all(stays_within_zero_and_one(polynomial, 1 + CUSHION) for polynomial in set(schedule.polynomials))


@pytest.mark.parametrize("schedule", [s for s in BJORCK if s.reach > 1], ids=repr)
def test_odd_orders_reach_so_far_and_no_farther(schedule):
    (polynomial,) = schedule.polynomials
    assert stays_within_zero_and_one(polynomial, schedule.reach)
    assert not stays_within_zero_and_one(polynomial, schedule.reach + 1e-6)


def test_the_reach_of_order_one_is_root_three_and_even_orders_have_none():
    assert bjorck(1).reach == pytest.approx(3**0.5, abs=1e-11)
    for order in (2, 4):
        assert bjorck(1, order).reach == 1.0
        assert not stays_within_zero_and_one(series(order), 1.1)


def test_a_table_that_overshoots_is_refused_and_the_sentence_says_how_far():
    with pytest.raises(TightlipError, match=r"step 1 of muon maps \[0, 1.001\] to \[0, 1\.202\]"):
        Schedule("muon", (in_residual(*MUON),) * 5)
    with pytest.raises(TightlipError, match="divide its coefficients"):
        Schedule("further than it reaches", (series(1),), reach=1.8)
    with pytest.raises(TightlipError, match="not within"):
        Schedule("negative", ((Fraction(-1),),))


@pytest.mark.parametrize(
    ("polynomials", "reach"),
    [
        ((), 1.0),
        (((),), 1.0),
        ((series(1),), 0.5),
        ((series(1),), float("nan")),
        (((Fraction(1), -Fraction(1)),) * 25, 1.0),  # σ³: steep at 1, so rounding would grow threefold at each step
    ],
)
def test_tables_that_prove_nothing_are_refused(polynomials, reach):
    with pytest.raises(TightlipError, match="give|divide"):
        Schedule("wrong", polynomials, reach)


def test_a_step_of_one_coefficient_is_a_multiple():
    half = Schedule("half", ((Fraction(1, 2),),))
    assert half.singular_value(0.8) == 0.4
    assert float(orthonormalize(torch.tensor([[0.8]], dtype=torch.float64), half)) == 0.4


@pytest.mark.parametrize("lower", [1e-9, 1e-6, 1e-4, 1e-3, 0.1])
@pytest.mark.parametrize("degree", [3, 5, 7])
def test_rounding_is_not_amplified_at_weights_that_are_orthonormal_already(lower, degree):
    """Where a polynomial rises through 1, 1e-7 above 1 grew to 1e35 in a few steps."""
    for n in (8, 32, 100):
        weight = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(n)))[0]
        result = orthonormalize(weight, express(lower, degree)).double()
        assert float(torch.linalg.matrix_norm(result, 2)) <= 1 + 1e-6


@pytest.mark.parametrize("scale", [1e-30, 3e4, 1e15, 1e30])
def test_weights_of_any_size_have_a_bound_and_a_finite_gradient(scale):
    weight = (torch.randn(20, 20, generator=torch.Generator().manual_seed(0)) * scale).requires_grad_()
    result = orthonormalize(weight, bjorck(3))
    result.sum().backward()
    assert bool(torch.isfinite(result).all()) and bool(torch.isfinite(weight.grad).all())
    assert float(torch.linalg.matrix_norm(result.detach().double(), 2)) <= 1 + 1e-6


def test_extremes_are_those_of_a_fine_grid():
    for polynomial in (in_residual(*MUON), series(2), series(5), *express(1e-3).polynomials):
        for end in (1.0, 1.2):
            grid = [value(polynomial, end * i / 4000) for i in range(4001)]
            low, high = extremes(polynomial, end)
            assert low == pytest.approx(min(grid), abs=1e-5) and high == pytest.approx(max(grid), abs=1e-5)


@pytest.mark.parametrize("degree", [3, 5, 7])
@pytest.mark.parametrize("lower", [1e-3, 0.1, 0.7])
def test_the_steps_of_express_equioscillate_on_what_the_step_before_left(lower, degree):
    """The mark of a minimax approximation (Chebyshev): its error takes its extremes with alternating signs."""
    start, end, count = lower, 1 + CUSHION, (degree + 1) // 2 + 1
    for polynomial in express(lower, degree).polynomials[:-1]:
        grid = [start + (end - start) * i / 4000 for i in range(4001)]
        values = [value(polynomial, sigma) for sigma in grid]
        low, high = min(values), max(values)
        middle, radius = (low + high) / 2, (high - low) / 2
        signs = [1 if v > middle else -1 for v in values if abs(abs(v - middle) - radius) < 0.01 * radius]
        assert 1 + sum(a != b for a, b in pairwise(signs)) >= count
        assert high == pytest.approx(1.0, abs=1e-5)
        start = low


@pytest.mark.parametrize("lower", [1e-6, 1e-3, 0.1])
def test_express_arrives_and_takes_far_fewer_products_than_bjorck(lower):
    fast = express(lower)
    assert fast.singular_value(lower) == pytest.approx(1.0, abs=1e-8)
    steps = next(n for n in range(1, 200) if bjorck(n).singular_value(lower) > 1 - 1e-8)
    assert fast.products <= 0.7 * bjorck(steps).products


@pytest.mark.parametrize(
    "make",
    [
        lambda: bjorck(0),
        lambda: bjorck(1, 0),
        lambda: express(0),
        lambda: express(1.0),
        lambda: express(0.1, 4),
        lambda: express(0.1, 5, 2),
        lambda: express(float("nan")),
    ],
)
def test_options_that_make_no_schedule_are_refused(make):
    with pytest.raises(TightlipError, match="must be"):
        make()


@pytest.mark.parametrize("schedule", [bjorck(1), bjorck(3), bjorck(2, 2), bjorck(1, 3), express(0.1)], ids=repr)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 5)])
@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.0, 1.4, 3.0, 1e4])
def test_whatever_the_weight_a_truncated_iterate_has_norm_at_most_one(schedule, shape, scale):
    weight = scale * torch.randn(20, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight[0] = scale * torch.ones(shape)  # a rank-one matrix, whose bounds are as loose as can be
    weight[1] = 0.0
    result = orthonormalize(weight, schedule)
    assert float(torch.linalg.matrix_norm(result, 2).max()) <= 1 + 1e-9
    sigma = torch.linalg.svdvals(weight) / (norm_bound(weight) / ((1 + schedule.reach) / 2)).clamp(min=1)[:, None]
    moved = torch.tensor([[schedule.singular_value(float(s)) for s in row] for row in sigma], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(result), moved.sort(descending=True).values, atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_bound_for_scaling_is_one(shape, scale):
    weight = scale * torch.randn(50, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bound, truth = norm_bound(weight), torch.linalg.matrix_norm(weight, 2)
    assert bool((bound >= truth * (1 - 1e-12)).all()) and bool((bound <= 3 * truth).all())


def test_orthonormal_weights_are_not_scaled_at_all_where_the_schedule_reaches_beyond_one():
    weight = torch.linalg.qr(torch.randn(512, 512, dtype=torch.float64)).Q
    assert torch.equal(orthonormalize(weight, bjorck(3)), iterate(weight, bjorck(3)))


def test_dividing_by_the_root_of_the_size_is_no_bound():
    """A 4×4 matrix of tens has norm 40; divided by √16 it is 10, and order 1 blows up (the original experiments')."""
    weight = torch.full((4, 4), 10.0, dtype=torch.float64)
    assert float(iterate(weight / 4, bjorck(4)).abs().max()) > 1e60
    assert float(torch.linalg.matrix_norm(orthonormalize(weight, bjorck(4)), 2)) <= 1 + 1e-12


def test_without_a_schedule_the_result_is_the_polar_factor():
    weight = torch.randn(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(torch.linalg.matrix_norm(residual(orthonormalize(weight)), 2)) < 1e-12


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(TightlipError, match="lower the learning rate"):
        orthonormalize(torch.full((2, 2), bad), bjorck(1))


@pytest.mark.parametrize("point", ["zero", "orthonormal", "gaussian"])
def test_the_scaling_has_finite_derivatives_everywhere(point):
    makers = {"zero": torch.zeros(3, 3), "orthonormal": torch.eye(3), "gaussian": 5 * torch.randn(3, 3)}
    weight = makers[point].requires_grad_()
    orthonormalize(weight, express(0.1)).sum().backward()
    assert bool(torch.isfinite(weight.grad).all())
