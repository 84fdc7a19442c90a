"""A learned controller whose closed loop is proven to be stable: any two trajectories approach each other.

The plant is x ↦ A·x + B·u. In coordinates z in which the linear controller u = −L·x makes it contract, a network adds
f(z) to u. If the whole loop has a constant below 1, it has one resting point and all trajectories go there, whatever f
has learned (Banach). The loop is one module, so its constant is one audit, of the model as it is stored.
"""

import torch
from torch import nn

import tightlip

torch.manual_seed(0)
A = torch.tensor([[1.0, 0.1], [0.05, 1.0]])  # a mass on a slope, pushed ten times a second: unstable by itself
B, L = torch.tensor([[0.0], [0.1]]), torch.tensor([[4.0, 4.0]])
rho = 0.95  # √xᵀPx, P = Σ (Mᵗ)ᵀMᵗ/rho²ᵗ, is a norm in which M = A − B·L has at most rho (Stein)
M, P, power = (A - B @ L).double(), torch.zeros(2, 2).double(), torch.eye(2).double()
for _ in range(2000):
    P, power = P + power.T @ power, (M / rho) @ power
root, inverse = torch.linalg.cholesky(P).T, torch.linalg.cholesky(P).T.inverse()  # z = root·x


class Loop(nn.Module):
    """One step of the closed loop, in the coordinates z."""

    def __init__(self, K):
        super().__init__()
        self.plant, self.push = nn.Linear(2, 2, bias=False), nn.Linear(1, 2, bias=False)
        self.plant.weight.data, self.push.weight.data = (root @ M @ inverse).float(), (root @ B.double()).float()
        self.plant.requires_grad_(False), self.push.requires_grad_(False)
        self.f = tightlip.mlp([2, 32, 32, 1], K=K)

    def forward(self, z):
        """States (batch, 2) → the next ones."""
        return self.plant(z) + self.push(self.f(z))


def cost(step):
    """Of getting home from 256 places: position, and a wall at −0.05 that must not be touched."""
    z, total = torch.rand(256, 2, generator=torch.Generator().manual_seed(1)) * root.float().diag().max(), 0.0
    for _ in range(60):
        z = step(z)
        position = (z @ inverse.float().T)[:, 0]
        total = total + (position.square() + 100 * (-0.05 - position).clamp(min=0).square()).mean()
    return total


reach = 0.98 - float(torch.linalg.matrix_norm(root @ M @ inverse, 2))  # what the network may add
loop = Loop(K=reach / float(torch.linalg.vector_norm(root @ B.double())))
print(f"cost of the linear controller alone: {float(cost(loop.plant)):.3f}")
optimizer = tightlip.hold(loop, torch.optim.Adam((p for p in loop.parameters() if p.requires_grad), lr=1e-2))
for _ in range(40):
    optimizer.zero_grad()
    cost(loop).backward()
    optimizer.step()

frozen = tightlip.freeze(loop.eval())
gain = tightlip.lipschitz(frozen, p=2, q=2).constant
print(f"with the network: {float(cost(frozen)):.3f}; gain of the closed loop ≤ {gain:.6f}")
assert gain < 1 and cost(frozen) < cost(loop.plant)
