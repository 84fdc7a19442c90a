"""The constants of torch's pooling: above every slope found, and attained where windows may lie as they like."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from shares import in_float64
from slopes import PAIRS, largest_slope
from torch import nn
from truths import exact_norm

from tightlip import MaxMin, Scale, TightlipError, certify, lipschitz
from tightlip.audit import gains

INF = math.inf

MAXIMA = [  # pool, input shape, and in how many windows an entry can lie, counted by hand
    (nn.MaxPool1d(2), (1, 8), 1),
    (nn.MaxPool1d(3, stride=1), (2, 9), 3),
    (nn.MaxPool1d(3, stride=2), (1, 9), 2),
    (nn.MaxPool1d(3, stride=2, padding=1), (1, 9), 2),
    (nn.MaxPool1d(5, stride=2, padding=2, ceil_mode=True), (1, 12), 3),
    (nn.MaxPool1d(2, stride=3), (1, 9), 1),
    (nn.MaxPool1d(3, stride=1, dilation=2), (1, 13), 3),
    (nn.MaxPool1d(3, stride=2, dilation=2), (1, 15), 3),  # an even entry meets all three taps
    (nn.MaxPool1d(4, stride=2, dilation=3), (1, 24), 2),
    (nn.MaxPool1d(4, stride=4, dilation=2), (1, 24), 2),
    (nn.MaxPool1d(4, stride=6, dilation=4), (1, 40), 2),
    (nn.MaxPool2d(2), (1, 6, 6), 1),
    (nn.MaxPool2d(3, stride=1), (1, 7, 7), 9),
    (nn.MaxPool2d(3, stride=2, padding=1), (2, 8, 8), 4),
    (nn.MaxPool2d((3, 2), stride=(1, 2), dilation=(2, 1)), (1, 11, 6), 3),
    (nn.MaxPool2d((3,), stride=2, ceil_mode=True), (1, 8, 8), 4),
    (nn.MaxPool3d(2, stride=1), (1, 4, 4, 4), 8),
    (nn.MaxPool3d((1, 2, 3), stride=(1, 1, 2)), (1, 3, 4, 7), 4),
    (nn.AdaptiveMaxPool1d(1), (2, 7), 1),
    (nn.AdaptiveMaxPool2d(1), (2, 3, 4), 1),
    (nn.AdaptiveMaxPool2d((None, 1)), (2, 3, 4), 1),
    (nn.AdaptiveMaxPool3d(1), (2, 2, 3, 2), 1),
    (nn.AdaptiveMaxPool1d(3), (1, 1), 3),
    (nn.AdaptiveMaxPool2d((2, None)), (1, 1, 4), 2),
    (nn.AdaptiveMaxPool2d((2, 3)), (1, 1, 1), 6),
    (nn.AdaptiveMaxPool3d((2, 1, 3)), (1, 1, 2, 1), 6),
]

AVERAGES = [  # one divisor: the operator is the same for every window
    (nn.AvgPool1d(2), (1, 8)),
    (nn.AvgPool1d(3, stride=1), (1, 60)),
    (nn.AvgPool1d(3, stride=2), (1, 80)),
    (nn.AvgPool1d(5, stride=2, padding=2), (1, 100)),
    (nn.AvgPool1d(2, stride=3), (2, 9)),
    (nn.AvgPool1d(4, count_include_pad=False), (1, 16)),
    (nn.AvgPool2d(2), (2, 6, 6)),
    (nn.AvgPool2d(3, stride=3, padding=1), (1, 9, 9)),
    (nn.AvgPool2d((2, 3), stride=(1, 2)), (1, 25, 31)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 6, 6)),
    (nn.AvgPool2d(2, divisor_override=-1, padding=1, ceil_mode=True, count_include_pad=False), (1, 7, 7)),
    (nn.AvgPool3d(2), (1, 4, 4, 4)),
    (nn.AvgPool3d(2, stride=(2, 1, 2), divisor_override=5), (1, 4, 20, 4)),
]

VARYING = [  # the divisor counts what is in the window
    (nn.AvgPool1d(2, stride=1, padding=1, count_include_pad=False), (1, 1)),
    (nn.AvgPool1d(2, stride=1, padding=1, count_include_pad=False), (1, 6)),
    (nn.AvgPool1d(3, stride=2, ceil_mode=True), (1, 6)),
    (nn.AvgPool1d(4, stride=3, padding=2, ceil_mode=True), (1, 8)),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (1, 5, 6)),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), (1, 6, 6)),
    (nn.AvgPool3d(2, padding=1, count_include_pad=False), (1, 3, 3, 3)),
    (nn.AdaptiveAvgPool1d(1), (2, 5)),
    (nn.AdaptiveAvgPool1d(3), (1, 7)),
    (nn.AdaptiveAvgPool1d(4), (1, 2)),
    (nn.AdaptiveAvgPool2d(1), (2, 3, 3)),
    (nn.AdaptiveAvgPool2d((None, 2)), (1, 3, 3)),
    (nn.AdaptiveAvgPool2d((3, 3)), (1, 1, 1)),
    (nn.AdaptiveAvgPool3d(1), (1, 2, 2, 2)),
    (nn.AdaptiveAvgPool3d(2), (1, 1, 1, 1)),
]


def matrix(pool, shape):
    """A linear pool as a matrix: the identity basis pushed through it."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return pool(basis).flatten(1).T.numpy()


