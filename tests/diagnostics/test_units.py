"""Units that are dead, undead or half awake by construction."""

import pytest
import torch
from torch import nn

from tightlip import Abs, MaxMin, TightlipError, activation_statistics, mlp

GRID = torch.linspace(-1, 1, 20).unsqueeze(1)
"""Twenty numbers, half of them positive; none is zero."""


def constructed():
    """Four ReLUs on the line: never, always, on the positive half, on the uppermost quarter of it."""
    layer = nn.Linear(1, 4)
    layer.weight.data = torch.ones(4, 1)
    layer.bias.data = torch.tensor([-5.0, 5.0, 0.0, -0.75])
    return nn.Sequential(layer, nn.ReLU())


def test_units_that_are_dead_undead_and_in_between_are_told_apart():
    (relu,) = activation_statistics(constructed(), GRID)
    assert (relu.name, relu.module) == ("1", "ReLU()")
    assert relu.positive.tolist() == [0.0, 1.0, 0.5, 0.15]
    assert relu.always == relu.never == 0.25


def test_the_share_above_tau_is_the_curve_of_figure_6():
    (relu,) = activation_statistics(constructed(), GRID)
    curve = [relu.at_least(tau) for tau in (0.0, 0.1, 0.15, 0.16, 0.5, 0.51, 1.0)]
    assert curve == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("tau", [-0.1, 1.1, float("nan")])
def test_thresholds_that_are_no_share_are_refused(tau):
    (relu,) = activation_statistics(constructed(), GRID)
    with pytest.raises(TightlipError, match="tau must be a finite number ≥ 0 and ≤ 1"):
        relu.at_least(tau)


@pytest.mark.parametrize("batch_size", [1, 3, 20, 1000])
def test_pieces_of_a_batch_count_like_the_whole(batch_size):
    (relu,) = activation_statistics(constructed(), GRID, batch_size)
    assert relu.positive.tolist() == [0.0, 1.0, 0.5, 0.15]


def test_every_activation_layer_is_found_in_order_also_inside_containers_that_are_not_sequential():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early = nn.Tanh(), MaxMin()

        def forward(self, x):
            return self.late(self.early(x))

    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), Parallel(), nn.Dropout(), nn.Linear(2, 3), nn.Sequential(Abs()))
    found = activation_statistics(network, GRID)
    assert [layer.name for layer in found] == ["1", "2.early", "2.late", "5.0"]
    assert [len(layer.positive) for layer in found] == [2, 2, 2, 3]
    assert found[3].positive.tolist() == [1.0, 1.0, 1.0]


def test_subclasses_of_activations_count_and_attention_does_not():
    class Loud(nn.ReLU):
        pass

    class Attention(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    network = nn.Sequential(nn.Linear(1, 2), Loud(), nn.Unflatten(1, (1, 2)), Attention(2, 1, batch_first=True))
    assert [layer.name for layer in activation_statistics(network, GRID)] == ["1"]


def test_a_module_used_twice_has_two_entries_with_the_names_of_its_places():
    relu = nn.ReLU()
    network = nn.Sequential(constructed()[0], relu, nn.Linear(4, 2), relu)
    first, second = activation_statistics(network, GRID, batch_size=7)
    assert (first.name, second.name) == ("1", "3")
    assert (len(first.positive), len(second.positive)) == (4, 2)


def test_each_position_of_an_image_is_a_unit():
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU())
    (relu,) = activation_statistics(network, torch.randn(5, 1, 4, 4))
    assert relu.positive.shape == (18,) and relu.positive.dtype == torch.float64


def test_a_network_without_activation_layers_has_no_statistics():
    assert activation_statistics(nn.Linear(1, 1), GRID) == ()


@pytest.mark.parametrize("way", ["step", "forward"])
def test_held_networks_are_measured_as_they_are(way):
    torch.manual_seed(0)
    network = mlp([1, 8, 8, 1], activation=nn.ReLU, hold=way)
    z = network[0](GRID)
    first, _ = activation_statistics(network, GRID)
    assert torch.equal(first.positive, (z > 0).double().mean(0))


def test_no_inputs_show_nothing():
    with pytest.raises(TightlipError, match="at least one example"):
        activation_statistics(constructed(), GRID[:0])
