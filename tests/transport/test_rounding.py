"""W1 of weighted samples between bounds, against exact linear programming; and every way to spoil the input."""

import inspect
import io
import itertools
import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from red_team.distances import solved

from tightlip import TightlipError
from tightlip.transport import costs, rounding
from tightlip.transport.bounds import above, below, of_pieces
from tightlip.transport.costs import Lists, lists, posed
from tightlip.transport.distances import distances
from tightlip.transport.line import along_a_line
from tightlip.transport.rounding import couple
from tightlip.transport.simplex import Simplex, greedy, whole_masses

NORMS = [1, 2, math.inf]


def drawn(generator):
    """A small problem with what makes such problems hard: ties, duplicates, points without weight, tiny weights."""
    n, m = generator.integers(1, 41, 2) if generator.random() < 0.3 else generator.integers(1, 9, 2)
    d = int(generator.choice([2, 3, 7]))
    x, y = generator.standard_normal((n, d)), generator.standard_normal((m, d)) + 0.5
    a, b = generator.random(n), generator.random(m)
    kind = generator.integers(6)
    if kind == 0:  # ties
        x, y, a, b = np.round(x), np.round(y), np.ones(n), np.ones(m)
    if kind == 1:  # duplicates in both samples
        x[n // 2 :], y[: m // 2] = x[0], x[0]
    if kind == 2:
        a, b = a * (generator.random(n) < 0.6), b * (generator.random(m) < 0.6)
        a[0] = b[-1] = 1.0
    if kind == 3:
        a, b = 10.0 ** generator.uniform(-12, 0, n), 10.0 ** generator.uniform(-12, 0, m)
    if kind == 4:  # the same points
        n = m = min(n, m)
        x, y, a, b = x[:n], x[:n].copy(), a[:n], a[:n] * generator.uniform(0.9, 1.1, n)
    return x, y, a, b


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


@pytest.mark.parametrize("seed", range(120))
def test_the_truth_is_between_the_bounds_and_they_are_close(seed):
    generator = np.random.default_rng(seed)
    p, (x, y, a, b) = NORMS[seed % 3], drawn(generator)
    truth, largest = solved(x, y, a, b, p)
    tolerance = [1e-3, 1e-6, 0.0][seed // 3 % 3]
    scale = [1.0, 1.0, 1e150, 1e-150][seed % 4]
    result = couple(*tensors(x * scale, y * scale, a * 3e7, b / 3e7), p=p, tolerance=tolerance)
    slack = 1e-9 * largest + 1e-12  # of HiGHS
    assert 0 <= result.lower <= result.upper < math.inf
    assert result.lower / scale <= truth + slack and truth - slack <= result.upper / scale
    assert result.upper - result.lower <= tolerance * result.upper + 1e-12 * (largest + 1) * scale
    assert attained(result, *tensors(x * scale, y * scale, a, b), p) >= result.lower - 1e-12 * (largest + 1) * scale


def attained(result, x, y, a, b, p):
    """What the potential proves, with plain numpy."""
    x, y, q = x.numpy(), y.numpy(), result.potential.numpy()
    assert q.shape == (len(y),) and np.isfinite(q).all()
    scale = max(np.abs(x).max(), np.abs(y).max())
    costs = np.linalg.norm(x[:, None] / scale - y[None] / scale, p, axis=2)
    values = ((costs + q / scale).min(1) * (a.numpy() / a.numpy().sum())).sum()
    return float(values - (q / scale * (b.numpy() / b.numpy().sum())).sum()) * scale


# ------------------------------------------------------------------------------------------------ known answers


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12])
def test_a_translation_costs_its_length_wherever_it_is(p, offset):
    """300 against 600: every point stands twice, and is moved by the same vector of multiples of 2⁻⁸."""
    x = (torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 256).round() / 256
    x = x + offset
    step = torch.tensor([0.25, -0.5, 0.125], dtype=torch.float64)
    length = float(torch.linalg.vector_norm(step, p))
    result = couple(x, (x + step).repeat(2, 1), p=p)
    assert result.lower <= length <= result.upper and result.upper - result.lower <= 1e-3 * length
    assert result.reason == "the gap is within the tolerance"
    result = couple(x, (x + step).repeat(2, 1), p=p, tolerance=0)
    assert result.lower <= length * (1 + 2**-52) and length * (1 - 2**-52) <= result.upper
    assert result.upper - result.lower <= 2e-11 and result.reason == "no pair improves any more"


