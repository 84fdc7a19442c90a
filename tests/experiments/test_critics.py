"""The studies of §7.1.1: what they promise holds on small cells, and what they print from the paper is the paper's."""

from dataclasses import replace

import pytest
import torch

from tightlip import TightlipError, mlp
from tightlip.experiments import (
    absolute_value,
    circular_cones,
    group_sort_shapes,
    high_dim_cones,
    maxmin_depth,
    spectral_vs_orthonormal,
    theorem_1,
    two_norm_universality,
)
from tightlip.experiments.critics import ACTIVATIONS, critic, distance_to_potential, linear_layers
from tightlip.transport import circular_cones as cones


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", ["zero", "random", "none"])
def test_critics_have_the_activation_and_the_biases_asked_for(activation, bias):
    network = critic([3, 8, 8, 1], activation, bias)
    assert type(network[1]) is type(ACTIVATIONS[activation]())
    biases = [layer.bias for layer in network if isinstance(layer, torch.nn.Linear)]
    assert len(biases) == 3
    if bias == "none":
        assert biases == [None] * 3
    else:
        assert all(bool(b.any()) == (bias == "random") for b in biases)


def test_names_that_nothing_has_are_refused():
    with pytest.raises(TightlipError, match="no activation is called 'swish'"):
        critic([1, 2, 1], "swish")
    with pytest.raises(TightlipError, match="choose one of zero, random, none"):
        critic([1, 2, 1], "relu", "one")


def test_the_distance_to_the_potential_forgives_a_constant_and_nothing_else():
    pair = cones()
    points = circular_cones.grid(9, 5, 3.0, 1.0)

    class Shifted(torch.nn.Module):
        def forward(self, x):
            return pair.potential(x)[:, None] + 7 + 0.25 * (x[:, :1] > 0)

    assert distance_to_potential(pair, Shifted(), points) == pytest.approx(0.125, abs=1e-6)


def test_activations_rank_on_the_line_as_in_the_paper():
    found = {
        name: absolute_value.run(absolute_value.Config(name, width=32, steps=250, learning_rate=1e-2), 0)
        for name in ("relu", "maxmin", "fullsort")
    }
    assert found["relu"].metrics["objective"] <= 0.65
    for name in ("maxmin", "fullsort"):
        assert 0.99 <= found[name].metrics["objective"] <= 1 + 1e-6
        assert found[name].metrics["farthest"] <= 0.05 and found[name].metrics["constant"] <= 1
    curve = found["maxmin"].drawings["curve"]
    assert curve["f"] == pytest.approx([-abs(x) for x in curve["x"]], abs=0.05)


def test_published_values_stand_beside_the_cells_that_they_are_of():
    table = high_dim_cones.Config
    assert high_dim_cones.published(table("relu", 128, 7)) == 0.60
    assert high_dim_cones.published(table("maxmin", 512, 3)) == 0.72
    assert high_dim_cones.published(table("maxout", 256, 3)) == 0.60
    assert high_dim_cones.published(table("maxmin", 64, 3)) is None


def test_a_cell_of_table_1_is_audited_and_keeps_its_training():
    config = high_dim_cones.Config("fullsort", 128, steps=40, points=2000, bias="none")
    found = high_dim_cones.run(config, 0)
    metrics, curve = found.metrics, found.drawings["curve"]
    assert 0.5 < metrics["objective"] <= 1 + 3 * metrics["standard_error"] and metrics["constant"] <= 1
    assert curve["step"][-1] == 40
    assert curve["objective"][-1] > curve["objective"][0] + 0.2


def test_groups_move_values_and_keep_norms():
    rows = [group_sort_shapes.run(group_sort_shapes.Config(size), 0) for size in (1, 2, 5, 30)]
    assert all(row.metrics["norm_ratio"] == pytest.approx(1, abs=1e-12) for row in rows)
    assert all(row.metrics["gradient_norm"] == pytest.approx(1, abs=1e-12) for row in rows)
    assert rows[0].metrics["moved"] == 0
    first, last = (row.drawings["curve"]["value"] for row in (rows[0], rows[3]))
    assert last == sorted(first)


