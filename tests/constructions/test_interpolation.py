import inspect
import math

import pytest
import torch
from slopes import largest_slope
from sweeps import seeds
from torch import nn

from tightlip import MaxMin, Scale, TightlipError, lipschitz
from tightlip.constructions import LatticeInterpolant, lattice_interpolant, maximum

NORMS = (1, 2, math.inf)


def distances(x, y, p):
    return torch.linalg.vector_norm(x[:, None] - y, p, dim=-1)


def samples(n, d, p, m=1, seed=0):
    """Data of the sawtooth kind: distances to a few random centers, as steep as allowed, and a random shift of each."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    centers = torch.randn(5 * m, d, generator=generator, dtype=torch.float64)
    values = distances(points, centers, p).reshape(n, m, 5).amin(-1)
    return points, values


def queries(d, count=200, seed=1):
    return 2 * torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(points, values, p, x):
    """max_i min_{j≠i} f_ij(x), written as in the paper's proof, one piece at a time."""
    rows = []
    for i in range(len(points)):
        row = []
        for j in range(len(points)):
            d = points[i] - points[j]
            if not d.any():
                continue
            if p == 2:
                u = d / (d @ d)
            elif p == 1:
                u = d.sign() / d.abs().sum()
            else:
                u = torch.zeros_like(d)
                k = int(d.abs().argmax())
                u[k] = 1 / d[k]
            row.append(values[i] + (values[i] - values[j]) * ((x - points[i]) @ u)[:, None])
        rows.append(torch.stack(row).amin(0))
    return torch.stack(rows).amax(0)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize(("n", "d", "m"), [(2, 3, 1), (3, 1, 1), (7, 2, 1), (16, 4, 1), (9, 3, 3), (31, 5, 1)])
def test_it_passes_through_the_samples_and_is_the_function_of_the_proof(n, d, m, p, dense):
    points, values = samples(n, d, p, m)
    h = lattice_interpolant(points, values, p, dense=dense)
    assert (h(points) - values).abs().max() <= 1e-9
    x = queries(d)
    assert (h(x) - brute_force(points, values, p, x)).abs().max() < 1e-10
    assert lipschitz(h, p, math.inf).constant <= 1 + 1e-9
    if m == 1:
        assert lipschitz(h, p).constant <= 1 + 1e-9


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("p", NORMS)
def test_no_slope_exceeds_the_constant_and_the_steepest_samples_attain_it(p, dense):
    points, values = samples(12, 3, p, seed=3)
    h = lattice_interpolant(points, values, p, dense=dense)
    bound = lipschitz(h, p, math.inf).constant
    run = distances(points, points, p).fill_diagonal_(math.inf)
    steepest = float(((values - values.mT).abs() / run).max())
    assert steepest * (1 - 1e-12) <= bound <= steepest * (1 + 1e-9)
    found = max(largest_slope(h, (3,), p, math.inf, seed=seed, points=40, steps=30) for seed in seeds(1, 2))
    assert found <= bound * (1 + 1e-9)
    assert found > 0.3 * bound


