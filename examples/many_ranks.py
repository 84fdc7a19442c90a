"""One network on many ranks, which share the work of the constraint.

Started by `torchrun --nproc-per-node 2 many_ranks.py`, or alone. After a kill -9 of any rank it goes on from the last
checkpoint in the folder `run`.
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

import tightlip

if "RANK" not in os.environ:  # not under torchrun: a group of one
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
dist.init_process_group("gloo" if not torch.cuda.is_available() else None)
rank, folder = dist.get_rank(), Path("run")

torch.manual_seed(0)
network = DistributedDataParallel(tightlip.mlp([8, 64, 64, 1]))
adam = torch.optim.Adam(network.parameters(), lr=5e-3)
optimizer = tightlip.hold(network, adam, group=dist.group.WORLD)

network(torch.zeros(1, 8)).sum().backward()  # DDP sums in another order after its first pass: now all steps have one
optimizer.zero_grad()


def state(steps: int) -> dict:
    """What a checkpoint holds."""
    model, moments = get_state_dict(network, optimizer)
    return {"model": model, "optimizer": moments, "steps": steps}


done = max((int(file.parent.name) for file in folder.glob("*/.metadata")), default=0)  # written last
if done:
    saved = state(done)
    dcp.load(saved, checkpoint_id=folder / str(done))
    set_state_dict(network, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])

for step in range(done, 200):
    source = torch.Generator().manual_seed(dist.get_world_size() * step + rank)  # the batch of this step and rank
    x = torch.randn(64, 8, generator=source)
    loss = (network(x) - x.norm(dim=1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 49:
        dcp.save(state(step + 1), checkpoint_id=folder / str(step + 1))

if rank == 0:
    frozen = tightlip.freeze(network.module)
    constant = tightlip.lipschitz(frozen, p=2).constant
    print(f"{dist.get_world_size()} rank(s), last loss {loss.item():.4f}, K ≤ {constant:.6f}")
    assert constant <= 1
dist.destroy_process_group()
