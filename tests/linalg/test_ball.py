import math
import signal
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from truths import gaussian

from tightlip import TightlipError
from tightlip.linalg import ball
from tightlip.linalg.ball import Guess, project_l1_ball, project_l1_ball_


@pytest.fixture(autouse=True)
def _half_a_minute():
    """A projection that does not terminate fails instead of hanging the suite."""

    def stop(*_):
        raise TimeoutError("the projection does not terminate")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def reference(row, radius=1):
    """The projection in exact rationals: of all thresholds with k survivors, the one that is consistent."""
    y = [Fraction(v) for v in row]
    if sum(map(abs, y)) <= radius:
        return [float(v) for v in y]
    ordered = sorted(map(abs, y), reverse=True)
    count = max(k for k in range(1, len(y) + 1) if ordered[k - 1] > (sum(ordered[:k]) - radius) / k)
    threshold = (sum(ordered[:count]) - radius) / count
    return [float(max(abs(v) - threshold, 0) * (1 if v > 0 else -1)) for v in y]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 30.0])
def test_the_projection_equals_exact_rationals(width, scale):
    weight = gaussian(20, width) * scale
    exact = torch.tensor([reference(row) for row in weight.tolist()], dtype=torch.float64)
    torch.testing.assert_close(project_l1_ball(weight), exact, atol=1e-13, rtol=0)


def test_the_result_is_the_nearest_member_because_no_vertex_lies_ahead():
    weight = gaussian(30, 8) * 2
    nearest = project_l1_ball(weight)
    assert float(nearest.abs().sum(-1).max()) <= 1 + 1e-14
    ahead = weight - nearest  # optimal exactly if <ahead, z − nearest> ≤ 0 for all z in the ball
    assert float((ahead.abs().amax(-1) - (ahead * nearest).sum(-1)).max()) <= 1e-13


@pytest.mark.parametrize("radius", [0.1, 1.0, 5.0])
def test_any_radius(radius):
    weight = gaussian(10, 6)
    exact = torch.tensor([reference(row, Fraction(radius)) for row in weight.tolist()], dtype=torch.float64)
    torch.testing.assert_close(project_l1_ball(weight, radius), exact, atol=1e-13, rtol=0)


@pytest.mark.parametrize("radius", [0.0, -1.0])
def test_an_empty_or_degenerate_ball_is_refused_or_exact(radius):
    try:
        result = project_l1_ball(torch.tensor([[1.0, 1.0, 2.0]]), radius)
    except TightlipError:
        return
    assert radius == 0
    assert not result.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_members_are_left_alone_bit_for_bit_and_never_pushed_outwards(dtype):
    members = torch.tensor([[0.1, -0.2, 0.3], [0.0, -0.0, 0.0], [1.0, 0.0, 0.0], [0.5, -0.25, 0.25]], dtype=dtype)
    assert torch.equal(project_l1_ball(members), members)
    assert torch.equal(project_l1_ball(members).signbit(), members.signbit())


def test_zeros_stay_zero_also_in_rows_that_are_projected():
    assert project_l1_ball(torch.tensor([[3.0, 0.0, -2.5]])).tolist() == [[0.75, 0.0, -0.25]]


def test_ties_share_the_ball():
    assert project_l1_ball(torch.tensor([[2.0, -2.0, 2.0, -2.0]])).tolist() == [[0.25, -0.25, 0.25, -0.25]]


