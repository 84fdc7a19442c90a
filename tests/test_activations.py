import copy
import math

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap
from truths import gaussian

from tightlip import FullSort, GroupSort, Householder, MaxMin, Maxout, TightlipError, lipschitz
from tightlip.activations import group_sort

SIZES = [1, 2, 3, 4, 6, 12]


def test_neighbours_are_sorted_ascending_within_groups():
    x = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 0.0])
    assert GroupSort(2)(x).tolist() == [1, 3, 2, 5, 0, 4]
    assert GroupSort(3)(x).tolist() == [1, 2, 3, 0, 4, 5]
    assert FullSort()(x).tolist() == [0, 1, 2, 3, 4, 5]
    assert GroupSort(1)(x).tolist() == x.tolist()


def test_strided_groups_have_members_that_are_n_over_k_apart():
    x = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 0.0])
    assert GroupSort(2, contiguous=False)(x).tolist() == [3, 1, 0, 5, 4, 2]  # pairs (0, 3), (1, 4), (2, 5)
    assert GroupSort(3, contiguous=False)(x).tolist() == [2, 0, 3, 1, 4, 5]  # triples (0, 2, 4), (1, 3, 5)


@pytest.mark.parametrize("size", SIZES)
def test_contiguous_and_strided_groups_differ_by_one_fixed_permutation(size):
    permutation = torch.arange(12).reshape(12 // size, size).T.flatten()  # strided position ← contiguous position
    x = gaussian(7, 12)
    assert torch.equal(GroupSort(size, contiguous=False)(x[:, permutation]), GroupSort(size)(x)[:, permutation])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("contiguous", [True, False])
def test_each_group_is_sorted_and_keeps_its_members(size, contiguous):
    x = gaussian(5, 12)
    shape, axis = ((12 // size, size), 2) if contiguous else ((size, 12 // size), 1)
    before, after = x.unflatten(1, shape), GroupSort(size, contiguous=contiguous)(x).unflatten(1, shape)
    assert (after.diff(dim=axis) >= 0).all()
    assert torch.equal(before.sort(axis).values, after)


def test_maxmin_is_groupsort_of_two_and_fullsort_takes_any_width():
    x = gaussian(5, 12)
    assert torch.equal(MaxMin()(x), GroupSort(2)(x))
    assert torch.equal(MaxMin(contiguous=False)(x), GroupSort(2, contiguous=False)(x))
    for width in (1, 2, 5, 7):
        assert torch.equal(FullSort()(x[:, :width]), x[:, :width].sort(1).values)


@pytest.mark.parametrize("size", [2, 3, None])
@pytest.mark.parametrize("contiguous", [True, False])
def test_every_axis_of_every_rank_gives_what_the_last_axis_gives(size, contiguous):
    for shape, dim in [((6,), 0), ((2, 6), 1), ((2, 6, 3), 1), ((2, 5, 6), -1), ((2, 6, 3, 4), 1), ((2, 6, 3, 4), -3)]:
        x = gaussian(*shape)
        expected = group_sort(x.movedim(dim, -1).contiguous(), size, -1, contiguous).movedim(-1, dim)
        result = group_sort(x, size, dim, contiguous)
        assert torch.equal(result, expected)
        assert result.shape == x.shape


def test_channels_last_memory_changes_nothing():
    x = gaussian(2, 6, 3, 4)
    assert torch.equal(MaxMin(dim=1)(x.to(memory_format=torch.channels_last)), MaxMin(dim=1)(x))


@pytest.mark.parametrize(("activation", "width"), [(MaxMin(), 5), (GroupSort(4), 6), (GroupSort(8), 4), (MaxMin(), 1)])
def test_a_width_that_does_not_divide_is_a_clear_error(activation, width):
    with pytest.raises(TightlipError, match=f"{width} features do not divide .* choose a width that is a multiple of"):
        activation(torch.zeros(3, width))


def test_the_divided_axis_is_the_one_that_was_asked_for():
    with pytest.raises(TightlipError, match="3 features"):
        MaxMin(dim=1)(torch.zeros(2, 3, 4))
    assert MaxMin(dim=1)(torch.zeros(2, 4, 3)).shape == (2, 4, 3)


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.zeros(4)])
def test_an_axis_that_does_not_exist_is_a_clear_error(x):
    with pytest.raises(TightlipError, match="does not exist: dim is the axis of the features"):
        MaxMin(dim=1)(x)


@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_an_impossible_group_size_is_a_clear_error(size):
    with pytest.raises((TightlipError, TypeError)) as caught:
        GroupSort(size)
    assert isinstance(caught.value, TightlipError) or isinstance(size, float)  # annotations refuse floats under test


POINTS = {
    "generic": gaussian(12),
    "all tied": torch.zeros(12, dtype=torch.float64),
    "some tied": torch.tensor([1, 1, 2, 2, 2, 1, 0, 0, 3, 3, 3, 3], dtype=torch.float64),
    "signed zeros": torch.tensor([0.0, -0.0] * 6, dtype=torch.float64),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_the_jacobian_is_a_permutation_matrix_also_at_ties(size, contiguous, point):
    def activation(x):
        return group_sort(x, size, contiguous=contiguous)

    jacobian = torch.autograd.functional.jacobian(activation, POINTS[point])
    assert set(jacobian.flatten().tolist()) <= {0.0, 1.0}
    assert torch.equal(jacobian.sum(0), torch.ones(12, dtype=torch.float64))
    assert torch.equal(jacobian.sum(1), torch.ones(12, dtype=torch.float64))
    assert torch.equal(jacobian @ POINTS[point], activation(POINTS[point]))


@pytest.mark.parametrize("size", [2, 3, None])
@pytest.mark.parametrize("contiguous", [True, False])
def test_vmap_and_jacrev_agree_with_plain_autograd(size, contiguous):
    def activation(x):
        return group_sort(x, size, contiguous=contiguous)

    x = gaussian(5, 6)
    assert torch.equal(vmap(activation)(x), activation(x))
    each = torch.stack([torch.autograd.functional.jacobian(activation, row) for row in x])
    assert torch.equal(vmap(jacrev(activation))(x), each)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_positive_homogeneity(size, scale):
    x = gaussian(5, 12)
    assert torch.equal(GroupSort(size)(scale * x), scale * GroupSort(size)(x))


@pytest.mark.parametrize("size", [1, 2, 3, None])
@pytest.mark.parametrize(("shape", "dim"), [((5, 6), -1), ((5, 6), 1), ((2, 6, 3, 4), 1), ((6,), 0), ((6, 3), 0)])
def test_a_bias_is_added_before_sorting(size, shape, dim):
    x, bias = torch.randn(shape).requires_grad_(), torch.randn(6).requires_grad_()
    added = x + bias.view(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    for contiguous in (True, False):
        result, expected = group_sort(x, size, dim, contiguous, bias), group_sort(added, size, dim, contiguous)
        assert torch.equal(result, expected)
        gradient = torch.randn(shape)
        pairs = (torch.autograd.grad(y, (x, bias), gradient, retain_graph=True) for y in (result, expected))
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(group_sort(x, size, dim, bias=bias), group_sort(added, size, dim))


def test_a_bias_is_taken_in_the_dtype_of_its_input():
    x, bias = torch.randn(3, 6, dtype=torch.float16), torch.randn(6).requires_grad_()
    result = group_sort(x, 2, bias=bias)
    assert result.dtype == torch.float16 and torch.equal(result, group_sort(x + bias.half(), 2))
    assert torch.autograd.grad(result.sum(), bias)[0].tolist() == [3.0] * 6


@pytest.mark.parametrize("wrong", [torch.zeros(5), torch.zeros(1, 6), torch.tensor(1.0)])
def test_a_bias_of_another_shape_is_refused(wrong):
    with pytest.raises(TightlipError, match="not one number for each of 6 features"):
        group_sort(torch.zeros(4, 6), 2, bias=wrong)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("contiguous", [True, False])
def test_first_and_second_derivatives(size, contiguous):
    def f(x):
        return group_sort(x, size, contiguous=contiguous).pow(3)

    x = gaussian(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept_and_nothing_is_rounded(dtype):
    x = gaussian(3, 6).to(dtype)
    for activation in (MaxMin(), GroupSort(3), FullSort()):
        result = activation(x)
        assert result.dtype == dtype
        assert torch.equal(result.sort(1).values, x.sort(1).values)


@pytest.mark.parametrize("size", [2, 3])
def test_nan_is_passed_on(size):
    assert GroupSort(size)(torch.tensor([1.0, math.nan] * 3)).isnan().any()


def test_the_repr_says_how_it_was_made_and_copies_are_equal():
    assert repr(GroupSort(4)) == "GroupSort(4, dim=-1)"
    assert repr(MaxMin(contiguous=False)) == "MaxMin(dim=-1, contiguous=False)"
    assert repr(FullSort(dim=1)) == "FullSort(dim=1)"
    for activation in (GroupSort(3, dim=1, contiguous=False), MaxMin(), FullSort()):
        other, x = copy.deepcopy(activation), gaussian(2, 6)
        assert repr(other) == repr(activation)
        assert torch.equal(other(x), activation(x))


def test_activations_are_audited_as_exactly_one_and_have_no_state():
    for activation in (GroupSort(3), MaxMin(dim=1), FullSort()):
        assert lipschitz(nn.Sequential(activation, activation), 2).constant == 1.0
        assert not list(activation.parameters())
        assert not activation.state_dict()


def test_maxout_takes_the_largest_of_each_group_of_neighbors():
    x = torch.tensor([[1.0, 5.0, 2.0, 4.0, 0.0, -1.0]])
    assert Maxout(2)(x).tolist() == [[5.0, 4.0, 0.0]]
    assert Maxout(3)(x).tolist() == [[5.0, 4.0]]
    assert Maxout(2, dim=1)(torch.zeros(2, 6, 3, 3)).shape == (2, 3, 3, 3)


def test_householder_at_a_right_angle_is_maxmin_with_the_largest_first():
    x = torch.randn(20, 8)
    swapped = MaxMin()(x).unflatten(-1, (4, 2)).flip(-1).flatten(-2)
    torch.testing.assert_close(Householder(4)(x), swapped)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 3.0, -2.0])
def test_householder_keeps_norms_and_meets_itself_at_the_crease(angle):
    layer = Householder(3).double()
    layer.angle.data.fill_(angle)
    x = torch.randn(50, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x).norm(dim=1), x.norm(dim=1))
    normal = torch.tensor([math.sin(angle / 2), -math.cos(angle / 2)], dtype=torch.float64)
    along = torch.stack((-normal[1], normal[0])).repeat(3)
    step = 1e-9 * normal.repeat(3)
    torch.testing.assert_close(layer((along + step)[None]), layer((along - step)[None]), atol=1e-8, rtol=0)


def test_householder_claims_nothing_in_the_inf_norm_where_it_is_steeper():
    layer = Householder(1).double()
    layer.angle.data.fill_(3 * math.pi / 4)
    jacobian = torch.autograd.functional.jacobian(layer, torch.tensor([[-1.0, 1.0]], dtype=torch.float64)).reshape(2, 2)
    assert float(jacobian.abs().sum(1).max()) > 1.4
    assert lipschitz(layer, 2, 2).constant == 1
    with pytest.raises(TightlipError, match="no rule proves"):
        lipschitz(layer, math.inf)


def test_householder_of_another_width_is_refused():
    with pytest.raises(TightlipError, match="match them"):
        Householder(3)(torch.zeros(1, 8))


def test_a_bias_of_a_class_of_its_own_sees_torchs_operations_only():
    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(function.__name__)
            return super().__torch_function__(function, types, args, kwargs or {})

    seen = []
    x, bias = torch.randn(3, 40), torch.randn(40)
    for size in (2, 20):
        result = group_sort(x, size, bias=bias.as_subclass(Own))
        assert type(result) is Own and torch.equal(result.as_subclass(torch.Tensor), group_sort(x + bias, size))
    assert "add" in seen and "numpy" not in seen
