"""What comes out of a file is what went in: the same weights, the same audit, the same radii, bit for bit.

Two files for two purposes. A *checkpoint* is torch's own state_dict, to go on training. A *model* is one safetensors
file with a description of the architecture, to audit, certify and serve; it holds no code and no pickle.
"""

import tempfile
from pathlib import Path

import torch

import tightlip

folder = Path(tempfile.mkdtemp())  # yours would be a folder that stays

torch.manual_seed(0)
network = torch.nn.Sequential(tightlip.Normalize(0.5, 0.25), tightlip.mlp([8, 32, 32, 3], K=2.0))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=1e-2))
x = torch.rand(200, 8)
y = (4 * x[:, 0]).long().clamp(max=2)
for _ in range(30):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()

# A checkpoint: the keys are those of plain torch layers.
torch.save(network.state_dict(), folder / "checkpoint.pt")
again = torch.nn.Sequential(tightlip.Normalize(0.5, 0.25), tightlip.mlp([8, 32, 32, 3], K=2.0))
again.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True))
print(sorted(network.state_dict())[:4], "…")

# A model: frozen, self-describing.
frozen = tightlip.freeze(again)
tightlip.save(frozen, folder / "model.safetensors")
loaded = tightlip.load(folder / "model.safetensors")
print(loaded)

before, after = tightlip.certify(frozen, x, y), tightlip.certify(loaded, x, y)
print(f"audited constant {after.bound.constant} in raw input units, certified at 0.01: {after.accuracy(0.01):.1%}")
assert before.bound == after.bound and torch.equal(before.radius, after.radius)
