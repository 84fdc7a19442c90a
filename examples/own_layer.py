"""A layer of one's own joins the audit by one rule, and the rule is for that class alone.

The layer is x ↦ |x − b| with a learned b. It acts on each coordinate and never stretches: | |s| − |t| | ≤ |s − t|. So
its constant is 1 in every norm. That sentence is the proof; the rule states it.
"""

from functools import partial

import torch
from torch import nn

import tightlip


class Fold(nn.Module):
    """x ↦ |x − b|: folds space along hyperplanes that are learned."""

    def __init__(self, features):
        super().__init__()
        self.crease = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        """(…, features) → the same."""
        return (x - self.crease).abs()


@tightlip.rule(Fold)
def _fold(module):
    return tightlip.Gains.constant(1.0, tightlip.Roundoff(2, output=1))


class Loud(Fold):
    """A subclass is another function: here, one that is ten times as steep."""

    def forward(self, x):
        """The same shape, another function."""
        return 10 * super().forward(x)


torch.manual_seed(0)
network = tightlip.freeze(tightlip.mlp([3, 32, 32, 2], activation=partial(Fold, 32)))
bound = tightlip.lipschitz(network, p=2)
for name, text, layer in bound.layers:
    print(f"{name:>2}  {layer.constant:<12.9g} {text}")

x = torch.randn(10_000, 3, dtype=torch.float64)
near = x + 1e-3 * torch.randn_like(x)
exact = network.double()
slope = float(((exact(near) - exact(x)).norm(dim=1) / (near - x).norm(dim=1)).max())
print(f"steepest slope found {slope:.6f}, audited {bound.constant:.6f}")

try:
    tightlip.lipschitz(Loud(32), p=2)
    refused = False
except tightlip.TightlipError as error:
    refused = True
    print(f"refused: {error}")
assert slope <= bound.constant and refused