def peaked(pool, shape):
    """The largest slope in each output norm where one entry towers above the others and moves: ‖Δx‖_p = 1 for all p."""
    x = torch.eye(math.prod(shape), dtype=torch.float64)
    rise = (pool((2 * x).reshape(-1, *shape)) - pool(x.reshape(-1, *shape))).flatten(1)
    return {q: float(torch.linalg.vector_norm(rise, q, dim=1).max()) for q in (1.0, 2.0, INF)}


@pytest.mark.parametrize(("pool", "shape", "uses"), MAXIMA, ids=repr)
def test_a_maximum_is_heard_in_as_many_windows_as_read_it(pool, shape, uses):
    attained = peaked(pool, shape)
    for p, q in PAIRS:
        constant = lipschitz(pool, p, q).constant
        assert largest_slope(pool, shape, p, q, points=8) <= constant * (1 + 1e-9)
        truth = {(1.0, 1.0): uses, (1.0, 2.0): uses**0.5, (2.0, 2.0): uses**0.5}.get((p, q), 1.0)
        assert constant == pytest.approx(truth, rel=1e-12)
        assert attained[q] == pytest.approx(constant, rel=1e-12)


@pytest.mark.parametrize(("pool", "shape"), AVERAGES, ids=repr)
def test_an_average_has_the_norms_of_its_matrix(pool, shape):
    A = matrix(pool, shape)
    for p, q in PAIRS:
        constant, exact = lipschitz(pool, p, q).constant, exact_norm(A, p, q)
        assert exact * (1 - 1e-12) <= constant
        assert exact >= (0.99 if p == q == 2 else 1 - 1e-12) * constant
        assert largest_slope(pool, shape, p, q, points=2) <= constant * (1 + 1e-9)


@pytest.mark.parametrize(("pool", "shape"), VARYING, ids=repr)
def test_an_average_with_a_varying_divisor_is_bounded_by_how_often_an_entry_is_used(pool, shape):
    A = matrix(pool, shape)
    for p, q in PAIRS:
        assert exact_norm(A, p, q) <= lipschitz(pool, p, q).constant * (1 + 1e-12)
    assert exact_norm(A, INF, INF) == pytest.approx(1) and lipschitz(pool, INF, INF).constant == 1


def test_the_bounds_of_varying_divisors_are_attained_by_the_shortest_inputs():
    twice = nn.AvgPool1d(2, stride=1, padding=1, count_include_pad=False)  # one entry, alone in both of its windows
    often = ((nn.AdaptiveAvgPool1d(5), 5), (nn.AdaptiveAvgPool1d(1), 1), (nn.AdaptiveAvgPool2d((2, 3)), 6))
    for pool, uses in ((twice, 2), *often):
        A = matrix(pool, (1, 1, 1) if "2d" in repr(pool) else (1, 1))
        for p, q in PAIRS:
            assert exact_norm(A, p, q) == pytest.approx(lipschitz(pool, p, q).constant, rel=1e-12)
        assert lipschitz(pool, 1, 1).constant == uses


