import itertools

import pytest
import torch
from truths import gaussian

from tightlip.linalg.comparators import LARGEST_NETWORK, sorting_network
from tightlip.linalg.sorting import sort_members

SIZES = range(1, LARGEST_NETWORK + 4)


@pytest.mark.parametrize("size", range(1, 11))
def test_a_network_sorts_every_sequence_of_zeros_and_ones_and_so_every_sequence(size):
    values = torch.tensor(list(itertools.product([0, 1], repeat=size)))  # Knuth's 0-1 principle
    parts = list(values.unbind(1))
    for i, j in sorting_network(size):
        assert i < j
        parts[i], parts[j] = torch.minimum(parts[i], parts[j]), torch.maximum(parts[i], parts[j])
    assert torch.equal(torch.stack(parts, 1), values.sort(1).values)


@pytest.mark.parametrize(("size", "comparators"), [(1, 0), (2, 1), (3, 3), (4, 5), (8, 19), (16, 63)])
def test_networks_are_as_small_as_batchers(size, comparators):
    assert len(sorting_network(size)) == comparators


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_values_are_those_of_torchs_sort_with_and_without_a_gradient(size, dim):
    x = torch.randint(0, 5, (size, size, size), generator=torch.Generator().manual_seed(size)).double()
    assert torch.equal(sort_members(x, dim), x.sort(dim).values)
    assert torch.equal(sort_members(x.clone().requires_grad_(), dim).detach(), x.sort(dim).values)


@pytest.mark.parametrize("size", [2, 3])
def test_rows_that_share_their_memory_and_columns_with_gaps_are_sorted_as_any(size):
    row = torch.arange(size, 0, -1.0)
    assert torch.equal(sort_members(row.expand(4, size), 1), row.flip(0).expand(4, size))
    gaps = gaussian(6, 3 * size)[::2, ::3]
    assert torch.equal(sort_members(gaps, 1), gaps.sort(1).values)


@pytest.mark.parametrize("size", range(1, LARGEST_NETWORK + 1))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gradients_travel_back_bit_for_bit_also_what_arithmetic_would_lose(size, dtype):
    x = gaussian(7, size).argsort(1).to(dtype).requires_grad_()  # no ties
    gradient = gaussian(7, size, seed=1).to(dtype)
    gradient[0, 0], gradient[1, 0], gradient[2, 0] = float("nan"), float("-inf"), -0.0
    sort_members(x, 1).backward(gradient)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[gradient.element_size()]
    expected = gradient.view(bits).gather(1, x.detach().argsort(1).argsort(1))
    assert torch.equal(x.grad.view(bits), expected)


@pytest.fixture(params=[1, 3])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("shape", [(5, 17), (300, 400), (2, 40, 3), (40,), (0, 20)])
def test_long_rows_of_float32_are_sorted_in_one_or_many_threads(shape):
    x = torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(0)) / 4.0
    x[..., :1] = -0.0
    x[..., 1:2] = float("inf")
    dim = 1 if len(shape) > 1 else 0
    assert torch.equal(sort_members(x, dim), x.sort(dim).values)
    leaf, before = x.clone().requires_grad_(), x.clone()
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    sort_members(leaf, dim).backward(gradient)
    assert torch.equal(leaf.grad, torch.zeros_like(x).scatter(dim, x.sort(stable=True, dim=dim).indices, gradient))
    assert torch.equal(x, before)


def test_second_derivatives_of_long_rows_are_those_of_torchs_sort():
    x = torch.randn(3, 20).requires_grad_()
    found = []
    for way in (lambda x: sort_members(x, 1), lambda x: x.sort(1).values):
        (first,) = torch.autograd.grad((way(x) * torch.arange(20)).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found)


def test_nan_in_a_long_row_is_passed_on_and_stays_alone():
    x = torch.randn(2, 20)
    x[0, 3], x[1, 5] = float("nan"), -float("nan")
    for result in (sort_members(x, 1), sort_members(x.clone().requires_grad_(), 1)):
        for before, after in zip(x, result.detach(), strict=True):
            assert torch.equal(after[~after.isnan()], before[~before.isnan()].sort().values)
            assert after.isnan().sum() == 1


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("size", [2, 4, 20])
def test_derivatives_forward_in_batches_and_of_negative_views(size):
    x = torch.randn(size)

    def f(x):
        return sort_members(x, 0)

    expected = torch.nn.functional.one_hot(x.argsort(), size).float()
    for vectorize, strategy in ((False, "reverse-mode"), (True, "reverse-mode"), (True, "forward-mode")):
        jacobian = torch.autograd.functional.jacobian(f, x, vectorize=vectorize, strategy=strategy)
        assert torch.equal(jacobian, expected)
    assert torch.equal(torch.func.jacfwd(f)(x), expected)
    assert torch.equal(torch.func.hessian(lambda x: f(x)[0] ** 2)(x), 2 * torch.outer(expected[0], expected[0]))
    leaf = x.clone().requires_grad_()
    f(leaf).backward(torch._neg_view(torch.arange(1.0, size + 1)))
    assert torch.equal(leaf.grad, -(expected.mT @ torch.arange(1.0, size + 1)))


