"""The work of folding shared by ranks that train the same network: each folds some weights and hands them on.

    owner      every weight has one, by how much work it is: the next heaviest goes to the rank with the least so far
    fold       each rank folds the weights that it owns
    exchange   four numbers of every rank, then what is small, pickled, then the tensors, from each owner to all others

Ranks take the same steps: the same weights before, the same gradients, the same optimizer. That is what
DistributedDataParallel and `fully_shard` see to. It is looked at when `hold` is called, and in every exchange by a
sample of the gradients, since whoever folds for others overwrites their weights. What an optimizer and a coordinate
remember is the same on every rank, so each rank's ``state_dict`` is complete, and a run may go on with another number
of ranks.

A fold that fails is told to all ranks, and all raise the same sentence. A rank that ends leaves the others waiting, as
in any collective, until the process group's timeout or whoever started them ends them.
"""

import pickle
import zlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..errors import TightlipError
from .coordinate import Coordinate, Move
from .fingerprint import fingerprint, sampled
from .gathered import whole
from .holdable import held_layers

LARGE = 4096
"""Bytes from which a tensor is handed on as it lies in memory; smaller ones go along with plain values."""

ALIKE = 1e-4
"""How far sums over the same gradients may differ between machines, in parts of the sum of their absolute values."""

Folds = Sequence[tuple[Coordinate, Move]]
"""Weights to be folded, each with who does it."""

Problem = tuple[list[int], str]
"""Which of the weights could not be folded, and why."""

Entry = tuple[int, str]
"""One weight's memory by its name, or the weight itself by none."""


def shared_by(group: Any) -> "dist.ProcessGroup | None":
    """The group, if its ranks have work to share.

    Raises:
        TightlipError: for anything else than a process group of this rank, or None.
    """
    if group is None:
        return None
    if not dist.is_available() or not isinstance(group, dist.ProcessGroup) or dist.get_rank(group) < 0:
        raise TightlipError(
            "group must be a process group of torch.distributed that this rank is in, such as "
            f"torch.distributed.group.WORLD, or None, got {group!r}"
        )
    return group if dist.get_world_size(group) > 1 else None


def refuse_other_networks(network: nn.Module, group: "dist.ProcessGroup") -> None:
    """Raise on every rank where one holds other weights than another; all of them ask.

    Raises:
        TightlipError: naming the first such weight.
    """
    own = [
        (name, tuple(layer.weight.shape), repr(record.constraint), fingerprint(whole(layer.weight)))  # type: ignore[arg-type]
        for name, layer, record in held_layers(network)
    ]
    ranks: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(ranks, own, group=group)
    for place, (first, *others) in enumerate(zip(*ranks, strict=False)):
        if any(other != first for other in others):
            raise TightlipError(
                f"the ranks of the group have different weights in {ranks[0][place][0]}, so none can work for another: "
                "wrap the network in DistributedDataParallel before it is held, which makes them equal, or leave out "
                "group"
            )
    if len({len(each) for each in ranks}) > 1:
        raise TightlipError(
            "the ranks of the group hold different numbers of weights, so none can work for another: leave out group"
        )


def owners(works: Sequence[float], ranks: int) -> list[int]:
    """Which rank folds each weight, so that the busiest has not much more to do than the others.

    >>> owners([1.0, 4.0, 2.0, 2.0], 2)
    [0, 0, 1, 1]
    """
    loads, found = [0.0] * ranks, [0] * len(works)
    for place in sorted(range(len(works)), key=lambda place: (-works[place], place)):
        found[place] = loads.index(min(loads))
        loads[found[place]] += works[place]
    return found


def fold_all_(folds: Folds, group: "dist.ProcessGroup | None", device: torch.device) -> list[TightlipError]:
    """Fold every weight, here or on the rank of the group that owns it; what went wrong.

    Raises:
        TightlipError: on all ranks, where they took different steps.
    """
    if group is None:
        problems = _fold_(folds, range(len(folds)))
    else:
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        owned = owners([coordinate.work(move) for coordinate, move in folds], ranks)
        problems = _shared_(folds, [place for place, owner in enumerate(owned) if owner == rank], group, device)
    return [TightlipError(reason) for _, reason in problems]


def _shared_(folds: Folds, own: list[int], group: "dist.ProcessGroup", device: torch.device) -> list[Problem]:
    """Fold what is owned here, hand it on, and take over the rest; the problems of all ranks, on each the same."""
    unforeseen = None
    try:
        problems = _fold_(folds, own)
    except Exception as error:  # noqa: BLE001  whatever it is, the others must not wait for what does not come
        unforeseen, problems = error, [(own, f"another rank failed as it folded: {type(error).__name__}: {error}")]
    failed = {place for places, _ in problems for place in places}
    small, large = _outcomes(folds, [place for place in own if place not in failed])
    layout = [(entry, tuple(value.shape), value.dtype) for entry, value in large.items()]
    notes = pickle.dumps((small, layout, problems))
    longest = _agreed([move for _, move in folds], len(notes), group, device)
    told = _told(notes, longest, group, device)
    _exchange_(folds, large, [layout for _, layout, _ in told], group)
    if unforeseen is not None:
        raise unforeseen
    for small, _, _ in told:
        for place, key, value in small:
            _keep_(folds[place][1], key, value)
    found = [problem for _, _, problems in told for problem in problems]
    _forget_failed_(folds, found)
    return found


