"""The interval holds the known distance; parts are disjoint, the last one is looked at once, and seeds tell all."""

import inspect
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import MaxMin, Orthonormal, TightlipError, constrain, lipschitz, mlp
from tightlip.transport import ceiling, contest, families
from tightlip.transport.choosing import chosen_range
from tightlip.transport.confirming import confirmed
from tightlip.transport.families import steepest
from tightlip.transport.parts import three_parts
from tightlip.transport.population import population
from tightlip.transport.rows import Rows, pair_of_rows
from tightlip.transport.views import rescaled

NORMS = [1.0, 2.0, math.inf]
SHIFT = 0.5


def cubes(n, d, seed=0, m=None, shift=SHIFT):
    """Uniform on the cube, and on its translate along all coordinates."""
    draws = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, d, generator=draws), torch.rand(m or n, d, generator=draws)
    return x + shift, y


def length(d, p, shift=SHIFT):
    """Of the translation, in the p-norm: what the distance of both cubes is."""
    return float(torch.linalg.vector_norm(torch.full((d,), shift, dtype=torch.float64), p))


@pytest.fixture
def brief(monkeypatch):
    """Training for seconds, not for minutes."""
    for module, name, value in ((contest, "ROUNDS", 1), (families, "WIDTH", 16), (families, "COUNT", 32)):
        monkeypatch.setattr(module, name, value)


# -------------------------------------------------------------------------------------------------------- known truths


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("d", [1, 2, 16])
def test_a_translation_is_inside_and_the_lower_end_comes_near(d, p):
    x, y = cubes(1000, d)
    truth, diameter = length(d, p), length(d, p, 1 + SHIFT)
    found = population(x, y, p, diameter=diameter, critic="linear")
    assert 0.65 * truth < found.lower < truth < found.upper <= diameter
    assert found.lower <= found.estimate <= found.upper
    assert found.estimate == pytest.approx(truth, rel=0.05)
    assert found.p_value == 0.001


@pytest.mark.parametrize("critic", ["network", "funnels", None])
@pytest.mark.parametrize("p", NORMS)
def test_every_family_finds_a_translation_in_every_norm(critic, p, brief):
    x, y = cubes(1000, 2, shift=2.0)
    found = population(x, y, p, critic=critic)
    truth = length(2, p, 2.0)
    assert (0.5 if critic != "network" else 0.2) * truth < found.lower < truth
    assert found.upper == math.inf
    assert lipschitz(found.critic, p).constant <= 1
    assert found.critic(x.double()).shape == (1000, 1)
    held = float(found.critic(x.double()).mean() - found.critic(y.double()).mean())
    assert held == pytest.approx(found.estimate, rel=0.05)


def test_funnels_find_what_no_plane_separates(brief):
    """Points in the middle against the circle around them: each is 1 from its place."""
    draws = torch.Generator().manual_seed(0)
    angles = 2 * math.pi * torch.rand(2000, generator=draws)
    circle = torch.stack((angles.cos(), angles.sin()), 1)
    middle = 1e-3 * torch.rand(2000, 2, generator=draws)
    found = {critic: population(middle, circle, critic=critic).lower for critic in ("linear", "funnels")}
    assert found["linear"] == 0
    assert 0.9 < found["funnels"] < 1.001
    assert 0.9 < population(circle, middle, critic="funnels").lower < 1.001


@pytest.mark.parametrize(("scale", "offset"), [(1e-150, 0.0), (1e150, 0.0), (1.0, 1e6), (1e-5, 1.0)])
def test_neither_the_scale_nor_the_place_of_points_matters(scale, offset):
    x, y = (points.double() * scale + offset for points in cubes(1000, 3))
    found, plain = (population(a, b, critic="linear") for a, b in ((x, y), cubes(1000, 3)))
    assert found.lower / scale == pytest.approx(plain.lower, rel=1e-4)
    assert found.lower < length(3, 2) * scale * (1 + 1e-9)


