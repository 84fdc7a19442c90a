"""Four ranks train, one is killed, and others go on from the last distributed checkpoint; `ranks` calls it.

One network is wrapped in DistributedDataParallel and one is sharded, both on different batches from rank to rank, and
the work of folding is shared. FOLDER/killed.json says what became of a run that was not interrupted and of one that
was: losses of every step and all final weights.
"""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conventions.cells import adam, inputs, loss
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import ProcessExitedException, start_processes
from torch.nn.parallel import DistributedDataParallel

from tightlip import Orthonormal, constrain, hold

RANKS, STEPS, KILLED = 4, 6, 3
"""How many ranks, how many steps, and in which of them a rank is killed; every second one is saved."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [constrain(nn.Linear(32, 32), Orthonormal(blocks=4 if number < 3 else 0)) for number in range(4)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(32, 3))


def train(rank: int, folder: Path, meeting: str, killed: int | None) -> None:
    """All steps that are not there yet, as far as a killed rank lets them; the record goes into the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{meeting}", rank=rank, world_size=RANKS)
    whole, parts = DistributedDataParallel(network()), fully_shard(network())
    networks = {"whole": whole, "parts": parts}
    optimizers = {name: hold(n, adam(n.parameters()), group=dist.group.WORLD) for name, n in networks.items()}
    loss(whole, inputs(whole)).backward()  # after its first pass DistributedDataParallel sums in another order
    optimizers["whole"].zero_grad()
    losses, first = resume(folder, networks, optimizers)
    for step in range(first, STEPS):
        for name, each in networks.items():
            optimizers[name].zero_grad()
            loss_here = loss(each, inputs(each, RANKS * step + rank))
            loss_here.backward()
            if step == killed and name == "parts" and rank == RANKS - 1:
                os.kill(os.getpid(), signal.SIGKILL)  # the others wait for what it folds
            optimizers[name].step()
            losses = torch.cat([losses, loss_here.detach()[None]])
        if step % 2:
            save(folder / f"step-{step + 1}", networks, optimizers, losses)
    weights = {name: {key: whole_of(v) for key, v in each.state_dict().items()} for name, each in networks.items()}
    if rank == 0:
        (folder / "record.json").write_text(json.dumps([losses.tolist(), weights]))
    dist.barrier()
    os._exit(0)


def whole_of(value: torch.Tensor) -> list:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).tolist()


def state(networks: dict, optimizers: dict, losses: torch.Tensor) -> dict:
    """What a checkpoint holds; losses are each rank's own."""
    states = {
        name: dict(zip("no", get_state_dict(each, optimizers[name]), strict=True)) for name, each in networks.items()
    }
    return states | {f"losses of rank {dist.get_rank()}": losses}


def save(folder: Path, *parts: object) -> None:
    dcp.save(state(*parts), checkpoint_id=folder)  # its file .metadata is written last


def resume(folder: Path, networks: dict, optimizers: dict) -> tuple[torch.Tensor, int]:
    """Take over the last whole checkpoint, if there is one; the losses until then, and the step that comes next."""
    last = max((int(path.parent.name.removeprefix("step-")) for path in folder.glob("step-*/.metadata")), default=0)
    losses = torch.zeros(2 * last)
    if last:
        found = state(networks, optimizers, losses)
        dcp.load(found, checkpoint_id=folder / f"step-{last}")
        for name, each in networks.items():
            given = {"model_state_dict": found[name]["n"], "optim_state_dict": found[name]["o"]}
            set_state_dict(each, optimizers[name], **given)
    return losses, last


def run(folder: Path) -> None:
    """A run that is left alone, and one in which a rank is killed and all are started again."""
    records = []
    for name, deaths in (("alone", [None]), ("killed", [KILLED, None])):
        own = folder / name
        own.mkdir()
        for attempt, killed in enumerate(deaths):
            with suppress(ProcessExitedException):
                start_processes(train, (own, f"meeting-{attempt}", killed), nprocs=RANKS, start_method="fork")
            assert (own / "record.json").exists() == (killed is None)
        assert (own / f"step-{KILLED // 2 * 2}" / ".metadata").exists()
        records.append(json.loads((own / "record.json").read_text()))
    (folder / "killed.json").write_text(json.dumps(records))
