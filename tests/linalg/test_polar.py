import logging
import math
from fractions import Fraction
from math import comb

import pytest
import torch
from torch.func import grad, hessian, jacrev, jvp, vmap
from truths import gaussian

from tightlip import TightlipError
from tightlip.linalg.polar import iterate, orthonormalize, polar, residual, tangent
from tightlip.linalg.schedules import bjorck, series

SHAPES = [(4, 4), (5, 3), (3, 5), (1, 4), (4, 1), (1, 1)]
POLYNOMIALS = {
    1: "3/2 -1/2",
    2: "15/8 -5/4 3/8",
    3: "35/16 -35/16 21/16 -5/16",
    4: "315/128 -105/32 189/64 -45/32 35/128",
    5: "693/256 -1155/256 693/128 -495/128 385/256 -63/256",
}


def svd_factor(weight):
    u, _, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return u @ vh


def with_singular_values(values, rows, seed=0):
    """A matrix with these singular values, and its polar factor, known by construction."""
    n = len(values)
    u = torch.linalg.qr(gaussian(rows, n, seed=seed)).Q
    v = torch.linalg.qr(gaussian(n, n, seed=seed + 1)).Q
    return u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.mT, u @ v.mT


@pytest.mark.parametrize("order", POLYNOMIALS)
def test_bjorck_coefficients_are_the_exact_fractions(order):
    in_sigma_squared = [
        sum(c * comb(j, k) * (-1) ** k for j, c in enumerate(series(order)) if j >= k) for k in range(order + 1)
    ]
    assert in_sigma_squared == [Fraction(text) for text in POLYNOMIALS[order].split()]