@pytest.mark.parametrize("share", [1.0, 1e-300])
def test_numbers_at_the_ends_of_float64_have_an_interval(share):
    """Neither their sums nor their differences are float64."""
    x = torch.full((60, 2), 1.7e308 * share, dtype=torch.float64)
    found = population(x, -x, critic="linear")
    assert 0 <= found.lower <= found.estimate <= found.upper == math.inf
    assert share == 1 or found.estimate == pytest.approx(3.4 * math.sqrt(2) * 1e8, rel=1e-6)


def test_equal_distributions_have_uniform_p_values_and_no_distance(monkeypatch):
    monkeypatch.setattr("tightlip.transport.confirming.PERMUTATIONS", 99)
    p_values = []
    for seed in range(100):
        draws = torch.Generator().manual_seed(seed)
        x, y = torch.randn(30, 2, generator=draws), torch.randn(30, 2, generator=draws)
        found = population(x, y, critic="linear", seed=seed)
        assert found.lower == 0
        p_values.append(found.p_value)
    ordered = np.sort(p_values)
    distance = np.abs(ordered - np.arange(1, 101) / 100).max()
    assert distance < 0.19  # Kolmogorov's bound at 0.1 %
    assert ordered[-1] > 0.9


def test_bounds_hold_where_they_may_hardly_ever_fail():
    """At level 1 − 1e-6 none of 40 intervals may miss; clipping and rounding take nothing from that."""
    for seed in range(40):
        d = 1 + seed % 3
        x, y = cubes(60 + seed, d, seed, m=50, shift=3.0)
        found = population(x, y, level=1 - 1e-6, diameter=4 * math.sqrt(d), critic="linear", seed=seed)
        assert found.lower <= length(d, 2, 3.0) <= found.upper
    assert found.lower > 0


# ------------------------------------------------------------------------------------------- heavy tails, and clipping


def test_a_few_far_values_are_cut_off():
    draws = torch.Generator().manual_seed(0)
    x, y = torch.rand(4000, 1, generator=draws) + 1, torch.rand(4000, 1, generator=draws)
    x[:4], y[:4] = 100.0, -100.0
    assert population(x, y, critic="linear").lower > 0.8


def test_the_inequality_is_chosen_for_the_points_to_come():
    """Bernstein's where values vary little, Hoeffding's where they stand at both ends."""
    narrow = torch.randn(5000).clamp(-10, 10) * 0.1
    narrow[0], narrow[1] = 10.0, -10.0
    wide = torch.randint(0, 2, (1000,)).float()
    of_narrow = chosen_range((narrow, narrow), (narrow + 1, narrow), (10**6, 10**6), 0.05)
    of_wide = chosen_range((wide, wide), (wide + 0.5, wide), (500, 500), 0.05)
    assert (of_narrow.bound.__name__, of_wide.bound.__name__) == ("bernstein_lower", "hoeffding_lower")


def test_an_evaluation_that_strays_is_taken_off():
    """With an offset of 2⁴⁰, float64 leaves 2⁻¹² of a sum of coordinates: the lower end knows."""
    x, y = (points.double() for points in cubes(2000, 2))
    samples = pair_of_rows(x, y, 3)
    _, _, part = three_parts(samples, 0)
    layer = nn.Linear(2, 1, bias=True, dtype=torch.float64).requires_grad_(False)
    layer.weight.fill_(math.sqrt(0.5))
    choice = chosen_range((x.sum(1), y.sum(1)), (x.sum(1), y.sum(1)), (1000, 1000), 0.05)
    lower = {}
    for offset in (0.0, 2.0**40):
        layer.bias.fill_(offset)
        undone = nn.Linear(1, 1, dtype=torch.float64).requires_grad_(False)
        undone.weight.fill_(1.0)
        undone.bias.fill_(-offset)
        lower[offset] = confirmed([layer, undone], choice, samples, part, 2.0, 0.05, 0).lower
    assert 0 < lower[2.0**40] < lower[0.0] - 2.0**-13


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("n", [3, 4, 10, 1001])
def test_parts_are_disjoint_and_complete_and_none_is_empty(n):
    samples = pair_of_rows(torch.zeros(n, 2), torch.zeros(n + 1, 2), 3)
    parts = three_parts(samples, 5)
    for rows, which in zip(samples, ("first", "second"), strict=True):
        indices = [getattr(part, which) for part in parts]
        assert np.array_equal(np.sort(np.concatenate(indices)), np.arange(len(rows)))
        assert all(len(index) and (np.diff(index) > 0).all() for index in indices)
    other = three_parts(samples, 6)
    assert n < 10 or not np.array_equal(parts[2].first, other[2].first)