def test_one_point_against_many_is_a_mean():
    points = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-6.0, 8.0]])
    for x, y, options in (
        (points, torch.zeros(1, 2), {"weights_x": torch.tensor([1.0, 2.0, 3.0])}),
        (torch.zeros(1, 2), points, {"weights_y": torch.tensor([1.0, 2.0, 3.0])}),
    ):
        result = couple(x, y, **options)
        truth = (5 + 2 * 1 + 3 * 10) / 6
        assert result.lower <= truth <= result.upper and result.upper - result.lower < 1e-12


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_equal_samples_are_at_distance_zero_at_every_scale(scale):
    x = scale * torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = couple(x, x.flip(0), weights_x=torch.arange(1.0, 41), weights_y=torch.arange(1.0, 41).flip(0))
    assert result.lower == 0.0 and 0.0 <= result.upper <= 1e-12 * scale


def test_numpy_float32_images_and_integers_of_any_kind():
    generator = np.random.default_rng(0)
    x, y = generator.random((20, 1, 3, 3)).astype(np.float32), generator.random((30, 1, 3, 3)).astype(np.float32)
    first = couple(x, y)
    second = couple(torch.from_numpy(x).flatten(1).double(), torch.from_numpy(y).flatten(1).double())
    assert (first.lower, first.upper) == (second.lower, second.upper)
    whole, points = (x * 100).astype(np.uint16), (y * 100).astype(np.int8)
    counts = np.arange(20)
    assert couple(whole, points, counts).lower == couple(whole.astype(float), points.astype(float), counts * 0.5).lower
    half = couple(torch.from_numpy(x).half(), torch.from_numpy(y).bfloat16())
    assert half.lower == pytest.approx(first.lower, rel=0.05)


def test_the_order_of_the_samples_and_of_the_points_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=generator), torch.randn(50, 4, generator=generator) + 1
    weights = torch.rand(50, generator=generator)
    order = torch.randperm(50, generator=generator)
    bounds = [
        couple(x, y, None, weights, tolerance=0),
        couple(y, x, weights, None, tolerance=0),
        couple(x, y[order], None, weights[order], tolerance=0),
        couple(x, torch.cat((y, y[:7])), None, torch.cat((weights, torch.zeros(7))), tolerance=0),
    ]
    assert max(b.lower for b in bounds) <= min(b.upper for b in bounds)
    assert max(b.upper for b in bounds) - min(b.lower for b in bounds) < 1e-12
    inside = bounds[3].potential[50:]  # of points that stand twice, once without weight
    assert bool((inside <= bounds[3].potential[:7] + 1e-12).all())


# --------------------------------------------------------------------------------------------------- on a line


def exactly(x, y, a, b):
    """W1 on the line as a fraction, from the quantile functions instead of the distribution functions."""
    sides = []
    for points, weights in ((x, a), (y, b)):
        whole = sum(map(Fraction, weights))
        sides.append(sorted((Fraction(z), Fraction(w) / whole) for z, w in zip(points, weights, strict=True)))
    cost, (first, second) = Fraction(0), sides
    while first and second:
        mass = min(first[0][1], second[0][1])
        cost += mass * abs(first[0][0] - second[0][0])
        for side in sides:
            side[0] = (side[0][0], side[0][1] - mass)
            if not side[0][1]:
                side.pop(0)
    return cost