def test_one_slope_in_two_dimensions_is_audited_tightly_whichever_output_norm_is_picked():
    """Repeated rows must not make a 1→1 or 2→2 bound look better than p→∞."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for p in NORMS:
        for values in ([0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]):
            values = torch.tensor(values, dtype=torch.float64)
            assert lipschitz(lattice_interpolant(points, values, p), p).constant <= 1 + 1e-9
        assert lipschitz(lattice_interpolant(points[:2], values[:2], p), p).constant <= 1 + 1e-9


@pytest.mark.parametrize("p", NORMS)
def test_few_samples_make_a_plain_network_and_many_a_layer(p):
    few, many = (lattice_interpolant(*samples(n, 2, p), p) for n in (32, 33))
    assert {type(layer) for layer in few} == {nn.Linear, MaxMin}
    assert few[0].out_features == 1024
    assert type(many) is LatticeInterpolant
    assert lipschitz(few[0], p, math.inf).constant <= 1 + 1e-9
    assert all(0.999 < lipschitz(layer, math.inf).constant <= 1 + 1e-12 for layer in list(few)[2::2])


def test_a_plain_interpolant_belongs_to_the_class_that_maximum_combines():
    f, g = (lattice_interpolant(*samples(6, 2, 2, seed=seed), 2) for seed in (0, 1))
    x = queries(2)
    assert torch.allclose(maximum(f, g, 2)(x), torch.maximum(f(x), g(x)))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("p", NORMS)
def test_it_is_within_two_covering_radii_of_the_function_that_was_sampled(p, dense):
    """On a grid in the unit square, whose covering radius is known; and denser grids are nearer."""
    centers = torch.tensor([[0.2, 0.3], [0.8, 0.6]], dtype=torch.float64)
    errors = []
    for side in (3, 5):
        points = torch.cartesian_prod(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 2)
        h = lattice_interpolant(points, distances(points, centers, p).amin(1), p, dense=dense)
        x = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        error = float((h(x)[:, 0] - distances(x, centers, p).amin(1)).detach().abs().max())
        half = 0.5 / (side - 1)
        assert error <= 2 * {1: 2 * half, 2: math.sqrt(2) * half, math.inf: half}[p]
        errors.append(error)
    assert 1e-3 < errors[1] < errors[0]


@pytest.mark.parametrize("K", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("dense", [True, False])
def test_the_constant_is_neither_ignored_nor_exceeded(K, dense):
    points, values = samples(10, 3, 2)
    h = lattice_interpolant(points, K * values, 2, K=K, dense=dense)
    assert (h(points) - K * values).abs().max() <= 1e-9
    run = distances(points, points, 2).fill_diagonal_(math.inf)
    steepest = K * float(((values - values.mT).abs() / run).max())
    assert steepest * (1 - 1e-9) <= lipschitz(h, 2, math.inf).constant <= K * (1 + 1e-9)
    assert (type(h[-1]) is Scale) if K != 1 else True


def test_duplicates_with_one_value_are_samples_as_any_other():
    points, values = samples(8, 2, 2)
    points, values = torch.cat((points, points[:3])), torch.cat((values, values[:3]))
    for dense in (True, False):
        h = lattice_interpolant(points, values, 2, dense=dense)
        assert (h(points) - values).abs().max() <= 1e-9
        assert lipschitz(h, 2).constant <= 1 + 1e-9


@pytest.mark.parametrize("points", [torch.ones(1, 3), torch.ones(4, 3)])
def test_a_single_point_makes_a_constant(points):
    h = lattice_interpolant(points, torch.full((len(points), 2), 5.0), 2)
    assert torch.equal(h(queries(3, 4)), torch.full((4, 2), 5.0, dtype=torch.float64))
    assert lipschitz(h, 2).constant == 0


def test_constant_data_make_a_constant():
    points, _ = samples(40, 2, 2)
    h = lattice_interpolant(points, torch.full((40,), 2.0), 2)
    assert torch.equal(h(queries(2)), torch.full((200, 1), 2.0, dtype=torch.float64))
    assert lipschitz(h, 2).constant < 1e-200


def build(points, values, p=2, **options):
    """What a user calls: without the shape checks, which would speak first under test."""
    return inspect.unwrap(lattice_interpolant)(
        torch.as_tensor(points).double(), torch.as_tensor(values).double(), p, **options
    )


LINE = [[0.0], [1.0], [3.0], [3.5]]


@pytest.mark.parametrize(
    ("values", "K", "says"),
    [
        ([0.0, 1.0, 1.0, 3.0], 1.0, r"samples 2 and 3 are 0.5 apart.*values 2: 1.5 more.*pass K ≥ 4"),
        ([0.0, 2.5, 1.0, 1.0], 2.0, r"samples 0 and 1 are 1 apart.*values 2.5: 0.5 more.*K = 2.*pass K ≥ 2.5"),
        ([0.0, 1.0 + 2**-20, 1.0, 1.0], 1.0, r"samples 0 and 1.*9.54e-07 more"),
        ([[0.0, 0.0], [1.0, 0.0], [1.0, 4.0], [1.0, 4.0]], 1.0, r"samples 1 and 2 are 2 apart.*values 4"),
    ],
)
def test_values_that_are_too_steep_are_refused_by_name(values, K, says):
    with pytest.raises(TightlipError, match=says):
        build(LINE, values, K=K)


def test_rounding_of_steep_data_is_not_refused():
    points = torch.rand(300, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 10
    h = lattice_interpolant(points, 0.1 + points[:, 0], 2)
    assert 1 - 1e-9 < lipschitz(h, 2).constant <= 1 + 1e-9


@pytest.mark.parametrize(
    ("points", "values", "says"),
    [
        ([[1.0], [1.0], [2.0]], [0.0, 0.5, 0.0], "samples 0 and 1 are 0 apart.*one value at each point"),
        ([[1.0], [2.0]], [0.0, math.nan], "NaN"),
        ([[1.0], [math.inf]], [0.0, 1.0], "infinite"),
        ([[math.nan], [2.0]], [0.0, 1.0], "NaN"),
        ([1.0, 2.0], [0.0, 1.0], r"\(N, d\)"),
        ([[1.0], [2.0]], [0.0, 1.0, 2.0], r"\(N, d\)"),
        ([[1.0], [2.0]], [[[0.0]], [[1.0]]], r"\(N, d\)"),
        (torch.zeros(0, 2), torch.zeros(0), r"\(N, d\)"),
        (torch.zeros(2, 0), torch.zeros(2), r"\(N, d\)"),
        (torch.eye(2), torch.zeros(2, 0), "missing"),
        (torch.tensor([[0.0], [1e-200]], dtype=torch.float64), [0.0, 0.0], "unit of length"),
        (torch.tensor([[0.0], [1e200]], dtype=torch.float64), [0.0, 0.0], "unit of length"),
    ],
)
def test_what_is_no_data_is_refused(points, values, says):
    with pytest.raises(TightlipError, match=says):
        build(points, values)


@pytest.mark.parametrize("K", [0.0, -1.0, math.nan, math.inf])
def test_impossible_constants_and_norms_are_refused(K):
    with pytest.raises(TightlipError, match="K must be a finite number > 0"):
        build(LINE, [0.0] * 4, K=K)
    with pytest.raises(TightlipError, match="no norm is called 3"):
        build(LINE, [0.0] * 4, p=3)


def test_the_constant_that_a_refusal_advises_will_do():
    refused = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        near = 1e-7 * torch.randn(7, 2, generator=generator, dtype=torch.float64)  # values carry rounding of 1e-9 of it
        points = torch.randn(1, 2, generator=generator, dtype=torch.float64) + near
        values = (torch.randn(7, generator=generator, dtype=torch.float64) + torch.cdist(points, points)).amin(1)
        try:
            lattice_interpolant(points, values, 2)
        except TightlipError as refusal:
            refused += 1
            lattice_interpolant(points, values, 2, K=float(str(refusal).rpartition("≥ ")[2]))
    assert refused > 5