def test_training_holds_a_bounded_part(monkeypatch):
    monkeypatch.setattr("tightlip.transport.parts.MOST", 64)
    train, choose, confirm = three_parts(pair_of_rows(torch.zeros(1000, 2), torch.zeros(9, 2), 3), 0)
    assert (len(train.first), len(choose.first), len(confirm.first)) == (32, 8, 960)
    assert (len(train.second), len(choose.second), len(confirm.second)) == (4, 1, 4)


def test_the_critic_does_not_depend_on_the_confirming_part():
    x, y = cubes(300, 2)
    _, _, confirm = three_parts(pair_of_rows(x, y, 3), 0)
    moved = x.clone()
    moved[torch.from_numpy(confirm.first)] += 100.0
    first, second = (population(points, y, critic="linear") for points in (x, moved))
    assert torch.equal(first.critic(x.double()), second.critic(x.double()))
    assert first.estimate != second.estimate


# -------------------------------------------------------------------------------------------------- seeds and processes


def same(first, second):
    return (first.lower, first.upper, first.estimate, first.p_value, first.method) == (
        second.lower,
        second.upper,
        second.estimate,
        second.p_value,
        second.method,
    )


def test_the_seed_tells_all_and_the_global_generator_is_left_alone(brief):
    x, y = cubes(200, 2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = population(x, y, diameter=3.0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, population(x.numpy(), y, diameter=3.0))
    assert not same(first, population(x, y, diameter=3.0, seed=1))


RANK = """
import json, os, sys
import numpy as np
import torch.distributed as dist
from tightlip import wasserstein1
from tightlip.transport import contest, families
contest.ROUNDS, families.WIDTH, families.COUNT = 1, 16, 32
dist.init_process_group("gloo")
x, y = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in "xy")
found = wasserstein1(x, y, about="distributions", diameter=9.0, progress=False)
gathered = [None] * dist.get_world_size()
dist.all_gather_object(gathered, (found.lower, found.upper, found.estimate, found.p_value, found.method))
if dist.get_rank() == 0:
    print(json.dumps(gathered), flush=True)
dist.barrier()
os._exit(0)  # at an orderly exit gloo now and then ends a thread of its own that still runs, and aborts
"""


def test_ranks_under_torchrun_find_the_interval_that_one_process_finds(brief, tmp_path):
    """Each reads the same memory maps, and trains, chooses and confirms alone: all end with the same bits."""
    for name, points in zip("xy", cubes(120, 3, m=80), strict=True):
        np.save(tmp_path / f"{name}.npy", points.numpy())
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "rank.py"), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    here = population(*(np.load(tmp_path / f"{name}.npy") for name in "xy"), diameter=9.0)
    of_here = [here.lower, here.upper, here.estimate, here.p_value, here.method]
    assert json.loads(done.stdout) == [of_here, of_here]
    assert 0 < here.p_value < 0.05 and here.upper < 9


def test_time_ends_training_and_the_interval_is_one_still():
    x, y = cubes(3000, 2)
    found = population(x, y, diameter=3.0, seconds=0.0)
    assert found.reason == "the time was over"
    assert 0 < found.lower < length(2, 2) < found.upper
    assert found.seconds < 10
    assert [row[1:] for row in found.history] == [(0.0, found.upper), (found.lower, found.upper)]


# ------------------------------------------------------------------------------------------------------- many points


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, ">f4"])
def test_a_memory_map_is_read_by_index(tmp_path, dtype):
    x, y = (100 * points.numpy() for points in cubes(2000, 3))
    np.save(tmp_path / "x.npy", x.astype(dtype))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    first, second = (population(a, y, diameter=500.0, critic="linear") for a in (mapped, np.array(mapped, dtype=float)))
    assert same(first, second)
    assert 0.8 * 100 * length(3, 2) < first.lower


