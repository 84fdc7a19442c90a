"""Accelerate: hold the optimizer first, prepare it after; gradient accumulation and clipping are Accelerate's own."""

import importlib.util

if importlib.util.find_spec("accelerate") is None:
    print("skipped: this example needs Accelerate, which pip install accelerate brings")
    raise SystemExit

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import tightlip

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
x = torch.randn(1024, 8)
y = x.norm(dim=1, keepdim=True)  # a 1-Lipschitz function to learn

network = tightlip.mlp([8, 64, 64, 1])
optimizer = tightlip.hold(network, torch.optim.AdamW(network.parameters(), lr=5e-3))
loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
network, optimizer, loader = accelerator.prepare(network, optimizer, loader)

for epoch in range(12):
    for inputs, targets in loader:
        with accelerator.accumulate(network):
            loss = torch.nn.functional.mse_loss(network(inputs), targets)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    if epoch % 4 == 3:
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")

frozen = tightlip.freeze(accelerator.unwrap_model(network))
error = float((frozen(x) - y).square().mean())
print(f"mean squared error {error:.4f}, audited {tightlip.lipschitz(frozen, p=2).constant:.9f}")
assert tightlip.lipschitz(frozen, p=2).constant <= 1 and error < 0.1
