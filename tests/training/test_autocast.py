"""`fit(…, autocast=True)`: products in bfloat16 and nothing else."""

import pytest
import torch
from blobs import same_weights, seeded, train
from torch import nn
from torch.nn import functional

from tightlip import Orthonormal, TightlipError, convnet, fit, freeze, lipschitz


class Watched(nn.Module):
    """Keeps the types and the memory formats that it sees in training."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.seen = layer, []

    def forward(self, x):
        y = self.layer(x)
        self.seen.append((self.training, y.dtype))
        return y


def test_products_of_training_alone_are_in_bfloat16_and_losses_in_float32():
    network, losses = nn.Sequential(Watched(nn.Linear(4, 2))), []

    def loss(outputs, targets):
        losses.append(outputs.dtype)
        return functional.cross_entropy(outputs, targets)

    fit_on = train(2, network, loss=loss, autocast=True)[0]
    seen = set(fit_on[0].seen)
    assert (True, torch.bfloat16) in seen
    assert (False, torch.bfloat16) not in seen
    assert set(losses) == {torch.float32}
    assert fit_on[0].layer.weight.dtype == torch.float32


def test_float64_networks_stay_float64():
    network, _ = train(1, nn.Sequential(nn.Linear(4, 2)).double(), autocast=True)
    expected, _ = train(1, nn.Sequential(nn.Linear(4, 2)).double())
    assert network[0].weight.dtype == expected[0].weight.dtype == torch.float64


def test_weights_are_on_their_sets_and_it_learns_as_without():
    network, history = train(5, seeded(), autocast=True)
    without, expected = train(5, seeded())
    assert not same_weights(network, without)  # or nothing was rounded
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=0.1)
    assert all(Orthonormal().contains(layer.weight.detach()) for layer in network[::2])
    assert lipschitz(freeze(network), 2).constant <= 1.0


def test_convolutions_lie_in_channels_last_and_are_frozen_as_any():
    torch.manual_seed(0)
    network = convnet((1, 8, 8), 2, channels=(4, 8), patch=2, depth=1, hidden=(8,))
    x, y = torch.randn(64, 1, 8, 8), torch.arange(64) % 2
    fit(network, functional.cross_entropy, (x, y), epochs=2, progress=False, autocast=True)
    assert network[2].weight.is_contiguous(memory_format=torch.channels_last)
    frozen = freeze(network)
    assert lipschitz(frozen, 2).constant <= 1.0
    torch.testing.assert_close(frozen(x), network(x), atol=1e-5, rtol=0)


def test_a_run_with_it_is_another_run(tmp_path):
    train(1, checkpoint=tmp_path / "c.pt", autocast=True)
    with pytest.raises(TightlipError, match="another run, whose autocast differed"):
        train(1, checkpoint=tmp_path / "c.pt", resume=True)


@pytest.mark.parametrize("wrong", ["bfloat16", torch.bfloat16, 1, None])
def test_it_is_a_flag(wrong):
    with pytest.raises(TightlipError, match="autocast must be True or False"):
        train(1, autocast=wrong)
