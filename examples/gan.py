"""A GAN with two optimizers: the critic is 1-Lipschitz by construction, so nothing is clipped and nothing penalized.

The generator has to find a ring. How far its points are from those of the ring is proven afterwards, from both sides.
"""

import torch
from torch import nn

import tightlip

torch.manual_seed(0)
critic = tightlip.mlp([2, 64, 64, 1])
layers = [nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
generator = nn.Sequential(*layers)  # an ordinary network: nothing is asked of it
judge = tightlip.hold(critic, torch.optim.Adam(critic.parameters(), lr=3e-3, betas=(0.0, 0.9)))
forger = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))


def ring(count):
    """Points at distance 1 from the center."""
    return nn.functional.normalize(torch.randn(count, 2))


def apart():
    """W1 of 200 points of each, between two proven bounds."""
    return tightlip.wasserstein1(ring(200), generator(torch.randn(200, 2)).detach(), progress=False)


before = apart()
for step in range(400):
    for _ in range(2):  # the critic separates, …
        loss = tightlip.kantorovich(critic(ring(128)), critic(generator(torch.randn(128, 2)).detach()))
        judge.zero_grad()
        loss.backward()
        judge.step()
    forger.zero_grad()  # … and the generator goes where the critic is high
    critic(generator(torch.randn(128, 2))).mean().neg().backward()
    forger.step()
    if step % 100 == 99:
        print(f"step {step + 1}: the critic sees a distance of {float(-loss.detach()):.3f}")

after = apart()
print(f"200 points each: W1 from {before.lower:.3f}–{before.upper:.3f} to {after.lower:.3f}–{after.upper:.3f}")
assert tightlip.lipschitz(tightlip.freeze(critic), p=2).constant <= 1
assert after.upper < before.lower / 2