def test_rows_of_one_element_are_clamped():
    assert project_l1_ball(torch.tensor([[5.0], [-7.0], [0.5]])).tolist() == [[1.0], [-1.0], [0.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_at_the_threshold_do_not_keep_the_iteration_busy(dtype):
    weight = torch.combinations(torch.arange(0, 41).to(dtype) / 10, 3, with_replacement=True)
    exact = torch.tensor([reference(row) for row in weight[::50].tolist()], dtype=torch.float64)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(project_l1_ball(weight)[::50].double(), exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("huge", [1e6, 1e9, 1e20, 1e30])
def test_an_exploded_entry_takes_the_ball_and_the_iteration_ends(huge):
    result = project_l1_ball(torch.tensor([[huge, -1.0, 2.0]]))
    torch.testing.assert_close(result, torch.tensor([[1.0, 0.0, 0.0]]))


@given(st.lists(st.integers(-64, 64), min_size=1, max_size=9), st.sampled_from([1 / 64, 0.1, 1.0]))
def test_any_row_of_multiples(row, unit):
    weight = torch.tensor([[unit * v for v in row]], dtype=torch.float64)
    exact = torch.tensor([reference(weight[0].tolist())], dtype=torch.float64)
    torch.testing.assert_close(project_l1_ball(weight), exact, atol=1e-12, rtol=0)


def test_large_matrices_are_projected_block_by_block_and_to_float32s_precision():
    weight = torch.randn(700, 900, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 1, 700)[:, None]
    result, before = project_l1_ball(weight), weight.clone()
    torch.testing.assert_close(result.double(), project_l1_ball(weight.double()), atol=3e-7, rtol=0)
    assert float(result.double().abs().sum(-1).max()) <= 1 + 1e-5
    inside = weight.abs().sum(-1) <= 1
    assert inside.any() and torch.equal(result[inside], weight[inside])
    assert torch.equal(weight, before)
    assert torch.equal(project_l1_ball(weight.mT.contiguous().mT), result)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 0, 4)])
def test_nothing_is_projected_to_nothing(shape):
    assert project_l1_ball(torch.zeros(shape)).shape == shape


def test_leading_dimensions_are_batches():
    weight = gaussian(2, 3, 4, 5)
    each = torch.stack([torch.stack([project_l1_ball(w) for w in row]) for row in weight])
    torch.testing.assert_close(project_l1_ball(weight), each, atol=1e-15, rtol=0)


def test_the_gradient_is_exact_inside_and_outside():
    weight = torch.cat((gaussian(4, 5) * 2, gaussian(2, 5, seed=1) * 0.1)).requires_grad_()
    assert float(weight.detach()[:4].abs().sum(-1).min()) > 1
    assert torch.autograd.gradcheck(project_l1_ball, weight)
    assert torch.autograd.gradgradcheck(project_l1_ball, weight)


