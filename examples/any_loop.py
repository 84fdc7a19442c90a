"""Any loop will do: accumulation, several forwards per step, clipping and mixed precision, one call to `hold`.

The weights are on their set after every single step, not only at the end.
"""

import torch

import tightlip

torch.manual_seed(0)
x = torch.randn(256, 8)
y = x.norm(dim=1, keepdim=True)  # a 1-Lipschitz function to learn

network = tightlip.mlp([8, 64, 64, 1])
optimizer = tightlip.hold(network, torch.optim.AdamW(network.parameters(), lr=5e-3))
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)
identity = torch.eye(64)
worst = 0.0

for _ in range(150):
    optimizer.zero_grad()
    for part, target in zip(x.split(64), y.split(64), strict=True):  # four backward passes make one step
        with torch.autocast("cpu", dtype=torch.bfloat16):  # products in bfloat16; the constraint stays in float32
            here, mirrored = network(part), network(-part)  # two forwards in one graph
        fit = (here - target).square().mean()
        symmetry = (here - mirrored).square().mean()
        ((fit + 0.1 * symmetry) / 4).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    weight = network[2].weight.detach()
    worst = max(worst, float((weight.T @ weight - identity).norm()))

frozen = tightlip.freeze(network)
print(f"mean squared error {float((frozen(x) - y).square().mean()):.4f}")
print(f"largest ‖WᵀW − I‖ of the 64×64 layer after any step: {worst:.1e}")
assert worst < 1e-4
assert tightlip.lipschitz(frozen, p=2).constant <= 1
