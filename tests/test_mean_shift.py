"""`MeanShift`: what it takes off in training and afterwards, and that it costs no constant."""

import copy
import math

import pytest
import torch
from torch import nn

from tightlip import MeanShift, TightlipError, certify, lipschitz, trace


def test_the_running_mean_follows_the_batches():
    layer = MeanShift(2, momentum=0.5)
    layer(torch.tensor([[2.0, 4.0], [4.0, 0.0]]))
    assert layer.mean.tolist() == [1.5, 1.0]
    assert layer(torch.tensor([[2.0, 4.0]])).tolist() == [[0.0, 0.0]]
    assert copy.deepcopy(layer).eval()(torch.zeros(1, 2)).tolist() == (-layer.mean[None]).tolist()


def test_a_twentieth_of_each_batch_enters_unless_it_is_said_otherwise():
    layer = MeanShift(1)
    layer(torch.tensor([[2.0], [4.0]]))
    assert layer.mean.item() == pytest.approx(0.15)


def test_each_channel_of_images_has_one_mean_over_all_pixels():
    x = torch.rand(5, 3, 4, 4) * 100
    layer = MeanShift(3, momentum=0.0)
    assert torch.allclose(layer(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(layer.mean, x.mean((0, 2, 3)))
    assert torch.allclose(layer.eval()(x[:1]), x[:1] - x.mean((0, 2, 3))[:, None, None], atol=1e-4)
    batch_norm = nn.BatchNorm2d(3, momentum=1.0, affine=False)
    batch_norm(x)
    assert torch.allclose(layer.mean, batch_norm.running_mean)


def test_gradients_are_those_of_values_without_their_mean():
    """What moves all rows of a batch alike changes nothing, so gradients of a channel sum to zero."""
    x = torch.rand(6, 2, 3, dtype=torch.float64, requires_grad=True)
    layer = MeanShift(2).double()
    (layer(x) ** 3).sum().backward()
    assert float(x.grad.sum((0, 2)).abs().max()) < 1e-12 < float(x.grad.abs().max())


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 5)])
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_its_constant_is_one_whatever_the_mean(shape, p):
    layer = MeanShift(3)
    layer(1e6 * torch.rand(shape))
    assert lipschitz(layer.eval(), p).constant == 1.0


def test_in_training_mode_nothing_is_proven():
    with pytest.raises(
        TightlipError, match=r"MeanShift in training mode depends on the whole batch: call network.eval"
    ):
        lipschitz(MeanShift(3), 2)


def test_a_mean_that_is_no_number_is_refused():
    layer = MeanShift(2).eval()
    layer.mean[1] = math.nan
    with pytest.raises(TightlipError, match="mean"):
        certify(nn.Sequential(layer, nn.Linear(2, 2)).eval(), torch.zeros(1, 2))


def test_a_network_is_traced_and_its_running_means_stay():
    """Shapes are followed by what layers are known to do, not by trying them on zeros."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Unflatten(1, (2, 12)), nn.Conv1d(2, 3, 7), MeanShift(3), nn.ReLU())

        def forward(self, x):
            made = self.layers(x)
            return (made + 0.5 * made).flatten(1)

    own = Own()
    own.layers[2].mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.rand(4, 24)
    traced = trace(own)
    assert own.layers[2].mean.tolist() == [1.0, 2.0, 3.0]
    assert torch.allclose(traced.eval()(x), own.eval()(x))
    assert lipschitz(own, 2).constant == pytest.approx(1.5 * lipschitz(own.layers, 2).constant)


def test_an_empty_batch_leaves_the_mean_alone_and_other_dtypes_pass():
    layer = MeanShift(3)
    assert layer(torch.zeros(0, 3)).shape == (0, 3) and layer.mean.tolist() == [0.0, 0.0, 0.0]
    assert layer(torch.zeros(2, 3, 0)).shape == (2, 3, 0) and layer.mean.tolist() == [0.0, 0.0, 0.0]
    layer(torch.ones(4, 3, dtype=torch.float64))
    layer(torch.ones(4, 3, dtype=torch.bfloat16))
    assert layer.mean.dtype == torch.float32 and torch.isfinite(layer.mean).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: MeanShift(0), "features must be an integer ≥ 1"),
        (lambda: MeanShift(2, 1.5), "momentum must be a number from 0 to 1"),
        (lambda: MeanShift(2)(torch.zeros(2)), "takes 2 features on axis 1"),
        (lambda: MeanShift(2)(torch.zeros(3, 4)), "takes 2 features on axis 1"),
        (lambda: MeanShift(4)(torch.zeros(3, 2, 4)), "takes 4 features on axis 1"),
        (lambda: MeanShift(2)(torch.ones(3, 2, dtype=torch.int64)), "of floating-point numbers, got torch.int64: give"),
    ],
)
def test_mistakes_are_told(call, says):
    with pytest.raises(TightlipError, match=says):
        call()