@pytest.mark.parametrize("kernel", range(1, 7))
@pytest.mark.parametrize("stride", range(1, 7))
@pytest.mark.parametrize("dilation", range(1, 5))
def test_the_number_of_windows_is_counted_exactly(kernel, stride, dilation):
    """By going through all of them, in the middle of an input long enough for every case."""
    taps = [i * stride + j * dilation for i in range(300) for j in range(kernel)]
    most = max(taps.count(entry) for entry in range(90, 150))
    pool = nn.MaxPool1d(kernel, stride, dilation=dilation)
    assert lipschitz(pool, 1, 1).constant == most


def test_constants_that_are_fractions_are_exact():
    assert lipschitz(nn.AvgPool2d(2), 2, 2).constant == 0.5
    assert lipschitz(nn.MaxPool2d(2, stride=1), 2, 2).constant == 2.0
    assert lipschitz(nn.AvgPool1d(3, stride=1), INF, INF).constant == 1.0
    third = Fraction(lipschitz(nn.AvgPool1d(3), 1, 1).constant)
    assert Fraction(1, 3) <= third <= Fraction(1, 3) * (1 + Fraction(1, 2**52))


@pytest.mark.parametrize("kernel", range(1, 101))
def test_square_roots_are_rounded_up_and_by_no_more_than_two_steps(kernel):
    """Of k for a maximum from 2 to 2, and of k/(k + 1)² for a sum divided by k + 1 from 1 to 2."""
    average = nn.AvgPool2d((1, kernel), stride=1, divisor_override=kernel + 1)
    summed = Fraction(kernel, (kernel + 1) ** 2)
    for pool, p, square in ((nn.MaxPool1d(kernel, stride=1), 2, kernel), (average, 1, summed)):
        root = Fraction(lipschitz(pool, p, 2).constant)
        assert square <= root**2 <= square * (1 + Fraction(1, 2**50))


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.MaxPool1d(2), (4, 6)),
        (nn.AvgPool1d(2), (4, 6)),
        (nn.AdaptiveAvgPool1d(1), (4, 6)),
        (nn.MaxPool2d(2), (4, 6, 6)),
        (nn.AvgPool2d(2), (4, 6, 6)),
        (nn.AdaptiveMaxPool2d(1), (4, 6, 6)),
        (nn.MaxPool3d(2), (4, 2, 6, 6)),
        (nn.AvgPool3d(2), (4, 2, 6, 6)),
        (nn.AdaptiveAvgPool3d(1), (4, 2, 6, 6)),
    ],
    ids=repr,
)
def test_inputs_that_torch_takes_for_unbatched_are_still_pooled_example_by_example(pool, shape, seed):
    """(N, C, L) is (C, H, W) to a 2-d pool: it pools the last two axes, never the first, so the bound holds."""
    x = torch.randn(shape, dtype=torch.float64)
    each = torch.stack([pool(row[None]).squeeze(0) for row in x])
    torch.testing.assert_close(pool(x), each)
    for p, q in PAIRS:
        assert largest_slope(pool, shape[1:], p, q, points=4) <= lipschitz(pool, p, q).constant * (1 + 1e-9)


@pytest.mark.parametrize(
    ("pool", "advice"),
    [
        (nn.MaxPool2d(2, return_indices=True), "return_indices=False"),
        (nn.AdaptiveMaxPool1d(1, return_indices=True), "return_indices=False"),
        (nn.MaxPool2d((2, 2, 2)), "an integer ≥ 1, or 2 of them"),
        (nn.MaxPool1d(2, stride=0), "an integer ≥ 1"),
        (nn.MaxPool1d(2.0), "an integer ≥ 1"),
        (nn.MaxPool1d(2, dilation=-1), "an integer ≥ 1"),
        (nn.AvgPool2d(2, divisor_override=0), "divisor_override=None"),
        (nn.AvgPool2d(2, divisor_override=0.5), "divisor_override=None"),
        (nn.AdaptiveAvgPool2d((1, 1, 1)), "an integer ≥ 1"),
        (nn.LPPool2d(2, 2), "no Lipschitz rule"),
        (nn.FractionalMaxPool2d(2, output_size=2), "no Lipschitz rule"),
        (nn.MaxUnpool2d(2), "no Lipschitz rule"),
    ],
    ids=repr,
)
def test_what_cannot_be_bounded_is_refused(pool, advice):
    with pytest.raises(TightlipError, match=advice):
        lipschitz(pool, 2)


