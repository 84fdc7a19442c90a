"""Ranks over gloo, run as a script by test_processes.py: ``python ranks.py FOLDER``.

Each `scenario` is a function of a cell and of a network that was made before the process group was; two ranks try it in
every cell, what is in `single_ranks` once, and what came of it goes into FOLDER/rank-N.json. Then four ranks are killed
and resumed (`killed_ranks`), and what came of that goes into FOLDER/killed.json.
"""

import copy
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel asks for it, which takes a second: here once, and not in every rank
import torch.distributed as dist
from conventions import killed_ranks, single_ranks
from conventions.cells import Cell, adam, cells, inputs, loss, momentum
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tightlip import TightlipError, freeze, hold
from tightlip.constraints.constraining import weight_constraint

SCENARIOS: dict[str, Callable] = {}


def scenario(function: Callable) -> Callable:
    """Adds a function to the scenarios that are tried."""
    SCENARIOS[function.__name__] = function
    return function


def descend(network: nn.Module, parallel: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Steps on a batch of its own for every rank, through ``parallel``."""
    for number in range(steps):
        optimizer.zero_grad()
        loss(parallel, inputs(network, 2 * number + dist.get_rank())).backward()
        optimizer.step()


def agree(cell: Cell, network: nn.Module, before: torch.Tensor) -> None:
    """Both ranks hold the same bits, on the set, and not where they began."""
    for p in network.parameters():
        copies = [torch.empty_like(p) for _ in range(2)]
        dist.all_gather(copies, p.detach())
        assert torch.equal(*copies), "the ranks differ"
    cell.assert_member(network)
    assert not torch.equal(before, cell.leaf(network[0])), "nothing moved"


def parallel(cell: Cell, network: nn.Module, make: Callable = adam, **options) -> None:
    """DistributedDataParallel around ``network``, for a tournament and a bit."""
    wrapped, before = DistributedDataParallel(network, **options), cell.leaf(network[0]).detach().clone()
    optimizer = hold(network, make(network.parameters()))
    descend(network, wrapped, optimizer, min(cell.rounds, 8) + 2)
    agree(cell, network, before)


@scenario
def constrained_first(cell: Cell, early: nn.Module) -> None:
    parallel(cell, early)


@scenario
def constrained_after(cell: Cell, early: nn.Module) -> None:
    parallel(cell, cell.network(dist.get_rank()))


@scenario
def with_momentum(cell: Cell, early: nn.Module) -> None:
    parallel(cell, early, momentum)


@scenario
def bucket_views(cell: Cell, early: nn.Module) -> None:
    parallel(cell, early, gradient_as_bucket_view=True)


@scenario
def static_graph(cell: Cell, early: nn.Module) -> None:
    parallel(cell, early, static_graph=True)


@scenario
def held_before_it_is_wrapped(cell: Cell, early: nn.Module) -> None:
    before = cell.leaf(early[0]).detach().clone()
    optimizer = hold(early, adam(early.parameters()))
    descend(early, DistributedDataParallel(early), optimizer, 3)
    agree(cell, early, before)


@scenario
def held_through_the_wrapper(cell: Cell, early: nn.Module) -> None:
    before = cell.leaf(early[0]).detach().clone()
    wrapped = DistributedDataParallel(early)
    descend(early, wrapped, hold(wrapped, adam(wrapped.parameters())), 3)
    agree(cell, early, before)


@scenario
def frozen_weight(cell: Cell, early: nn.Module) -> None:
    cell.leaf(early[2]).requires_grad_(False)
    before = cell.leaf(early[0]).detach().clone()
    wrapped = DistributedDataParallel(early)
    still = cell.leaf(early[2]).detach().clone()
    descend(early, wrapped, hold(early, adam(early.parameters())), 3)
    agree(cell, early, before)
    assert torch.equal(cell.leaf(early[2]), still), "a frozen weight moved"


class Skipping(nn.Module):
    """Leaves the second layer out every other time."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.network(x) if self.count % 2 else self.network[3:](self.network[0](x))


@scenario
def unused_parameters(cell: Cell, early: nn.Module) -> None:
    before = cell.leaf(early[0]).detach().clone()
    wrapped = DistributedDataParallel(Skipping(early), find_unused_parameters=True)
    descend(early, wrapped, hold(early, adam(early.parameters())), 4)
    agree(cell, early, before)


@scenario
def accumulation_without_synchronizing(cell: Cell, early: nn.Module) -> None:
    before, wrapped = cell.leaf(early[0]).detach().clone(), DistributedDataParallel(early)
    optimizer = hold(early, adam(early.parameters()))
    for number in range(3):
        optimizer.zero_grad()
        with wrapped.no_sync():
            loss(wrapped, inputs(early, 10 * number + dist.get_rank())).backward()
        loss(wrapped, inputs(early, 10 * number + 5 + dist.get_rank())).backward()
        optimizer.step()
    agree(cell, early, before)


@scenario
def shared(cell: Cell, early: nn.Module) -> None:
    """Each rank folds a part of the weights, and what comes of it is what comes of folding them all."""
    for p in early.parameters():
        dist.broadcast(p.data, 0)
    alone = copy.deepcopy(early)
    for network, group in ((early, dist.group.WORLD), (alone, None)):
        wrapped, before = DistributedDataParallel(network), cell.leaf(network[0]).detach().clone()
        optimizer = hold(wrapped, adam(network.parameters()), group=group)
        descend(network, wrapped, optimizer, min(cell.rounds, 8) + 2)
        agree(cell, network, before)
    for shared, own in zip(early.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(shared, own, atol=1e-5, rtol=0)


@scenario
def sharded_optimizer(cell: Cell, early: nn.Module) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # importing it warns

    before, wrapped = cell.leaf(early[0]).detach().clone(), DistributedDataParallel(early)
    optimizer = hold(early, ZeroRedundancyOptimizer(early.parameters(), torch.optim.Adam, lr=3e-3))
    descend(early, wrapped, optimizer, 3)
    agree(cell, early, before)


@scenario
def fully_sharded(cell: Cell, early: nn.Module) -> None:
    shard(cell, early, None)


@scenario
def fully_sharded_and_shared(cell: Cell, early: nn.Module) -> None:
    shard(cell, early, dist.group.WORLD)


def shard(cell: Cell, network: nn.Module, group: dist.ProcessGroup | None) -> None:
    """What DistributedDataParallel would have made of it, in a layer that is sharded by itself and in the others."""
    for p in network.parameters():
        dist.broadcast(p.data, 0)
    members, whole = weight_constraint(network[0]), copy.deepcopy(network)
    fully_shard(network[0])
    fully_shard(network)
    seen: list[torch.Tensor] = []
    network[0].register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.detach().clone()))
    steps = min(cell.rounds, 8) + 2
    descend(network, network, hold(network, adam(network.parameters()), group=group), steps)
    assert all(members.contains(weight) for weight in seen), "off the set"
    assert not torch.equal(seen[0], seen[-1]), "nothing moved"
    other = cell.network(dist.get_rank())
    other.load_state_dict({name: gathered(value) for name, value in network.state_dict().items()})
    torch.testing.assert_close(other(inputs(other)), network(inputs(network)))
    descend(whole, DistributedDataParallel(whole), hold(whole, adam(whole.parameters())), steps)
    for one, two in zip(other.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


@scenario
def read_while_sharded(cell: Cell, early: nn.Module) -> None:
    """``layer.weight`` outside of a forward pass, where each rank has a part of what it is made of."""
    for p in early.parameters():
        dist.broadcast(p.data, 0)
    if cell.way == "forward":
        cell.leaf(early[0]).data.mul_(3)  # what the weight is made of is no member
    expected = early[0].weight.detach().clone()
    fully_shard(early)
    torch.testing.assert_close(gathered(early[0].weight), expected, atol=1e-5, rtol=0)


@scenario
def frozen_while_sharded(cell: Cell, early: nn.Module) -> None:
    for p in early.parameters():
        dist.broadcast(p.data, 0)
    expected = freeze(early).state_dict()
    fully_shard(early)
    for name, value in freeze(early).state_dict().items():
        torch.testing.assert_close(gathered(value), expected[name], atol=1e-5, rtol=0)


def gathered(value: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor of which each rank has a part."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def outcome(function: Callable, *arguments: object) -> str:
    """ "works", what the function has found, "refused: …", or the traceback of what failed."""
    try:
        found = function(*arguments)
    except TightlipError as error:
        return f"refused: {error}"
    except Exception:  # noqa: BLE001 - it goes into the report
        return traceback.format_exc(limit=-3)
    return found or "works"


def run(rank: int, folder: Path) -> None:
    """Everything that one rank does."""
    torch.set_num_threads(1)
    names = {(name, cell): cell.network(rank) for name in SCENARIOS for cell in cells(few=True)}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {f"{name} {cell}": outcome(SCENARIOS[name], cell, network) for (name, cell), network in names.items()}
    found |= {name: outcome(function) for name, function in single_ranks.SCENARIOS.items()}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)  # at an orderly exit gloo now and then ends a thread of its own that still runs, and aborts


if __name__ == "__main__":
    torch.multiprocessing.start_processes(run, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
    killed_ranks.run(Path(sys.argv[1]))