def test_the_gradient_is_finite_at_zero_and_at_ties():
    weight = torch.tensor([[0.0, 0.0], [2.0, 2.0], [1.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(project_l1_ball(weight).sum(), weight)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (700, 900), (0, 4), (4, 0)])
def test_in_place_is_the_same_bit_for_bit_and_copies_nothing(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 10
    expected, place = project_l1_ball(weight), weight.data_ptr()
    project_l1_ball_(weight)
    assert torch.equal(weight, expected) and weight.data_ptr() == place
    strided = torch.randn(shape[::-1]).mT
    expected = project_l1_ball(strided)
    project_l1_ball_(strided)
    torch.testing.assert_close(strided, expected, rtol=0, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_in_place_leaves_what_it_refuses_as_it_is(bad):
    weight = torch.tensor([[3.0, 1.0], [bad, 2.0]])
    before = weight.clone()
    with pytest.raises(TightlipError, match="lower the learning rate"):
        project_l1_ball_(weight)
    assert torch.equal(weight.nan_to_num(), before.nan_to_num())
    with pytest.raises(TightlipError, match="radius"):
        project_l1_ball_(before, 0.0)


def steps(count=6, shape=(40, 300)):
    """Weights on the ball, each moved a little further than the one before."""
    generator = torch.Generator().manual_seed(0)
    weight = project_l1_ball(torch.randn(shape, generator=generator))
    direction = torch.randn(shape, generator=generator)
    for _ in range(count):
        direction = 0.9 * direction + 0.1 * torch.randn(shape, generator=generator)
        weight = weight + 1e-3 * direction.sign()
        yield weight.clone()
        weight = project_l1_ball(weight)


class Counts(TorchDispatchMode):
    """How often survivors are counted."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.times += function is torch.ops.aten.sign_.default
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("block", [ball.BLOCK, 3000])
def test_the_last_thresholds_lead_to_the_same_point_in_fewer_steps(block, monkeypatch):
    monkeypatch.setattr(ball, "BLOCK", block)
    guess, warm, cold = None, 0, 0
    for weight in steps():
        expected = weight.clone()
        with Counts() as from_nothing:
            project_l1_ball_(expected)
        with Counts() as from_the_last:
            guess = project_l1_ball_(weight, guess=guess)
        torch.testing.assert_close(weight, expected, atol=1e-7, rtol=0)
        assert float(weight.double().abs().sum(-1).max()) <= 1 + 1e-6
        warm, cold = warm + from_the_last.times, cold + from_nothing.times
    assert cold >= 8 and warm <= (0.15 if block == 3000 else 0.4) * cold


@pytest.mark.parametrize("stretch", [0.0, 0.5, 3.0, 1e9, -1e9, math.inf, math.nan])
@pytest.mark.parametrize("survivors", [1.0, 17.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_guess_leads_to_the_nearest_point(stretch, survivors, dtype):
    weight = torch.cat((gaussian(20, 300) / 100, gaussian(20, 300, seed=1) / 300)).to(dtype)
    expected = project_l1_ball(weight)
    inside = weight.abs().sum(-1) <= 1
    assert 0 < int(inside.sum()) < 40 and float(weight.abs().sum(-1).max()) < 4
    before = weight.clone()
    column = torch.ones(40, 1, dtype=dtype)
    project_l1_ball_(weight, guess=Guess(stretch * column, survivors * column))
    torch.testing.assert_close(weight, expected, atol=4 * torch.finfo(dtype).eps, rtol=0)
    assert torch.equal(weight[inside], before[inside])


def test_a_guess_of_other_rows_is_not_used():
    weight = gaussian(4, 5) / 2
    assert 1 < float(weight.abs().sum(-1).max()) < ball.UNSHIFTED
    expected = project_l1_ball(weight)
    for guess in (project_l1_ball_(gaussian(7, 5)), project_l1_ball_(gaussian(4, 5, seed=1).float() / 2)):
        other = weight.clone()
        project_l1_ball_(other, guess=guess)
        assert torch.equal(other, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_bit_of_a_threshold_does_not_add_up_over_many_survivors(dtype):
    """Without what follows the iteration, float32 ended at 1.0007 here."""
    weight = torch.full((4, 100_000), 0.5, dtype=dtype)
    weight[0, 0], weight[1, ::3], weight[2], weight[3] = 1.0, -0.51, 0.0, -1e-6
    exact, members = project_l1_ball(weight.double()), weight[2:].clone()
    project_l1_ball_(weight)
    assert torch.equal(weight[2:], members)
    assert float(weight.double().abs().sum(-1).max()) <= 1 + 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(weight.double(), exact, atol=torch.finfo(dtype).eps, rtol=0)


def test_radii_near_the_largest_number():
    for dtype in (torch.float32, torch.float64):
        most = torch.finfo(dtype).max
        result = project_l1_ball(torch.tensor([[most, most], [most / 8, 0.0]], dtype=dtype), most / 4)
        expected = torch.tensor([[most / 8, most / 8], [most / 8, 0.0]], dtype=dtype)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_far_rows_beside_near_ones_and_members():
    weight = torch.tensor([[1e30, -1e30, 3.0], [0.5, -0.25, -0.0], [1.5, 0.25, -0.5], [3e38, 3e38, 3e38]])
    expected = [[0.5, -0.5, 0.0], [0.5, -0.25, -0.0], [1.0, 0.0, -0.0], [1 / 3, 1 / 3, 1 / 3]]
    guess = project_l1_ball_(weight)
    torch.testing.assert_close(weight, torch.tensor(expected), atol=2e-7, rtol=0)
    assert torch.isfinite(guess.relative_threshold).all() and float(guess.survivors.min()) >= 1


def test_vmap_and_forward_mode_give_what_loops_and_differences_give():
    torch.manual_seed(0)
    weights, directions = torch.randn(2, 5, 3, 4, dtype=torch.float64)

    def total(weight, direction):
        return (project_l1_ball(weight) * direction).sum()

    torch.testing.assert_close(vmap(project_l1_ball, in_dims=2)(weights.permute(1, 2, 0)), project_l1_ball(weights))
    batched = vmap(grad(total))(weights, directions)
    looped = torch.stack([grad(total)(w, d) for w, d in zip(weights, directions, strict=True)])
    torch.testing.assert_close(batched, looped)
    one_weight = vmap(grad(total), (None, 0))(weights[0], directions)
    torch.testing.assert_close(one_weight[2], grad(total)(weights[0], directions[2]))
    step = 1e-6
    higher, lower = (project_l1_ball(weights + sign * step * directions) for sign in (1, -1))
    _, tangent = jvp(project_l1_ball, (weights,), (directions,))
    torch.testing.assert_close(tangent, (higher - lower) / (2 * step), atol=1e-8, rtol=0)
