import math
from fractions import Fraction

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slopes import PAIRS
from truths import gaussian, norm_to_60_digits

from tightlip import TightlipError
from tightlip.linalg.spectral import operator_norm_bound

INF = math.inf
LOOSEST = Fraction(1) + Fraction(1, 10**8)
SMALLEST = Fraction(2) ** -1074


def assert_tight(weight, p, q):
    bound, exact = operator_norm_bound(weight, p, q), norm_to_60_digits(weight, p, q)
    with mpmath.workdps(60):
        assert exact <= bound <= exact * mpmath.mpf("1.00000001")


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_hilbert_matrices(p, q, n):
    index = torch.arange(n, dtype=torch.float64)
    assert_tight(1 / (index[:, None] + index + 1), p, q)


@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_hadamard_matrices_have_norm_root_n_and_one_norms_n(n):
    weight = torch.ones(1, 1, dtype=torch.float64)
    while len(weight) < n:
        weight = torch.cat((torch.cat((weight, weight), 1), torch.cat((weight, -weight), 1)))
    squares = {(1, 1): n * n, (1, 2): n, (1, INF): 1, (2, 2): n, (2, INF): n, (INF, INF): n * n}
    for (p, q), square in squares.items():
        assert square <= Fraction(operator_norm_bound(weight, p, q)) ** 2 <= square * LOOSEST


def test_a_rank_one_matrix_has_the_product_of_its_vectors_norms():
    weight = torch.outer(torch.tensor([3.0, -4.0]), torch.tensor([5.0, 0.0, 12.0]))
    assert 65 <= operator_norm_bound(weight, 2, 2) <= 65 * (1 + 1e-8)
    assert 65 <= operator_norm_bound(weight.mT, 2, 2) <= 65 * (1 + 1e-8)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("wide", [True, False], ids=["row", "column"])
def test_rows_and_columns_at_every_scale_against_exact_rationals(p, q, scale, wide):
    vector = [scale * v for v in (3.0, -1.0, 4.0, 7.0)]
    entries = [abs(Fraction(v)) for v in vector]
    largest, energy, total = max(entries) ** 2, sum(v * v for v in entries), sum(entries) ** 2
    row = {(1, 1): largest, (1, 2): largest, (1, INF): largest, (2, 2): energy, (2, INF): energy, (INF, INF): total}
    column = {(1, 1): total, (1, 2): energy, (1, INF): largest, (2, 2): energy, (2, INF): largest, (INF, INF): largest}
    square = (row if wide else column)[p, q]
    weight = torch.tensor([vector], dtype=torch.float64)
    bound = Fraction(operator_norm_bound(weight if wide else weight.mT, p, q))
    assert bound**2 >= square
    assert (bound - 2 * SMALLEST) ** 2 <= square * LOOSEST**2


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_only_the_zero_matrix_has_bound_zero(p, q):
    weight = torch.zeros(3, 4, dtype=torch.float64)
    assert operator_norm_bound(weight, p, q) == 0.0
    weight[1, 2] = 5e-324
    assert operator_norm_bound(weight, p, q) >= 5e-324


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_nan_and_infinity_prove_nothing(p, q, bad):
    with pytest.raises(TightlipError, match="restore a finite checkpoint"):
        operator_norm_bound(torch.tensor([[1.0, bad], [0.0, 1.0]]), p, q)


@pytest.mark.parametrize(("p", "q"), [(INF, 1), (INF, 2), (2, 1)])
def test_pairs_without_a_bound_are_refused(p, q):
    with pytest.raises(TightlipError, match="ask for p ≤ q"):
        operator_norm_bound(torch.eye(2), p, q)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6), st.integers(-40, 40), st.sampled_from(PAIRS))
def test_any_small_matrix(rows, columns, seed, exponent, pair):
    assert_tight(gaussian(rows, columns, seed=seed) * 10.0**exponent, *pair)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=5), st.sampled_from(PAIRS))