def test_no_sample_is_copied_whole(monkeypatch):
    taken = []
    take = inspect.unwrap(Rows.take)
    monkeypatch.setattr("tightlip.transport.rows.BLOCK", 300)
    monkeypatch.setattr("tightlip.transport.parts.MOST", 300)
    monkeypatch.setattr(ceiling, "MOST", 50)
    monkeypatch.setattr(Rows, "take", lambda rows, index: taken.append(len(part := take(rows, index))) or part)
    x, y = cubes(5000, 3)
    population(x, y, diameter=3.0, critic="linear")
    assert max(taken) == 100
    assert sum(taken) > 5000 * 2 * 2


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 30), (3000, 40), (3000, 3000)])
def test_any_two_sizes_are_coupled(n, m, monkeypatch):
    monkeypatch.setattr(ceiling, "MOST", 500)
    x, y = cubes(n, 2, m=m)
    upper, words = ceiling.upper_bound(pair_of_rows(x, y, 3), 2.0, 3.0, 0.05, None, 0)
    assert length(2, 2) < upper < 2.5
    count = {40: (40, m), 3000: (min(m, 500),) * 2}[n]
    assert f"{count[0]} and {count[1]} points" in words


# ------------------------------------------------------------------------------------------------- critics of one's own


def test_a_critic_of_ones_own_is_trained_on_a_copy(brief):
    x, y = cubes(500, 2, shift=2.0)
    torch.manual_seed(0)
    critic = mlp([2, 16, 1])
    before = critic[0].weight.clone()
    found = population(x, y, critic=critic)
    assert torch.equal(critic[0].weight, before)
    assert critic[0].weight.requires_grad
    assert 0.5 * length(2, 2, 2.0) < found.lower < length(2, 2, 2.0)
    assert "the given critic" in found.method


def test_images_are_points_for_a_critic_of_images(brief):
    draws = torch.Generator().manual_seed(0)
    x, y = torch.rand(300, 1, 4, 4, generator=draws) + 1.0, torch.rand(300, 1, 4, 4, generator=draws)
    critic = nn.Sequential(nn.Flatten(), constrain(nn.Linear(16, 8), Orthonormal()), MaxMin(), nn.Flatten())
    critic.append(constrain(nn.Linear(8, 1), Orthonormal()))
    found = population(x, y, critic=critic)
    assert 2 < found.lower < 4
    assert found.critic(x.double()).shape == (300, 1)
    assert population(x, y, critic="linear").critic(x.double()).shape == (300, 1)


