"""What a run leaves to look at: an attack at the radius that was asked for, and gradients of the images beside them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tightlip import certify, records
from tightlip.experiments.evidence import Attack, attack_curve, certificate_file
from tightlip.robustness.attacks import cw_loss


def classifier(right, images=8):
    """A linear classifier of 2 × 2 images of which it gets the first ``right`` right; no two gradients are equal."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, images, bias=False)).requires_grad_(False)
    network[1].weight.copy_(torch.randn(images, 4, generator=generator))
    x = torch.rand(images, 1, 2, 2, generator=generator)
    order = network(x).argsort(1)
    return network, x, torch.where(torch.arange(images) < right, order[:, -1], order[:, 0])


def nothing(images):
    return records.Attack(images, 1, 1, np.array([0.0]), np.array([1.0]))


@pytest.mark.parametrize("right", range(9))
def test_an_example_has_its_own_gradient_however_few_are_right(right):
    network, x, y = classifier(right)
    examples = certificate_file(2.0, certify(network, x, y), x, y, network, nothing(8)).examples
    assert len({example.index for example in examples}) == len(examples) == right + min(2, 8 - right)
    for example in examples:
        image = x[example.index][None].requires_grad_()
        (gradient,) = torch.autograd.grad(-cw_loss(network(image), y[[example.index]]).sum(), image)
        assert np.allclose(example.gradient, gradient[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("p", [2.0, math.inf])
@pytest.mark.parametrize("eps", [0.0123456789, 3e-7, 1.1e-9])
def test_the_attack_is_at_the_radius_that_was_asked_for_and_not_lost_in_rounding(eps, p):
    """An input 1.06e-9 from the boundary w·x = 0, and one at a distance of 1 from it."""
    w = torch.ones(784).scatter(0, torch.arange(1, 784, 2), -1.0) / 28  # ‖w‖₂ = 1
    network = nn.Linear(784, 2, bias=False).requires_grad_(False)
    network.weight.copy_(torch.stack([w, -w]))
    x = torch.full((2, 784), 0.5)
    x[0, 1] -= 2.0**-25
    x[1] += w
    y = torch.zeros(2, dtype=torch.long)
    certificate = certify(network, x, y, p)
    curve = attack_curve(Attack(2, 20, 1), p, eps, network, x, y, certificate)
    accuracy = dict(zip(curve.eps, curve.accuracy, strict=True))
    assert certificate.correct.all() and len(accuracy) == 8
    assert (accuracy[0.0], accuracy[eps]) == (1.0, 0.5)
