"""Quantized weights are other weights: audit the network that is really served, and certify with what it proves.

Each row is rounded to 8 bits. An orthonormal matrix is no longer one, and the old constant is no longer proven. The
audit reads what is there; dividing by its excess brings the constant back to 1, on a grid still, with a scale per row.
"""

import copy

import torch
from torch import nn

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
train, test = parts.train, parts.test
network = nn.Sequential(nn.Flatten(), tightlip.mlp([784, 64, 64, 10]))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))
for index in torch.randperm(4 * len(train)).remainder(len(train)).split(128):
    loss = tightlip.margin_cross_entropy(network(train.images[index]), train.labels[index], 0.8, 0.25)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def quantized(frozen, bits):
    """A copy whose rows are integers of so many bits times one scale each."""
    copied = copy.deepcopy(frozen)
    for layer in copied.modules():
        if isinstance(layer, nn.Linear):
            scale = layer.weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            layer.weight.data = (layer.weight / scale).round() * scale
    return copied


frozen = tightlip.freeze(network)
print("bits  constant      correct  certified at 0.3")
for bits in (32, 8, 5, 4):
    served = frozen if bits == 32 else quantized(frozen, bits)
    certificate = tightlip.certify(served, test, p=2)
    shares = f"{certificate.accuracy(0):>7.1%}  {certificate.accuracy(0.3):.1%}"
    print(f"{bits:>4}  {certificate.bound.constant:.9f}  {shares}")
    assert certificate.bound.constant > 1 or bits == 32  # the old certificate would be false

served = quantized(frozen, 4)
for layer in served.modules():
    if isinstance(layer, nn.Linear):  # still 4 bits a weight: the scales of the rows take the factor
        layer.weight.data /= tightlip.lipschitz(layer, p=2, q=2).constant * (1 + 1e-6)
assert tightlip.lipschitz(served, p=2).constant <= 1
