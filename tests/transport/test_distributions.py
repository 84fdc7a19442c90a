import itertools

import pytest
import torch
from torch import nn

from tightlip import TightlipError, freeze, mlp
from tightlip.transport import Spheres, absolute_value, circular_cones, high_dimensional_cone

PAIRS = {
    "line": absolute_value,
    "plane": circular_cones,
    "space": lambda: high_dimensional_cone(7),
    "two lines": lambda: Spheres(torch.tensor([[0.0], [5.0]])),
    "float64": lambda: Spheres(torch.zeros(1, 3, dtype=torch.float64)),
}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.fixture(params=PAIRS, name="pair")
def _pair(request):
    return PAIRS[request.param]()


def test_the_potential_attains_the_distance_and_is_lipschitz(pair):
    objective, error = pair.objective(Function(pair.potential), 5000)
    assert objective == pytest.approx(1, abs=1e-6) and error <= 1e-6
    x, y = 3 * torch.randn(2, 2000, pair.dimension, generator=torch.Generator().manual_seed(0))
    assert bool(((pair.potential(x) - pair.potential(y)).abs() <= (x - y).norm(dim=1) * (1 + 1e-5)).all())


def test_no_matching_of_samples_is_cheaper_than_the_distance():
    for pair in (circular_cones(), high_dimensional_cone(3), absolute_value()):
        first, second = pair.sample(6, torch.Generator().manual_seed(1))
        costs = torch.cdist(first.double(), second.double())
        cheapest = min(sum(costs[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(6)))
        assert float(cheapest) / 6 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 255, 256])
def test_batches_are_balanced_and_on_the_unit_spheres(pair, count):
    first, second = pair.sample(count, torch.Generator().manual_seed(count))
    assert first.shape == second.shape == (count, pair.dimension) and first.dtype == pair.centers.dtype
    assert torch.allclose((second - first).norm(dim=1), torch.ones(count).to(first), atol=1e-6)
    shares = [int((first == center).all(1).sum()) for center in pair.centers]
    assert sum(shares) == count and max(shares) - min(shares) <= 2
    directions = second - first
    half = count // 2
    assert torch.allclose(directions[:half], -directions[count - half :], atol=1e-6)  # opposite pairs


def test_every_center_has_its_turn_where_a_batch_is_smaller_than_their_number():
    pair, generator = circular_cones(), torch.Generator().manual_seed(0)
    seen = {tuple(pair.sample(1, generator)[0][0].tolist()) for _ in range(50)}
    assert len(seen) == 3


def test_the_sign_of_the_objective_tells_the_distributions_apart():
    pair = high_dimensional_cone(5)
    assert pair.objective(Function(lambda x: x.norm(dim=1)), 100)[0] == pytest.approx(-1, abs=1e-6)
    assert pair.objective(Function(lambda x: x[:, :1] * 0 + 3), 100) == (0.0, 0.0)


def test_the_standard_error_says_how_far_the_mean_is():
    pair, critic = high_dimensional_cone(3), Function(lambda x: -(x - torch.tensor([0.6, 0.0, 0.0])).norm(dim=1))
    truth = -0.6 + (1 + 0.6**2 / 3)  # the mean distance from a unit sphere to a point within, at radius 0.6
    misses = []
    for seed in range(60):
        objective, error = pair.objective(critic, 400, torch.Generator().manual_seed(seed))
        misses.append((objective - truth) / error)
    assert 0.7 <= float(torch.tensor(misses).std()) <= 1.4
    assert abs(float(torch.tensor(misses).mean())) <= 0.5


def test_in_one_dimension_the_objective_is_exact_and_never_above_the_truth():
    for seed in range(10):
        torch.manual_seed(seed)
        objective, error = absolute_value().objective(freeze(mlp([1, 8, 8, 1])), 2)
        assert error == 0 and objective <= 1 + 1e-6


@pytest.mark.parametrize(
    ("centers", "words"),
    [
        (torch.zeros(0, 2), "centers must be finite numbers"),
        (torch.tensor([[float("nan"), 0.0]]), "finite"),
        (torch.tensor([[0.0, 0.0], [9.0, 0.0], [1.5, 0.0]]), "centers 0 and 2 are 1.5 apart"),
        (torch.tensor([[1e8, 0.0]]), "give them in float64"),
        (torch.zeros(1, 2, dtype=torch.float16), "float32 or float64"),
    ],
)
def test_centers_that_make_no_known_distance_are_refused(centers, words):
    with pytest.raises(TightlipError, match=words):
        Spheres(centers)


def test_senseless_numbers_are_refused():
    with pytest.raises(TightlipError, match="count must be an integer ≥ 1, got 0"):
        absolute_value().sample(0)
    with pytest.raises(TightlipError, match="count must be an integer ≥ 2, got 1"):
        circular_cones().objective(Function(lambda x: x[:, 0]), 1)
    with pytest.raises(TightlipError, match="one output for each point"):
        circular_cones().objective(Function(lambda x: x), 100)
    with pytest.raises(TightlipError, match="dimension must be an integer ≥ 1, got 0"):
        high_dimensional_cone(0)


def test_spheres_that_touch_in_any_direction_are_taken():
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for _ in range(50):
            here, step = torch.randn(2, 2, generator=generator, dtype=dtype)
            pair = Spheres(torch.stack([here, here + 2 * step / step.norm()]))
            assert pair.objective(Function(pair.potential), 200)[0] == pytest.approx(1, abs=1e-5)


def test_far_centers_keep_their_spheres_in_float64():
    pair = Spheres(torch.tensor([[1e8, 0.0]], dtype=torch.float64))
    assert pair.objective(Function(pair.potential), 200)[0] == pytest.approx(1, abs=1e-6)
