import copy
import io

import pytest
import torch
from torch import nn

from tightlip import TightlipError, hold
from tightlip.constraints.constraint import Constraint
from tightlip.constraints.fingerprint import mark
from tightlip.constraints.frame import DRIFT
from tightlip.constraints.guard import Held
from tightlip.constraints.product import Product
from tightlip.linalg.blocks import compose, sample, sweep, turn
from tightlip.linalg.kernel_shape import KernelShape
from tightlip.linalg.paraunitary import deviation
from tightlip.linalg.peeling import factor


class Kernels(Constraint):
    norms = (2.0, 2.0)

    def __init__(self, shape, groups=1):
        self.shape, self.groups = shape, groups

    def kernels(self, weight):
        return weight.unflatten(0, (self.groups, -1))

    def map(self, weight):
        return compose(factor(self.kernels(weight), self.shape)).flatten(0, 1)

    def distance(self, weight):
        return deviation(self.kernels(weight), self.shape)


def held(layer, seed=0):
    """A convolution with orthonormal kernels, held by `Product`."""
    shape = KernelShape.of(layer.weight.shape, layer.stride, layer.dilation, layer.groups)
    factors = sample(shape, (layer.groups,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        layer.weight.copy_(compose(factors).flatten(0, 1))
    layer._held = Held(Kernels(shape, layer.groups), Product(shape, layer.groups), mark(layer.weight))
    return layer


LAYERS = {
    "3x3": lambda: held(nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")),
    "grows": lambda: held(nn.Conv2d(4, 12, 3, padding=1)),
    "shrinks": lambda: held(nn.Conv2d(8, 3, (3, 2), dilation=2)),
    "strided": lambda: held(nn.Conv2d(4, 10, 4, stride=2, padding=1)),
    "strided, tall": lambda: held(nn.Conv2d(4, 18, 3, stride=2, padding=1)),
    "groups": lambda: held(nn.Conv2d(8, 8, 3, padding=1, groups=2)),
    "1-D": lambda: held(nn.Conv1d(8, 8, 5, padding=2)),
}


def images(layer, seed=0):
    axes = len(layer.kernel_size)
    return torch.randn(16, layer.in_channels, *(10,) * axes, generator=torch.Generator().manual_seed(seed))


def train(layer, optimizer, steps, goal=None, first=0):
    goal = goal or (lambda y: (y.flatten(1)[:, :40] - 0.5).square().mean())
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss = goal(layer(images(layer, step)))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def off(layer):
    return layer._held.constraint.distance(layer.weight.detach())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("make", [lambda p: torch.optim.Adam(p, 1e-2), lambda p: torch.optim.SGD(p, 0.5, 0.9)])
def test_a_kernel_learns_and_never_leaves_its_set(name, make):
    layer = LAYERS[name]()
    before = layer.weight.detach().clone()
    optimizer = hold(layer, make(layer.parameters()))
    losses = []
    for step in range(25):
        losses += train(layer, optimizer, 1, first=step)
        assert off(layer) < 2e-5
    assert sum(losses[-5:]) < sum(losses[:5]) and not torch.allclose(layer.weight, before, atol=1e-2)
    assert layer.weight.shape == before.shape and layer.weight.grad.shape == before.shape


def test_a_step_of_gradient_descent_turns_every_factor_by_its_own_gradient():
    layer = LAYERS["3x3"]()
    constraint, weight = layer._held.constraint, layer.weight.detach().clone()
    optimizer = hold(layer, torch.optim.SGD([layer.weight], 0.1))
    train(layer, optimizer, 1)
    factors = factor(constraint.kernels(weight), constraint.shape)
    patch, squares = sweep(factors, constraint.kernels(layer.weight.grad))
    turned, _ = turn(factors, -0.1 * patch, -0.1 * squares)
    torch.testing.assert_close(layer.weight.detach(), compose(turned).flatten(0, 1), rtol=0, atol=1e-6)
    assert float((layer.weight.detach() - weight).abs().max()) > 1e-4


def test_the_optimizers_state_resumes_to_the_last_bit():
    whole, optimizer = LAYERS["groups"](), None
    optimizer = hold(whole, torch.optim.Adam(whole.parameters(), 1e-2))
    train(whole, optimizer, 5)
    file = io.BytesIO()
    torch.save({"layer": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(whole, optimizer, 5, first=5)
    resumed = LAYERS["groups"]()
    assert set(whole.state_dict()) == {"weight", "bias"}
    again = hold(resumed, torch.optim.Adam(resumed.parameters(), 1e-2))
    file.seek(0)
    saved = torch.load(file)
    resumed.load_state_dict(saved["layer"])
    again.load_state_dict(saved["optimizer"])
    train(resumed, again, 5, first=5)
    assert torch.equal(resumed.weight, whole.weight)


def test_a_kernel_that_was_written_to_is_factored_anew():
    layer, other = LAYERS["3x3"](), held(nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), seed=1)
    optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 1e-6))
    train(layer, optimizer, 2)
    layer.load_state_dict(other.state_dict())
    train(layer, optimizer, 1)
    torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=1e-4)
    layer.weight.data += 0.01 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    train(layer, optimizer, 1)
    assert off(layer) < 1e-5
    torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=0.05)