def test_options_changed_later_are_seen_and_subclasses_are_refused():
    class Louder(nn.AvgPool2d):
        pass

    pool = nn.AvgPool2d(2)
    pool.divisor_override = 1
    assert lipschitz(pool, INF).constant == 4
    with pytest.raises(TightlipError, match="no Lipschitz rule"):
        lipschitz(Louder(2), 2)


@pytest.mark.parametrize("pool", [pool for pool, *_ in AVERAGES + VARYING], ids=repr)
@pytest.mark.parametrize("size", [1.0, 1e8])
def test_the_roundoff_of_an_average_covers_its_evaluation(pool, size, seed):
    """Against rationals; a large mean that cancels is the worst of it."""
    axes = int(type(pool).__name__[-2])
    x = torch.randn(6, 1, *[{1: 20, 2: 7, 3: 4}[axes]] * axes, dtype=torch.float64)
    x[1::2] += size
    x[2::2] = -x[1::2][: len(x[2::2])]
    A = [[Fraction(w).limit_denominator(10**6) for w in row] for row in matrix(pool, x.shape[1:]).tolist()]
    for row, found in zip(x.flatten(1).tolist(), pool(x).flatten(1).tolist(), strict=True):
        error = [
            Fraction(y) - sum((w * Fraction(v) for w, v in zip(weights, row, strict=True) if w), Fraction(0))
            for weights, y in zip(A, found, strict=True)
        ]
        assert math.hypot(*map(float, error)) <= in_float64(gains(pool).roundoff, inputs=len(row)).input * math.hypot(
            *row
        )


@pytest.mark.parametrize("pool", [nn.AvgPool1d(4096), nn.AvgPool2d((4, 1024))], ids=repr)
def test_the_roundoff_of_a_large_kernel_grows_with_it(pool):
    """Each of 4095 terms is half the gap above 1: one by one they are lost, and nearly all of a gap with them."""
    values = [1.0] + [2.0**-53] * 4095
    x = torch.tensor([[values]], dtype=torch.float64).reshape(1, 1, *((4, 1024) if "2d" in repr(pool) else (4096,)))
    error = abs(Fraction(pool(x).item()) - sum(map(Fraction, values)) / 4096)
    assert error <= in_float64(gains(pool).roundoff).input * math.hypot(*values)


def test_a_network_with_pools_is_certified_and_its_margins_are_below_the_truth(seed):
    """x ↦ ±(mean of the largest of each pair): the exact radius is known."""
    head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
    head.weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    network = nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(4), nn.Flatten(), head, Scale(3.0))
    x = torch.randn(20, 1, 8, dtype=torch.float64)
    means = x.reshape(20, 4, 2).amax(2).mean(1).abs()
    for p, factor in ((INF, 1.0), (2, 2.0)):  # moving all four maxima by δ moves the mean by δ
        radius = certify(network, x, p=p).radius
        assert (radius <= means * factor).all()
        torch.testing.assert_close(radius, means * factor, rtol=1e-8, atol=1e-12)


def test_pools_after_other_layers_keep_an_evaluation_error_that_certifies(seed):
    for pool in (nn.AvgPool1d(3, ceil_mode=True), nn.AdaptiveAvgPool1d(2), nn.AdaptiveMaxPool1d(2), nn.MaxPool1d(2)):
        x = nn.Sequential(nn.Linear(4, 4), MaxMin(), pool, nn.Flatten())
        network = nn.Sequential(x, nn.Linear(x(torch.zeros(1, 2, 4)).shape[1], 3))
        assert (certify(network, torch.randn(30, 2, 4)).radius > 0).all()


def test_every_kind_of_pool_is_covered():
    kinds = {type(pool) for pool, *_ in MAXIMA + AVERAGES + VARYING}
    families = itertools.product(["MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool"], ["1d", "2d", "3d"])
    assert kinds == {getattr(nn, family + axes) for family, axes in families}