def _outcomes(folds: Folds, places: Iterable[int]) -> tuple[list[tuple[int, str, Any]], dict[Entry, Tensor]]:
    """What was folded here: plain values and small tensors, and large tensors."""
    small, large = [], {}
    for place in places:
        coordinate, move = folds[place]
        large[place, ""] = move.weight.detach()
        for key, value in coordinate.outcome(move).items():
            if isinstance(value, Tensor) and value.device == move.weight.device and value.nbytes >= LARGE:
                large[place, key] = value
            else:
                small.append((place, key, value.cpu().clone() if isinstance(value, Tensor) else value))
    return small, large


def _fold_(folds: Folds, places: Iterable[int]) -> list[Problem]:
    """Fold some of them, those of one kind together."""
    kinds: dict[Hashable, list[int]] = {}
    for place in places:
        coordinate, move = folds[place]
        kinds.setdefault((type(coordinate), coordinate.group(move)), []).append(place)
    problems = []
    for together in kinds.values():
        try:
            folds[together[0]][0].fold_([folds[place][1] for place in together])
        except TightlipError as problem:  # the others are folded all the same
            problems.append((together, str(problem)))
    _forget_failed_(folds, problems)
    return problems


def _forget_failed_(folds: Folds, problems: Iterable[Problem]) -> None:
    for places, _ in problems:
        for place in places:
            folds[place][0].after_failure_(folds[place][1])


def _agreed(moves: Sequence[Move], length: int, group: "dist.ProcessGroup", device: torch.device) -> int:
    """The length of the longest notes of a rank; raises on all ranks where they disagree."""
    named = zlib.crc32(repr([(move.name, tuple(move.weight.shape)) for move in moves]).encode())
    sample = torch.cat([torch.zeros(1, device=device), *(sampled(move.gradient).to(device) for move in moves)]).double()
    own = torch.tensor([named, length, 0, 0], dtype=torch.float64, device=device)
    own[2], own[3] = sample.sum(), sample.abs().sum()
    names, lengths, sums, scales = torch.stack(_gathered(own, group), 1).tolist()
    if len(set(names)) > 1 or not max(sums) - min(sums) <= ALIKE * max(scales):
        different = "step different weights" if len(set(names)) > 1 else "have different gradients of the same weights"
        raise TightlipError(
            f"the ranks of the group {different}, so none can work for another: wrap the network in "
            "DistributedDataParallel, or leave out group when you hold it"
        )
    return int(max(lengths))


def _told(notes: bytes, longest: int, group: "dist.ProcessGroup", device: torch.device) -> list[Any]:
    """The notes of all ranks."""
    own = torch.frombuffer(bytearray(notes.ljust(longest)), dtype=torch.uint8).to(device)
    return [pickle.loads(each.cpu().numpy().tobytes()) for each in _gathered(own, group)]


def _gathered(own: Tensor, group: "dist.ProcessGroup") -> list[Tensor]:
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    return found


@torch.no_grad()
def _exchange_(folds: Folds, own: dict[Entry, Tensor], layouts: Sequence[Any], group: "dist.ProcessGroup") -> None:
    """Every large tensor from its owner to all others, into the memory of the one that it takes the place of."""
    arriving = []
    for rank, layout in enumerate(layouts):
        for (place, key), shape, kind in layout:
            move, mine = folds[place][1], rank == dist.get_rank(group)
            value = own[place, key].contiguous() if mine else _room(move, key, shape, kind)
            sent = dist.broadcast(value, group=group, group_src=rank, async_op=True)
            arriving.append((sent, mine, move, key, value))
    for sent, mine, move, key, value in arriving:
        sent.wait()  # type: ignore[union-attr]
        if not mine:
            _keep_(move, key, value)


def _room(move: Move, key: str, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """Where a tensor may arrive: the one that it takes the place of, if it is like it."""
    known = move.memory.get(key) if key else move.weight.detach()
    if isinstance(known, Tensor) and (known.shape, known.dtype) == (shape, kind) and known.is_contiguous():
        return known
    return move.weight.new_empty(shape, dtype=kind)


def _keep_(move: Move, key: str, value: Any) -> None:
    """Take over what another rank has made of a weight, or of one entry of its memory."""
    if key:
        before = move.memory.get(key)
        device = before.device if isinstance(before, Tensor) else move.weight.device
        move.memory[key] = value.to(device) if isinstance(value, Tensor) else value
    elif value.data_ptr() != move.weight.data_ptr():
        move.weight.copy_(value)
    else:
        torch.autograd.graph.increment_version(move.weight)  # a collective does not count as a write