@pytest.mark.parametrize("constant", [0.25, 3.0])
def test_a_frozen_critic_is_divided_by_its_audited_constant(constant):
    x, y = cubes(3000, 2)
    layer = nn.Linear(2, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(constant * math.sqrt(0.5))
    found, linear = (population(x, y, critic=critic) for critic in (layer, "linear"))
    assert found.lower == pytest.approx(linear.lower, rel=0.02)
    assert found.lower < length(2, 2)
    assert 0.999 < lipschitz(found.critic, 2).constant <= 1


def test_a_constant_critic_proves_nothing():
    flat = nn.Linear(2, 1).requires_grad_(False)
    flat.weight.zero_()
    found = population(*cubes(50, 2), critic=flat)
    assert (found.lower, found.p_value) == (0, 1)


@pytest.mark.parametrize("p", NORMS)
def test_no_other_direction_is_steeper(p):
    gap = torch.tensor([3.0, -4.0, 1.0], dtype=torch.float64)
    best = steepest(gap, p)
    points = torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slopes = (points @ best).abs() / torch.linalg.vector_norm(points, p, dim=1)
    assert float(slopes.max()) <= 1 + 1e-12
    assert float(gap @ best) == pytest.approx(float(torch.linalg.vector_norm(gap, p)))


def test_the_unit_brings_points_to_about_one():
    x, y = (points.double() * 1e-3 + 7 for points in cubes(500, 16))
    first, second = rescaled((x, y), 2.0, torch.device("cpu"))((x, y))
    far = torch.cat((first, second)).norm(dim=1).mean()
    assert 0.5 <= far <= 1
    assert first.dtype == torch.float32


# ----------------------------------------------------------------------------------------------------------- bad input


X = torch.rand(20, 2)
NAN = torch.cat((X, torch.tensor([[0.0, math.nan]])))


@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        (NAN, X, {}, "point 20 of the first sample is NaN or infinite"),
        (X, NAN.numpy(), {"diameter": 9.0}, "point 20 of the second sample is NaN or infinite"),
        (X, torch.rand(20, 3), {}, "points of one space"),
        (X[:1], X, {}, "the first sample has shape .* at least 3"),
        (X, X[:2], {}, "the second sample has shape .* at least 3"),
        (X[:0], X, {}, "at least 3"),
        (torch.tensor(1.0), X, {}, "at least 3"),
        (np.float64(1.0), X, {}, "must be a tensor or a numpy array"),
        (X.tolist(), X, {}, "must be a tensor or a numpy array"),
        (np.array(["a", "b", "c"]), X, {}, "must be numbers"),
        (X > 0.5, X, {}, "must hold numbers"),
        (X.to(torch.complex64), X, {}, "must be real numbers"),
        (X.numpy().astype(object), X, {}, "must be numbers, got an array of object"),
        (
            np.ma.masked_array(X.numpy(), np.arange(40).reshape(20, 2) == 31),
            X,
            {},
            "masked entries of the first sample",
        ),
        (X, X.to_sparse(), {}, "the second sample must be dense"),
        (torch.full((5, 2), 2**60), X, {}, "2⁵³"),
        (X, X, {"diameter": 0.1}, "diameter 0.1 is less than the distance of two of the points"),
        (X, X, {"diameter": -1.0}, "diameter must be a finite number ≥ 0"),
        (X, X, {"p": 3}, "no norm is called 3"),
        (X, X, {"level": 1.0}, "level must be a number between 0 and 1"),
        (X, X, {"level": 95}, "level must be a number between 0 and 1"),
        (X, X, {"seconds": -1}, "seconds must be a finite number ≥ 0"),
        (X, X, {"seed": 0.5}, "seed must be an integer"),
        (X, X, {"seed": 2**63}, "seed must be an integer from 0 to 9223372036854775807"),
        (X, X, {"level": 10**400}, "level must be a finite number"),
        (
            X,
            X,
            {"critic": nn.Conv2d(1, 1, 3).requires_grad_(False)},
            r"inputs of shape \(8, 2\) do not fit the network",
        ),
        (X, X, {"critic": [mlp([2, 4, 1])]}, "critic must be a module"),
        (
            X,
            X,
            {"critic": type("Loud", (nn.Linear,), {})(2, 1).requires_grad_(False)},
            "no Lipschitz rule is known for",
        ),
        (X, X, {"progress": "yes"}, "progress must be True or False"),
        (X, X, {"critic": "funnel"}, "did you mean funnels"),
        (X, X, {"critic": 3}, "critic must be a module"),
        (X, X, {"critic": nn.Linear(2, 1)}, "nothing constrains"),
        (X, X, {"critic": mlp([2, 4])}, "outputs of shape \\(4,\\): give it a single one"),
    ],
)
def test_bad_input_is_one_sentence(x, y, options, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        inspect.unwrap(population)(x, y, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("p", NORMS)
def test_a_diameter_that_is_one_is_not_refused(p):
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    size = {1.0: 2.0, 2.0: math.nextafter(math.sqrt(2), 2), math.inf: 1.0}[p]
    samples = pair_of_rows(corners, corners.flip(0), 3)
    ceiling.refuse_small_diameter(samples, size, p)
    with pytest.raises(TightlipError, match="less than the distance"):
        ceiling.refuse_small_diameter(samples, 0.999 * size, p)
    large = pair_of_rows(corners.double() * 2.0**700, corners.double() * 2.0**700, 3)
    ceiling.refuse_small_diameter(large, size * 2.0**700 * (1 + 1e-12), p)