@pytest.mark.parametrize("order", POLYNOMIALS)
def test_a_bjorck_step_is_its_polynomial_in_the_singular_values(order):
    sigma = torch.linspace(0, 1.7, 18, dtype=torch.float64)
    polynomial = sum(float(Fraction(c)) * sigma ** (2 * k + 1) for k, c in enumerate(POLYNOMIALS[order].split()))
    torch.testing.assert_close(iterate(torch.diag(sigma), bjorck(1, order)), torch.diag(polynomial), atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", POLYNOMIALS)
def test_from_norm_one_every_truncated_iterate_keeps_norm_one(order):
    weight = torch.diag(torch.linspace(0, 1, 201, dtype=torch.float64))
    for _ in range(25):
        weight = iterate(weight, bjorck(1, order))
        assert float(weight.diagonal().max()) <= 1 + 4e-16


@pytest.mark.parametrize(("order", "reach"), [(1, 2.0), (3, 2**0.5), (5, 2**0.5)])
def test_odd_orders_never_exceed_one_within_their_reach(order, reach):
    sigma = torch.linspace(0, reach, 401, dtype=torch.float64)
    assert float(iterate(torch.diag(sigma), bjorck(1, order)).abs().max()) <= 1 + 1e-14


@pytest.mark.parametrize("order", [2, 4])
def test_even_orders_overshoot(order):
    assert float(iterate(torch.tensor([[1.3]], dtype=torch.float64), bjorck(1, order))) > 1.001


def test_order_one_beyond_two_leaves_the_ball():
    assert abs(float(iterate(torch.tensor([[2.01]], dtype=torch.float64), bjorck(1, 1)))) > 1.03


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_bjorck_converges_to_the_polar_factor(order, shape):
    weight = gaussian(*shape)
    weight = weight / torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(iterate(weight, bjorck(40, order)), svd_factor(weight), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_square_gaussian_needs_more_than_fifteen_plain_steps_and_polar_takes_them(dtype):
    weight = gaussian(200, 200, dtype=dtype)
    plain = iterate(weight / torch.linalg.matrix_norm(weight, 2), bjorck(15))
    assert float(torch.linalg.matrix_norm(residual(plain), 2)) > 0.5
    eps = torch.finfo(dtype).eps
    assert float(torch.linalg.matrix_norm(residual(polar(weight)))) < 40 * eps * 200**0.5


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_a_square_gaussian_of_size_720_becomes_orthonormal(dtype, allowed):
    factor = polar(gaussian(720, 720, dtype=dtype)).double()
    assert float(torch.linalg.matrix_norm(residual(factor), 2)) <= allowed


@pytest.mark.parametrize("shape", [*SHAPES, (12, 12), (40, 30), (30, 40), (1, 50), (50, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polar_is_the_svd_factor(shape, dtype):
    weight = gaussian(*shape, dtype=dtype)
    condition = float(torch.linalg.cond(weight.double()))
    tolerance = 50 * torch.finfo(dtype).eps * condition
    torch.testing.assert_close(polar(weight).double(), svd_factor(weight), atol=tolerance, rtol=0)


@pytest.mark.parametrize("edge", [2**0.5, 3**0.5, 5**0.5, 2.0, 7**0.5])
@pytest.mark.parametrize("offset", [-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
@pytest.mark.parametrize("rows", [3, 6])
def test_around_the_edges_of_the_basins_no_singular_value_changes_sign(edge, offset, rows):
    weight, factor = with_singular_values([edge + offset, 1.0, 0.7], rows)
    torch.testing.assert_close(polar(weight), factor, atol=1e-10, rtol=0)


@pytest.mark.parametrize("value", [1.74, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_between_root_three_and_root_five_bjorck_flips_the_sign_and_polar_does_not(value, dtype):
    weight, factor = with_singular_values([value, 1.0, 0.9], 3)
    assert float(iterate(torch.tensor([[value]], dtype=torch.float64), bjorck(1))) < 0  # the trap is there
    torch.testing.assert_close(polar(weight.to(dtype)).double(), factor, atol=200 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e-6, 1e6, 1e30, 1e150])
def test_polar_does_not_depend_on_the_scale(scale):
    weight, factor = with_singular_values([1.0, 0.6, 0.3], 5)
    torch.testing.assert_close(polar(weight * scale), factor, atol=1e-10, rtol=0)


def test_a_tiny_singular_value_still_becomes_one():
    weight, factor = with_singular_values([1.0, 1e-4, 1e-9], 4)
    torch.testing.assert_close(polar(weight), factor, atol=1e-5, rtol=0)
    assert float(torch.linalg.matrix_norm(residual(polar(weight)))) < 1e-13


@pytest.mark.parametrize("shape", [(4, 4), (4, 2), (2, 4), (1, 3)])
def test_even_zero_gets_an_orthonormal_factor(shape):
    assert float(torch.linalg.matrix_norm(residual(polar(torch.zeros(shape))))) < 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(3, 3), (1, 4), (5, 2)])
def test_nan_and_infinity_have_no_polar_factor(bad, shape):
    weight = gaussian(*shape)
    weight[0, -1] = bad
    with pytest.raises(TightlipError, match="NaN or infinite"):
        polar(weight)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 5)])
def test_polar_is_batched_also_when_members_differ_in_difficulty(shape):
    weight = gaussian(2, 3, *shape)
    weight[0, 1] *= 1e3
    weight[1, 2] = polar(weight[1, 2])
    each = torch.stack([torch.stack([polar(w) for w in row]) for row in weight])
    torch.testing.assert_close(polar(weight), each, atol=1e-11, rtol=0)
    assert polar(weight).shape == weight.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    weight = gaussian(20, 12).to(dtype)
    assert torch.equal(polar(weight), polar(weight.float()).to(dtype))


def test_polar_of_a_member_leaves_its_input_alone():
    weight = torch.eye(3)
    result = polar(weight)
    result.zero_()
    assert torch.equal(weight, torch.eye(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
def test_first_and_second_derivatives_match_finite_differences(shape, near):
    weight = gaussian(*shape)
    if near:
        weight = svd_factor(weight) + 0.01 * gaussian(*shape, seed=1)
    weight.requires_grad_()
    assert torch.autograd.gradcheck(polar, weight, atol=1e-6)
    assert torch.autograd.gradgradcheck(polar, weight, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("shape", [(12, 12), (16, 9), (9, 16), (40, 40)])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.4])
def test_the_closed_derivative_equals_autograd_through_sixty_iterations(shape, spread):
    n = min(shape)
    weight, _ = with_singular_values(torch.linspace(1 - spread, 1 + spread, n).tolist(), max(shape))
    weight = (weight if shape[0] >= shape[1] else weight.mT.contiguous()).requires_grad_()
    upstream = gaussian(*shape, seed=3)
    (closed,) = torch.autograd.grad(polar(weight), weight, upstream)
    (unrolled,) = torch.autograd.grad(iterate(weight, bjorck(60)), weight, upstream)
    assert float((closed - unrolled).abs().max()) <= 2e-12 * float(unrolled.abs().max())


def test_when_the_iteration_does_not_arrive_the_log_says_so_and_the_factor_is_exact(caplog):
    weight, factor = with_singular_values([1.0, 0.9, 1e-12], 3)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(polar(weight), factor, atol=1e-5, rtol=0)
    assert "30 iterations left" in caplog.text


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
def test_where_there_is_no_derivative_a_sentence_says_so(shape):
    weight = torch.zeros(shape, requires_grad=True)
    with pytest.raises(TightlipError, match="no finite derivative at a matrix without full rank"):
        polar(weight).sum().backward()


def test_derivatives_are_batched():
    assert torch.autograd.gradcheck(polar, gaussian(2, 4, 3).requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tangent_projection_is_the_derivative_at_an_orthonormal_weight(shape):
    weight, gradient = svd_factor(gaussian(*shape)).requires_grad_(), gaussian(*shape, seed=1)
    (exact,) = torch.autograd.grad(polar(weight), weight, gradient)
    torch.testing.assert_close(tangent(weight.detach(), gradient), exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tangent_projection_is_idempotent_and_stays_on_the_set_to_first_order(shape):
    weight, gradient = svd_factor(gaussian(*shape)), gaussian(*shape, seed=1)
    along = tangent(weight, gradient)
    torch.testing.assert_close(tangent(weight, along), along, atol=1e-12, rtol=0)
    assert float(torch.linalg.matrix_norm(residual(weight + 1e-5 * along))) < 1e-8


@pytest.mark.parametrize(
    "function", [polar, lambda w: orthonormalize(w, bjorck(5)), lambda w: tangent(w, w.flip(0)), residual]
)
def test_autocast_does_not_touch_the_arithmetic_of_constraints(function):
    weight = polar(gaussian(32, 16, dtype=torch.float32)) * 0.9
    with torch.autocast("cpu", torch.bfloat16):
        under = function(weight)
    assert under.dtype == torch.float32
    assert torch.equal(under, function(weight))


def test_autocast_does_not_touch_the_backward_pass():
    weight, gradient = gaussian(32, 16, dtype=torch.float32).requires_grad_(), gaussian(32, 16, dtype=torch.float32)
    (exact,) = torch.autograd.grad(polar(weight), weight, gradient)
    with torch.autocast("cpu", torch.bfloat16):
        (under,) = torch.autograd.grad(polar(weight), weight, gradient)
    torch.testing.assert_close(under, exact, atol=1e-6, rtol=0)


def gradient_sum(weight, direction):
    return (polar(weight) * direction).sum()


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_vmap_and_forward_mode_give_what_loops_and_differences_give(shape):
    torch.manual_seed(0)
    weights, directions = torch.randn(2, 6, *shape, dtype=torch.float64)
    torch.testing.assert_close(vmap(polar)(weights), torch.stack([polar(w) for w in weights]), atol=1e-12, rtol=0)
    batched = vmap(grad(gradient_sum))(weights, directions)
    looped = torch.stack([grad(gradient_sum)(w, d) for w, d in zip(weights, directions, strict=True)])
    torch.testing.assert_close(batched, looped, atol=1e-10, rtol=0)
    one_weight = vmap(grad(gradient_sum), (None, 0))(weights[0], directions)
    torch.testing.assert_close(one_weight[1], grad(gradient_sum)(weights[0], directions[1]), atol=1e-10, rtol=0)
    _, tangent = jvp(polar, (weights[0],), (directions[0],))
    step = 1e-6
    difference = (polar(weights[0] + step * directions[0]) - polar(weights[0] - step * directions[0])) / (2 * step)
    torch.testing.assert_close(tangent, difference, atol=1e-6, rtol=1e-5)
    second = jacrev(jacrev(gradient_sum))(weights[0], directions[0])
    torch.testing.assert_close(hessian(gradient_sum)(weights[0], directions[0]), second, atol=1e-8, rtol=1e-6)


def test_a_matrix_without_full_rank_has_no_derivative_under_vmap_either():
    weights = torch.stack([torch.eye(3)[:, :2], torch.zeros(3, 2)])
    with pytest.raises(TightlipError, match="no finite derivative"):
        vmap(grad(gradient_sum))(weights, torch.ones(2, 3, 2))