@pytest.mark.parametrize("seed", range(40))
def test_on_a_line_both_bounds_are_the_truth_rounded(seed):
    generator = np.random.default_rng(seed)
    n, m = generator.integers(1, 40, 2)
    scale = [1.0, 1e150, 1e-150, 1e-310][seed % 4]
    x, y = generator.standard_normal((n, 1)) * scale, generator.standard_normal((m, 1)) * scale + scale
    a, b = 10.0 ** generator.uniform(-12 if seed % 3 else 0, 0, n), generator.random(m) + 0.01
    if seed % 5 == 0:
        x[:, 0], y[:, 0] = x.mean(), np.concatenate((x.mean() * np.ones(1), y[1:, 0]))
    truth = exactly(x[:, 0].tolist(), y[:, 0].tolist(), a.tolist(), b.tolist())
    result = couple(*tensors(x, y, a, b), p=NORMS[seed % 3], seconds=0)
    assert Fraction(result.lower) <= truth <= Fraction(result.upper)
    assert result.upper in (result.lower, math.nextafter(result.lower, math.inf))
    assert result.reason == "exact: the points are on a line"
    if scale == 1.0:
        assert attained(result, *tensors(x, y, a, b), 2) == pytest.approx(result.lower, abs=1e-12)


# ------------------------------------------------------------------------------------------------ it may stop


@pytest.mark.parametrize("shape", [(30, 50, 3), (300, 400, 8)])
@pytest.mark.parametrize("seconds", [0, 1e-3, 0.05, 0.3])
def test_bounds_hold_whenever_it_stops(shape, seconds):
    n, m, d = shape
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator) + 0.3
    whole = couple(x, y, tolerance=0)
    stopped = couple(x, y, tolerance=0, seconds=seconds)
    assert 0 <= stopped.lower <= whole.upper and whole.lower <= stopped.upper < math.inf
    assert stopped.seconds <= seconds + 1
    if seconds == 0:
        assert stopped.reason == "the time was over" and stopped.upper < 3 * whole.upper


@pytest.mark.parametrize("weighted", [False, True])
def test_many_pairs_go_block_by_block(monkeypatch, weighted):
    """Sinkhorn's iterations alone, as for samples of many thousands, beside the simplex."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 5, generator=generator), torch.randn(70, 5, generator=generator) + 0.5
    weights = torch.rand(70, generator=generator) ** 4 if weighted else None
    truth = couple(x, y, None, weights, tolerance=0)
    monkeypatch.setattr(rounding, "TREES", 0)
    monkeypatch.setattr(costs, "ENTRIES", 1000)  # several blocks, the last of them smaller
    result = couple(x, y, None, weights, tolerance=0.01)
    assert result.lower <= truth.upper and truth.lower <= result.upper
    assert result.upper - result.lower <= 0.01 * result.upper and result.reason == "the gap is within the tolerance"
    hopeless = couple(x, y, None, weights, tolerance=0)
    assert hopeless.lower <= truth.upper and truth.lower <= hopeless.upper
    assert hopeless.reason == "less entropy does not close the gap any more"


@pytest.mark.parametrize("listed", [1, 3, 200])
def test_short_lists_of_pairs_end_where_all_pairs_do(monkeypatch, listed):
    """Where a tree is the best of the pairs in its lists, all pairs are looked at again."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 3, generator=generator), torch.randn(90, 3, generator=generator) + 0.5
    weights = torch.rand(90, generator=generator) ** 6
    truth = couple(x, y, None, weights, tolerance=0)
    monkeypatch.setattr(rounding, "SMALL", 0)
    monkeypatch.setattr(rounding, "LISTED", listed)
    monkeypatch.setattr(costs, "ENTRIES", 1000)
    for tolerance in (0.0, 1e-3):
        result = couple(x, y, None, weights, tolerance=tolerance)
        assert result.lower <= truth.upper and truth.lower <= result.upper
        assert result.upper - result.lower <= (tolerance + 1e-12) * result.upper


