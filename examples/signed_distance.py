"""A signed distance function, learned from samples, with a picture: each of its values is a ball without surface.

The distance to a shape, negative inside of it, is 1-Lipschitz. So is the network, and that is proven: where it says
f(x) > 0, its surface f = 0 is at least that far away, and a ray may step ahead by f(x) without looking between.
"""

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

import tightlip

mpl.use("Agg")  # draws into a file
torch.manual_seed(0)
turn = torch.pi * torch.arange(10) / 5 + torch.pi / 2
corners = torch.stack((turn.cos(), turn.sin()), 1) * torch.tensor([1.0, 0.45]).repeat(5)[:, None]  # of a star


def signed_distance(x):
    """To the star, (n, 2) → (n,): that to the nearest edge, and its sign by how many edges a ray to the right meets."""
    a, b = corners, corners.roll(-1, 0)
    edge, away = b - a, x[:, None] - a
    along = ((away * edge).sum(2) / (edge * edge).sum(1)).clamp(0, 1)
    distance = (away - along[..., None] * edge).norm(dim=2).amin(1)
    spans = (a[:, 1] > x[:, None, 1]) != (b[:, 1] > x[:, None, 1])
    right = x[:, None, 0] < a[:, 0] + away[..., 1] / edge[:, 1] * edge[:, 0]
    return torch.where((spans & right).sum(1) % 2 == 1, -distance, distance)


x = 3 * torch.rand(6000, 2) - 1.5
network = tightlip.mlp([2, 64, 64, 64, 1])
rate = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.02)}
tightlip.fit(network, torch.nn.functional.l1_loss, (x, signed_distance(x)), epochs=25, progress=False, **rate)
f = tightlip.freeze(network)
bound = tightlip.lipschitz(f, p=2)

with torch.no_grad():
    fresh = 3 * torch.rand(2000, 2) - 1.5
    error = (f(fresh)[:, 0] - signed_distance(fresh)).abs()
    print(f"{bound}: off by {error.mean():.4f} on average, {error.max():.4f} at most of 2,000 points")
    assert bound.constant <= 1 and error.mean() < 0.03

    ray, way, steps = torch.tensor([[-1.4, 0.1]]), torch.tensor([[1.0, 0.0]]), 0
    while steps < 200 and f(ray) > 1e-4:  # sphere tracing: it comes to the surface, and never through it
        ray, steps = ray + f(ray) * way, steps + 1
    print(f"{steps} steps to x = {ray[0, 0]:.3f}; the star is {signed_distance(ray).item():.4f} away")
    assert 0 < steps < 200 and f(ray) > -1e-5

    side = torch.linspace(-1.5, 1.5, 200)
    values = f(torch.cartesian_prod(side, side)).reshape(200, 200).T
figure, axes = plt.subplots(figsize=(5, 5))
axes.contourf(side, side, values, levels=torch.arange(-0.5, 1.6, 0.1).tolist(), cmap="RdBu_r")
axes.contour(side, side, values, levels=[0.0], colors="black")
axes.fill(*corners.T, fill=False, linestyle="--")
figure.savefig("signed_distance.png")