def test_any_small_integer_matrix_singular_or_not(rows, pair):
    assert_tight(torch.tensor(rows, dtype=torch.float64), *pair)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_audited_as_it_is_stored(p, q, dtype):
    assert_tight(gaussian(5, 3).to(dtype), p, q)


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-6])
def test_a_nearly_degenerate_top_is_no_harder(gap):
    u, v = torch.linalg.qr(gaussian(7, 7)).Q, torch.linalg.qr(gaussian(7, 7, seed=1)).Q
    assert_tight(u @ torch.diag(torch.tensor([1.0, 1 - gap, 1 - 2 * gap, 0.5, 0.1, 0, 0]).double()) @ v, 2, 2)


def test_the_top_direction_may_be_orthogonal_to_the_ones_and_to_every_axis():
    weight = torch.tensor([[5.0, -5.0, 0.0], [-5.0, 5.0, 0.0], [1.0, 1.0, 1.0]])
    assert_tight(weight, 2, 2)
    assert operator_norm_bound(weight, 2, 2) >= 10


@pytest.mark.parametrize("shape", [(200, 200), (200, 120), (120, 200), (1, 300), (300, 1)])
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_large_orthonormal_matrices_with_and_without_noise(shape, noise):
    q = torch.linalg.qr(gaussian(max(shape), min(shape))).Q
    weight = (q if shape[0] >= shape[1] else q.mT) + noise * gaussian(*shape, seed=1)
    exact = float(torch.linalg.matrix_norm(weight, 2))
    assert exact * (1 - 1e-13) <= operator_norm_bound(weight, 2, 2) <= exact * (1 + 1e-8)


def nearly_orthonormal(rows, columns, noise):
    q = torch.linalg.qr(gaussian(max(rows, columns), min(rows, columns))).Q
    weight = q if rows >= columns else q.mT
    return weight + noise * gaussian(rows, columns, seed=1) / rows**0.5


@pytest.mark.parametrize("shape", [(600, 520), (520, 600), (512, 512)])
@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-7, 3e-6])
def test_large_nearly_orthonormal_matrices_are_bounded_to_half_their_distance(shape, noise):
    weight = nearly_orthonormal(*shape, noise)
    exact = float(torch.linalg.matrix_norm(weight, 2))
    bound = operator_norm_bound(weight, 2, 2)
    assert exact * (1 - 1e-13) <= bound <= exact * (1 + 1e-10) + 0.5 * abs(exact - 1)


@pytest.mark.parametrize("estimate", [0.0, -1e-9, 1e-12])
def test_the_bound_does_not_rest_on_the_estimate(monkeypatch, estimate):
    weight = nearly_orthonormal(600, 520, 1e-7)
    exact = float(torch.linalg.matrix_norm(weight, 2))
    monkeypatch.setattr("tightlip.linalg.spectral.largest_eigenvalue", lambda _: estimate)
    assert exact * (1 - 1e-13) <= operator_norm_bound(weight, 2, 2) <= exact * (1 + 2e-6)


def test_entries_of_very_different_size_lose_nothing_that_matters():
    weight = torch.tensor([[1e300, 1e-300], [1e-300, 1e-300]], dtype=torch.float64)
    for p, q in PAIRS:
        assert_tight(weight, p, q)


def test_a_sum_that_rounds_down_is_rounded_up():
    weight = torch.tensor([[1.0] + [2.0**-53] * 64], dtype=torch.float64)  # each addend is lost to rounding
    assert Fraction(operator_norm_bound(weight, INF, INF)) >= 1 + 64 * Fraction(2) ** -53
    assert Fraction(operator_norm_bound(weight.mT, 1, 1)) >= 1 + 64 * Fraction(2) ** -53


def test_squares_that_are_lost_to_rounding_one_by_one_are_counted():
    column = torch.cat((torch.ones(256), torch.full((20_000,), 2.0**-27))).double()[:, None]  # 1 + 2^-54 rounds to 1
    for weight in (column, column.mT, torch.block_diag(column, column, column)):
        assert Fraction(operator_norm_bound(weight, 2, 2)) ** 2 >= 256 + 20_000 * Fraction(2) ** -54


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 9, 15, 17])
def test_panels_may_be_empty_or_uneven_and_the_weight_is_left_alone(columns):
    weight = gaussian(20, columns)
    before = weight.clone()
    assert_tight(weight, 2, 2)
    assert torch.equal(weight, before)


def test_the_audit_ignores_gradients_and_autocast():
    weight = gaussian(6, 6).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert_tight(weight, 2, 2)