def test_a_gradient_with_nan_moves_nothing():
    layer = LAYERS["3x3"]()
    optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 1e-2))
    train(layer, optimizer, 2)
    before = layer.weight.detach().clone()
    with pytest.raises(TightlipError, match="gradient of the weight is NaN or infinite"):
        train(layer, optimizer, 1, goal=lambda y: y.sum() * torch.nan)
    assert torch.equal(layer.weight, before)
    train(layer, optimizer, 1)
    assert off(layer) < 1e-5 and torch.isfinite(layer.weight).all()


def test_a_step_that_leaves_nan_in_the_turns_moves_nothing():
    layer = LAYERS["strided"]()
    optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 0.1))
    before = layer.weight.detach().clone()
    optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(TightlipError, match="would leave NaN, infinity or no rotation"):
        train(layer, optimizer, 1)
    assert torch.equal(layer.weight, before)


def test_a_scaled_loss_takes_the_same_step():
    scaled = LAYERS["3x3"]()
    plain, before = copy.deepcopy(scaled), scaled.weight.detach().clone()
    for layer, scale in ((scaled, 1024.0), (plain, 1.0)):
        optimizer = hold(layer, torch.optim.SGD([layer.weight], 0.1, fused=True))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(layer(images(layer)).square().flatten(1)[:, :40].mean()).backward()
        scaler.step(optimizer)
    torch.testing.assert_close(scaled.weight, plain.weight, rtol=0, atol=1e-6)
    assert not torch.allclose(plain.weight, before, atol=1e-4)


def test_a_copied_layer_goes_on_by_itself():
    layer = LAYERS["3x3"]()
    optimizer = hold(layer, torch.optim.Adam(layer.parameters(), 1e-2))
    train(layer, optimizer, 2)
    copied = copy.deepcopy(layer)
    train(copied, hold(copied, torch.optim.Adam(copied.parameters(), 1e-2)), 3)
    assert off(copied) < 1e-5 and not torch.equal(copied.weight, layer.weight)


def test_rounding_is_taken_away_in_time():
    layer = LAYERS["1-D"]()
    optimizer = hold(layer, torch.optim.SGD(layer.parameters(), 0.05))
    train(layer, optimizer, 1)
    state = optimizer.state[layer.weight]
    assert 1.0 < state["tightlip_drift"] < DRIFT
    state["tightlip_squares"] *= 1.001  # as if that much had added up
    train(layer, optimizer, 1)
    assert off(layer) > 1e-3
    state = optimizer.state[layer.weight]
    state["tightlip_drift"] = DRIFT
    train(layer, optimizer, 1)
    assert off(layer) < 1e-5 and optimizer.state[layer.weight]["tightlip_drift"] == 0.0


def test_what_cannot_be_factored_is_refused_at_once():
    with pytest.raises(TightlipError, match=r"use tightlip\.lifted\(layer\)"):
        Product(KernelShape(6, 1, (5, 5), (1, 1)))
