"""Sharded weights, each rank with a part of them, as whole ones while an optimizer's step is taken.

Under `torch.distributed.fsdp.fully_shard` a weight is a DTensor. Half of a matrix is on no set, and half of it cannot
be turned. So inside a step a plain parameter stands in for it, whole on every rank, with the whole gradient and with
the weight's place in the optimizer; after the step each rank keeps its part. What the optimizer knows of the weight
lies, whole too, in ``optimizer.state[weight]``, as of any weight.

It costs an all-gather of the weight and one of its gradient for each step. The stand-ins are in groups of their own,
since foreach and fused optimizers take no list in which sharded tensors and plain ones are mixed.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def is_sharded(weight: Any) -> bool:
    """Whether this is a DTensor, of which other ranks may hold other parts."""
    return hasattr(weight, "full_tensor")


def whole(weight: Tensor) -> Tensor:
    """All of a weight; of a sharded one a copy, which every rank of its mesh must ask for."""
    return weight.detach().full_tensor() if is_sharded(weight) else weight  # type: ignore[attr-defined]


@torch.no_grad()
def write_whole_(weight: Tensor, value: Tensor) -> None:
    """Keep this rank's part of a ``value`` that all ranks have."""
    if not is_sharded(weight):
        weight.copy_(value)
        return
    from torch.distributed.tensor import distribute_tensor  # there already, where there are sharded weights

    mesh, placements = weight.device_mesh, weight.placements  # type: ignore[attr-defined]
    weight.copy_(distribute_tensor(value, mesh, placements, src_data_rank=None))


class Gathered:
    """The stand-ins of one optimizer's sharded weights; each is the same parameter in every step."""

    def __init__(self) -> None:
        self.known: dict[nn.Parameter, nn.Parameter] = {}  # sharded weights and their stand-ins
        self.opened: dict[nn.Parameter, nn.Parameter] = {}  # those of this step
        self.groups: list[tuple[dict[str, Any], list[nn.Parameter]]] = []  # with the parameters that they shall list

    def open(self, optimizer: Optimizer, weights: Iterable[nn.Parameter]) -> None:
        """Let stand-ins take the places of those weights that are sharded."""
        for weight in filter(is_sharded, weights):
            value, gradient = whole(weight), whole(weight.grad)  # type: ignore[arg-type]
            stand_in = self.known.setdefault(weight, nn.Parameter(value.new_empty(0)))
            stand_in.requires_grad_(weight.requires_grad)
            stand_in.data, stand_in.grad = value, gradient
            _rename(optimizer, weight, stand_in)
            self.opened[weight] = stand_in
        for group in list(optimizer.param_groups) if self.opened else []:
            listed = group["params"]
            ours = [self.opened[p] for p in listed if p in self.opened]
            if ours:
                self.groups.append((group, listed))
                group["params"] = [p for p in listed if p not in self.opened]
                optimizer.param_groups.append({**group, "params": ours})

    def of(self, weight: nn.Parameter) -> nn.Parameter | None:
        """What a step moves: the weight itself, or its stand-in; None where it is sharded and none stands in for it."""
        return self.opened.get(weight) if is_sharded(weight) else weight

    def lent(self, weight: nn.Parameter) -> bool:
        """Whether this stands in for a sharded weight."""
        return any(stand_in is weight for stand_in in self.opened.values())

    def close(self, optimizer: Optimizer) -> None:
        """Give the weights their places back, and this rank's parts of what their stand-ins hold; talks to no rank."""
        if not self.opened:
            return
        if self.groups:
            del optimizer.param_groups[-len(self.groups) :]
        for group, listed in self.groups:
            group["params"] = listed
        for weight, stand_in in self.opened.items():
            _rename(optimizer, stand_in, weight)
            write_whole_(weight, stand_in.data)
            stand_in.data, stand_in.grad = stand_in.data.new_empty(0), None
        self.opened, self.groups = {}, []


def _rename(optimizer: Optimizer, before: nn.Parameter, after: nn.Parameter) -> None:
    if before in optimizer.state:
        optimizer.state[after] = optimizer.state.pop(before)