@pytest.mark.filterwarnings("ignore")  # tracing is old, and still used
@pytest.mark.parametrize("size", [4, 20])
def test_recorded_operations_are_those_of_any_input(size):
    x, z = torch.randn(3, size), torch.randn(3, size)
    traced = torch.jit.trace(lambda x: sort_members(x, 1), x, check_trace=False)
    recorded = torch.fx.experimental.proxy_tensor.make_fx(lambda x: sort_members(x, 1))(x)
    for graph in (traced, recorded):
        assert torch.equal(graph(z), z.sort(1).values)


def test_another_default_device_does_not_matter():
    x = torch.randn(2, 20).requires_grad_()
    with torch.device("meta"):
        result = sort_members(x, 1)
    assert torch.equal(result, x.sort(1).values)


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("dim", [1, 2])
def test_first_and_second_derivatives(size, dim):
    x = gaussian(2, size, size).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sort_members(x, dim).pow(3), x, fast_mode=size >= 8)
    if size < 8:
        assert torch.autograd.gradgradcheck(lambda x: sort_members(x, dim).pow(3), x)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_what_is_kept_for_the_backward_pass_is_one_byte_a_comparator(size):
    x, kept = torch.randn(8, size, 32).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sort_members(x, 1)
    assert sum(t.numel() * t.element_size() for t in kept) == len(sorting_network(size)) * 8 * 32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_swaps_are_seen_where_a_difference_overflows_or_is_the_smallest_there_is(dtype):
    limits = torch.finfo(dtype)
    least = limits.smallest_normal * limits.eps
    low = torch.tensor([-limits.max, least, -float("inf"), -float("inf"), 1.0, -least], dtype=dtype)
    high = torch.tensor([limits.max, 2 * least, limits.max, float("inf"), 1.0 + limits.eps, least], dtype=dtype)
    assert bool((low < high).all())
    for first, second, expected in ((low, high, [1.0, 2.0]), (high, low, [2.0, 1.0])):
        x = torch.stack((first, second), 1).requires_grad_()
        result = sort_members(x, 1)
        assert torch.equal(result.detach(), torch.stack((low, high), 1))
        result.backward(torch.tensor([1.0, 2.0], dtype=dtype).expand(6, 2))
        assert torch.equal(x.grad, torch.tensor(expected, dtype=dtype).expand(6, 2))


def test_nothing_is_sorted_with_and_without_a_gradient():
    for x in (torch.zeros(4, 0), torch.zeros(4, 0, requires_grad=True), torch.zeros(0, 4, requires_grad=True)):
        assert torch.equal(sort_members(x, 1), x)


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_piece_by_piece_is_as_the_whole(monkeypatch, dim):
    x, gradient = gaussian(7, 6, 5, 4), gaussian(7, 6, 5, 4, seed=1)
    found = []
    for piece in (10**9, 300, 1):
        monkeypatch.setattr("tightlip.linalg.comparators.PIECE", piece)
        leaf = x.clone().requires_grad_()
        result = sort_members(leaf, dim)
        result.backward(gradient)
        found.append((result.detach(), leaf.grad, sort_members(x, dim)))
    assert all(torch.equal(a, b) for way in found[1:] for a, b in zip(way, found[0], strict=True))
    assert torch.equal(found[0][0], x.sort(dim).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("start", [0, 1])
def test_pairs_are_sorted_wherever_they_start_in_memory(dtype, start):
    memory = torch.randn(4 * 6 + start, generator=torch.Generator().manual_seed(0)).to(dtype)
    memory[start + 3], memory[start + 4] = -0.0, float("inf")
    pairs = memory[start:].view(4, 3, 2)
    expected = pairs.sort(2).values
    assert torch.equal(sort_members(pairs, 2), expected)
    leaf, gradient = pairs.clone().requires_grad_(), torch.randn(4 * 6 + start).to(dtype)[start:].view(4, 3, 2)
    ordered = sort_members(leaf, 2)
    assert torch.equal(ordered, expected)
    (found,) = torch.autograd.grad(ordered, leaf, gradient)
    assert torch.equal(found, torch.empty_like(gradient).scatter(2, pairs.sort(2).indices, gradient))
    assert torch.equal(memory[start:].view(4, 3, 2), leaf)


@pytest.mark.parametrize("size", [2, 3, 12, 20])
def test_views_that_stand_for_the_negative(size):
    x = torch.randn(3, size)
    assert torch.equal(sort_members(torch._neg_view(x), 1), (-x).sort(1).values)
    leaf, weight = x.clone().requires_grad_(), torch.randn(3, size)
    (found,) = torch.autograd.grad(sort_members(torch._neg_view(leaf), 1), leaf, weight)
    assert torch.equal(found, torch.empty_like(x).scatter(1, (-x).argsort(1), -weight))


def test_one_member_is_no_alias_either():
    x = torch.randn(3, 1)
    sort_members(x, 1).zero_()
    assert x.all()
