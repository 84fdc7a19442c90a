"""Differentially private training without clipping: the layers themselves bound the gradient of every example.

Take orthonormal layers without biases and MaxMin. Inputs have norm ≤ 1, so do all activations, and so do all maps back
to the logits. The gradient of a weight is (what comes back)·(what went in)ᵀ, so its norm is at most that of the loss in
the logits, √2 for cross-entropy; all L weights together have at most √(2L). Noise of σ·√(2L) on the *sum* of all
gradients is a Gaussian mechanism; T full-batch steps have zCDP ρ = T/(2σ²), so ε = ρ + 2√(ρ·ln(1/δ)) (Bun & Steinke
2016), for adding or leaving out one image. All after that is post-processing. Source: Béthune et al. 2023, "DP-SGD
Without Clipping: The Lipschitz Neural Network Way".

A sketch: torch's random numbers are not cryptographic, floats are not reals, and that the rate was chosen among six on
the validation images costs privacy too, which is not counted here.
"""

import math

import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
STEPS, SIGMA, DELTA = 50, 17.0, 1e-5


def features(images):
    """49 numbers of norm 1 together, by a fixed map of each image alone."""
    return F.normalize(F.avg_pool2d(images, 4).flatten(1))


network = tightlip.mlp([49, 32, 10], bias=False)  # K = 1
x, y, bound = features(parts.train.images), parts.train.labels, math.sqrt(2 * 2)  # two layers
optimizer = tightlip.hold(network, torch.optim.SGD(network.parameters(), lr=0.3, momentum=0.8))


def largest_gradient():
    """The largest norm of an example's gradient now, to see that the bound holds and is not idle."""

    def loss_of(weights, point, label):
        return F.cross_entropy(functional_call(network, weights, point[None]), label[None])

    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    gradients = vmap(grad(loss_of), (None, 0, 0))(weights, x[:500], y[:500])
    return float(torch.cat([g.flatten(1) for g in gradients.values()], 1).norm(dim=1).max())


assert 0.5 * bound < largest_gradient() <= bound
for _ in range(STEPS):
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()  # the mean; its noise is that of the sum, divided by the number
    for weight in network.parameters():
        weight.grad += torch.randn_like(weight) * SIGMA * bound / len(x)
    optimizer.step()
assert largest_gradient() <= bound * (1 + 1e-5)  # the layers are on their sets at every step

epsilon = (rho := STEPS / (2 * SIGMA**2)) + 2 * math.sqrt(rho * math.log(1 / DELTA))
accuracy = float((network(features(parts.test.images)).argmax(1) == parts.test.labels).double().mean())
print(f"{accuracy:.1%} correct with ε = {epsilon:.2f}, δ = {DELTA:g}")
assert accuracy > 0.65