def test_a_relu_network_that_obeys_becomes_linear_and_a_maxmin_network_does_not():
    config = theorem_1.Config(dimension=4, steps=300, points=2000, learning_rate=1e-2)
    free = theorem_1.run(replace(config, pull=0.0), 0).metrics
    pulled = theorem_1.run(replace(config, pull=100.0), 0).metrics
    maxmin = theorem_1.run(replace(config, activation="maxmin", pull=100.0), 0).metrics
    assert pulled["gradient_norm"] > 0.95 > 0.8 > free["gradient_norm"]
    assert pulled["nonlinearity"] < 0.02 < 0.1 < free["nonlinearity"]
    assert maxmin["gradient_norm"] == pytest.approx(1, abs=1e-5) and maxmin["nonlinearity"] > 0.5


def test_affine_functions_have_no_nonlinearity():
    points = torch.randn(500, 3)
    assert theorem_1.nonlinearity(torch.nn.Linear(3, 1), points) <= 1e-10
    assert theorem_1.nonlinearity(mlp([3, 6, 1]), points) > 1e-3


def test_spectral_balls_let_singular_values_sink():
    config = spectral_vs_orthonormal.Config(dimension=8, steps=60, points=1000)
    rows = {
        name: spectral_vs_orthonormal.run(replace(config, constraint=name), 0).metrics
        for name in ("spectral", "orthonormal")
    }
    assert rows["orthonormal"]["smallest_singular_value"] == pytest.approx(1, abs=1e-4)
    assert rows["spectral"]["smallest_singular_value"] < 0.99
    assert rows["spectral"]["gradient_norm"] < rows["orthonormal"]["gradient_norm"]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_touching_spheres_have_neighbors_two_apart(count):
    centers = two_norm_universality.touching(count).centers
    assert len(centers) == count
    if count > 1:
        near = torch.cdist(centers, centers).fill_diagonal_(torch.inf).amin(1)
        assert torch.allclose(near, torch.full((count,), 2.0))


@pytest.mark.parametrize("network", ["2-norm", "∞-norm"])
def test_both_classes_are_audited_and_miss_what_they_miss(network):
    config = two_norm_universality.Config(network, centers=1, width=8, depth=3, steps=30, points=1000)
    metrics = two_norm_universality.run(config, 0).metrics
    assert metrics["gap"] == 1 - metrics["objective"] and metrics["gap"] >= -3 * metrics["standard_error"]
    assert 0 < metrics["constant"] <= 1 + 1e-6


def test_the_infinity_class_starts_on_its_boundary():
    config = two_norm_universality.Config("∞-norm", width=8, depth=3)
    first, *others = linear_layers(two_norm_universality.network(config))
    assert torch.allclose(first.weight.norm(dim=1), torch.ones(8))
    for layer in others:
        assert torch.allclose(layer.weight.abs().sum(1), torch.ones(len(layer.weight)))


@pytest.mark.parametrize("name", maxmin_depth.KEPT)
def test_what_a_layer_collects_is_the_squared_mean_of_what_it_sorts(name):
    z = torch.randn(400_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = ACTIVATIONS[name]()(z).mean(0)
    assert float(means.square().mean()) == pytest.approx(maxmin_depth.KEPT[name], abs=4e-3)


def test_every_change_of_the_base_changes_what_comes_out():
    config = maxmin_depth.Config(dimension=8, width=256, depth=3, steps=4, points=100)
    found = {
        change: maxmin_depth.run(replace(config, change=change), 0).metrics["objective"]
        for change in maxmin_depth.CHANGES
    }
    assert len(set(found.values())) == len(found)


def test_the_infinity_class_is_audited_along_its_own_norms():
    config = two_norm_universality.Config("∞-norm", centers=1, width=32, depth=6, steps=30, points=100)
    assert two_norm_universality.run(config, 0).metrics["constant"] <= 1 + 1e-6