def test_memory_is_that_of_blocks():
    """3,000 against 2,000 points are 6 million costs; no tensor of more than a block is made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            made = function(*arguments, **(options or {}))
            for tensor in made if isinstance(made, tuple | list) else [made]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return made

    with Watch():
        result = couple(torch.rand(3_000, 2), torch.rand(2_000, 2), seconds=0.5)
    assert result.seconds < 10 and result.lower <= 0.1 <= result.upper + 0.1
    assert 2**15 < largest <= 2**19


# ---------------------------------------------------------------------------------------- the parts, and liars


def clouds_of(x, y, a=None, b=None, p=2):
    return posed(x, y, a, b, p, lambda: False)[0]


def test_any_prices_and_any_flow_prove_only_what_is_true():
    """Proposals are not believed: random prices, and flows that are no couplings at all."""
    generator = np.random.default_rng(0)
    for seed in range(60):
        x, y, a, b = drawn(np.random.default_rng(seed))
        truth, _ = solved(x, y, a, b, 2)
        clouds = clouds_of(*tensors(x, y, a, b))
        n, m = len(clouds.x), len(clouds.y)
        unit = 2.0**-clouds.exponent
        for size in (0.0, 0.1, 1.0, 1e3):
            prices = size * generator.standard_normal(m)
            assert float(below(clouds, prices, lists(clouds, prices, 1).least)) <= truth * unit + 1e-9
            count = int(generator.integers(0, 30))
            rows, columns = generator.integers(0, n, count), generator.integers(0, m, count)
            flow = of_pieces(clouds, rows, columns, size * generator.random(count))
            assert float(above(clouds, flow)) >= truth * unit - 1e-9
        best = float(above(clouds, along_a_line(clouds, clouds.weights_x, clouds.weights_y)))
        assert best >= truth * unit - 1e-9


def test_marginals_that_are_right_on_one_side_alone_are_no_coupling():
    """Every point to its nearest has the weights of its own side, and costs less than W1."""
    generator = torch.Generator().manual_seed(0)
    for turned in (False, True):
        clouds = clouds_of(torch.rand(20, 2, generator=generator), torch.rand(30, 2, generator=generator))
        n, m = len(clouds.x), len(clouds.y)
        matrix = distances(clouds.x, clouds.y, 2).numpy()
        truth = couple(clouds.x, clouds.y, tolerance=0).lower
        if turned:
            flow = of_pieces(clouds, matrix.argmin(0), np.arange(m), np.full(m, 1 / m))
        else:
            flow = of_pieces(clouds, np.arange(n), matrix.argmin(1), np.full(n, 1 / n))
        assert flow.cost < 0.9 * truth <= float(above(clouds, flow))


def test_a_wrong_proposal_changes_the_gap_and_not_the_truth(monkeypatch):
    x, y = torch.rand(20, 2), torch.rand(30, 2) + 0.5
    truth = couple(x, y, tolerance=0)
    monkeypatch.setattr(Simplex, "prices", property(lambda tree: -np.arange(30.0)))
    monkeypatch.setattr(Simplex, "pieces", lambda tree: (np.zeros(1, int), np.zeros(1, int), np.full(1, 1e-9)))
    lied = couple(x, y, tolerance=0)
    assert lied.lower <= truth.upper and truth.lower <= lied.upper and lied.upper > lied.lower


def test_the_tree_has_the_weights_as_marginals_and_optimal_potentials():
    generator = np.random.default_rng(0)
    for n, m in ((1, 1), (1, 6), (7, 1), (12, 9), (40, 60)):
        matrix, a, b = generator.random((n, m)), generator.random(n) ** 8, generator.random(m)
        known = Lists(np.broadcast_to(np.arange(m), (n, m)), matrix, matrix.min(1))
        tree = Simplex(a, b, known, matrix, lambda i, j, matrix=matrix: matrix[i, j])
        start = tree.upper
        while tree.sweep(lambda: False):
            pass
        rows, columns, masses = tree.pieces()
        assert len(masses) == n + m - 1 and (masses >= 0).all() and min(tree.flow[1:]) > 0
        assert np.bincount(rows, masses) == pytest.approx(a / a.sum(), abs=1e-12)
        assert np.bincount(columns, masses) == pytest.approx(b / b.sum(), abs=1e-12)
        assert tree.lower == pytest.approx(tree.upper, rel=1e-10) and tree.upper <= start
        reduced = matrix + tree.prices - np.array(tree.potential[:n])[:, None]
        assert reduced.min() >= -1e-12 and np.abs(reduced[rows, columns]).max() <= 1e-12


def test_masses_are_whole_and_never_split_evenly():
    supplies, demands = whole_masses(np.ones(4), np.array([1.0, 1.0]))
    assert sum(supplies) == sum(demands) and min(supplies + demands) > 0
    parts = {sum(part) for k in range(1, 4) for part in itertools.combinations(supplies, k)}
    assert not parts & set(demands)
    tiny, _ = whole_masses(np.array([1.0, 1e-200]), np.ones(1))
    assert min(tiny) > 0
    key = np.random.default_rng(0).random((4, 2))
    for columns in (np.array(4 * [[0, 1]]), np.array(4 * [[1, 1]])):  # all pairs, and not all
        edges = greedy(key, columns, supplies, demands)
        assert len(edges) == 5 and sum(mass for _, _, mass in edges) == sum(supplies)


def test_distances_are_those_of_differences():
    x = torch.rand(30, 7, dtype=torch.float64) + 1e8
    for p in NORMS:
        exact = torch.linalg.vector_norm(x[:, None] - x[None], p, dim=2)
        assert torch.allclose(distances(x, x, p), exact, rtol=1e-14, atol=0)


def test_a_bar_is_shown_on_a_terminal_where_it_is_asked_for(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    x, y = torch.rand(20, 2), torch.rand(30, 2)
    for stream, progress, shown in ((Terminal(), False, False), (io.StringIO(), True, False), (Terminal(), True, True)):
        monkeypatch.setattr(sys, "stderr", stream)
        couple(x, y, progress=progress)
        assert ("looks" in stream.getvalue()) == shown


# ----------------------------------------------------------------------------------------------------- bad input

POINTS = torch.tensor([[0.0, 1.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((POINTS * math.nan, POINTS), {}, "2 of 2 points of x are NaN or infinite"),
        ((POINTS, POINTS / 0), {}, "2 of 2 points of y are NaN or infinite"),
        ((POINTS[:0], POINTS), {}, r"x has shape \(0, 2\): give points \(n, …\), at least 1"),
        ((POINTS[:, :0], POINTS), {}, r"x has shape \(2, 0\)"),
        ((POINTS[0], POINTS), {}, r"points of x have shape \(1,\), those of y \(2,\): give points of one space"),
        ((POINTS, POINTS[:, :1]), {}, r"points of x have shape \(2,\), those of y \(1,\): give points of one space"),
        ((POINTS, [[0.0, 1.0]]), {}, "y must be a tensor or a numpy array, got a list"),
        ((POINTS > 0, POINTS), {}, "x must hold numbers, got torch.bool"),
        ((POINTS.long() + 2**60, POINTS), {}, "x must be numbers that float64 has exactly, .*got torch.int64"),
        (
            (POINTS, POINTS),
            {"weights_x": torch.tensor([1.0, -0.5])},
            "weights of x must not be neg.*least is -0.5",
        ),
        ((POINTS, POINTS), {"weights_y": torch.zeros(2)}, "weights of y must not be negative, nor all zero"),
        ((POINTS, POINTS), {"weights_y": torch.ones(3)}, r"weights of y have shape \(3,\): give one for each of 2"),
        ((POINTS, POINTS), {"weights_x": torch.ones(2, 1)}, r"weights of x have shape \(2, 1\)"),
        ((POINTS, POINTS), {"weights_x": torch.tensor([1.0, math.nan])}, "1 of 2 weights of x are NaN"),
        ((POINTS, POINTS), {"weights_x": torch.tensor([True, True])}, "weights of x must be numbers .*bool"),
        ((POINTS, POINTS), {"p": 3}, "no norm is called 3: choose 1, 2 or inf"),
        ((POINTS, POINTS), {"tolerance": -1e-3}, "tolerance must be a finite number ≥ 0"),
        ((POINTS, POINTS), {"tolerance": math.nan}, "tolerance must be"),
        ((POINTS, POINTS), {"seconds": -1}, "seconds must be a finite number ≥ 0"),
        ((POINTS, POINTS), {"progress": "yes"}, "progress must be True or False"),
    ],
)
def test_what_cannot_be_coupled_is_one_sentence(arguments, options, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        inspect.unwrap(couple)(*arguments, **options)
    assert "\n" not in str(caught.value)
