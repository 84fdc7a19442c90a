"""Radii in the ∞-norm: rows in the L1 ball, one large K, and a hinge that asks for the margin κ = K·a.

A perturbation with every pixel moved by at most ε moves each logit by at most K·ε, so a difference of two logits moves
by at most 2·K·ε. Where the hinge is met the margin is at least K·a, and the certified radius is a/2 (not a).
"""

import math

import torch

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
train, test = parts.train, parts.test
K, a = 1000.0, 0.1

network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 128, 128, 10], tightlip.RowL1Ball(), K=K))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))

for _ in range(8):
    for index in torch.randperm(len(train)).split(128):
        x, y = train.images[index], train.labels[index]
        loss = tightlip.multiclass_hinge(network(x), y, kappa=K * a, mean_over_classes=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

frozen = tightlip.freeze(network)
certificate = tightlip.certify(frozen, test.images, test.labels, p=math.inf)
bound = certificate.bound
print(f"audited: {bound.constant:.6f}-Lipschitz, {bound.input_norm}→{bound.output_norm}")
print(f"accuracy {certificate.accuracy(0):.1%}, certified at {a / 2}: {certificate.accuracy(a / 2):.1%}")

met = certificate.margin >= K * a  # where the hinge is zero
print(f"the hinge is met on {int(met.sum())} of {len(met)} test images")
assert bool((certificate.radius[met] > 0.999999 * a / 2).all())
