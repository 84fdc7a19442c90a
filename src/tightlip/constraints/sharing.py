"""The work of folding shared by ranks that train the same network: each folds some weights and hands them on.

    owner      every weight has one, by how much work it is: the next heaviest goes to the rank with the least so far
    fold       each rank folds the weights that it owns
    exchange   five numbers of every rank, then the bytes of what each has folded, from its owner to all others

Ranks take the same steps: the same weights before, the same gradients, the same optimizer. That is what
DistributedDataParallel and `fully_shard` see to. It is looked at when `hold` is called, and in every exchange by a
sample of the gradients, since whoever folds for others overwrites their weights. What an optimizer and a coordinate
remember is the same on every rank, so each rank's ``state_dict`` is complete, and a run may go on with another number
of ranks.

A fold that fails is told to all ranks, and all raise the same sentence. A rank that ends leaves the others waiting, as
in any collective, until the process group's timeout or whoever started them ends them.
"""

import math
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

ALIGNED = 16
"""Bytes at whose multiples each tensor begins in what is handed on."""

ALIKE = 1e-4
"""How far sums over the same gradients may differ between machines, in parts of the sum of their absolute values."""

Folds = Sequence[tuple[Coordinate, Move]]
"""Weights to be folded, each with who does it."""

Problem = tuple[list[int], str]
"""Which of the weights could not be folded, and why."""


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
    [1, 0, 1, 1]
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
        owned = owners([coordinate.work(move) for coordinate, move in folds], dist.get_world_size(group))
        problems = _shared_(
            folds, [place for place, rank in enumerate(owned) if rank == dist.get_rank(group)], group, device
        )
    return [TightlipError(reason) for _, reason in problems]


def _shared_(folds: Folds, own: list[int], group: "dist.ProcessGroup", device: torch.device) -> list[Problem]:
    """Fold what is owned here, hand it on, and take over the rest; the problems of all ranks, on each the same."""
    unforeseen = None
    try:
        problems = _fold_(folds, own)
    except Exception as error:  # noqa: BLE001  whatever it is, the others must not wait for what does not come
        unforeseen, problems = error, [(own, f"another rank failed as it folded: {type(error).__name__}: {error}")]
    failed = {place for places, _ in problems for place in places}
    notes, content = _packed(folds, [place for place in own if place not in failed], problems, device)
    sizes = _agreed([move for _, move in folds], len(notes), len(content), group, device)
    parcels = _exchanged(content, [size for _, size in sizes], group)
    if unforeseen is not None:
        raise unforeseen
    found = []
    for rank, (parcel, (length, _)) in enumerate(zip(parcels, sizes, strict=True)):
        found += problems if rank == dist.get_rank(group) else _adopt_(folds, parcel, length)
    return found


def _exchanged(content: Tensor, sizes: Sequence[int], group: "dist.ProcessGroup") -> list[Tensor]:
    """What every rank hands on, as bytes."""
    own = dist.get_rank(group)
    parcels = [content if rank == own else content.new_empty(size) for rank, size in enumerate(sizes)]
    sent = [dist.broadcast(parcel, group=group, group_src=rank, async_op=True) for rank, parcel in enumerate(parcels)]
    for each in sent:
        each.wait()  # type: ignore[union-attr]
    return parcels


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


def _agreed(
    moves: Sequence[Move], length: int, size: int, group: "dist.ProcessGroup", device: torch.device
) -> list[tuple[int, int]]:
    """How many bytes of notes, and in all, each rank is going to send; raises on all ranks where they disagree."""
    named = zlib.crc32(repr([(move.name, tuple(move.weight.shape)) for move in moves]).encode())
    sample = torch.cat([torch.zeros(1, device=device), *(sampled(move.gradient).to(device) for move in moves)]).double()
    own = torch.tensor([named, length, size, 0, 0], dtype=torch.float64, device=device)
    own[3], own[4] = sample.sum(), sample.abs().sum()
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    names, lengths, sizes, sums, scales = torch.stack(found, 1).tolist()
    if len(set(names)) > 1 or not max(sums) - min(sums) <= ALIKE * max(scales):
        different = "step different weights" if len(set(names)) > 1 else "have different gradients of the same weights"
        raise TightlipError(
            f"the ranks of the group {different}, so none can work for another: wrap the network in "
            "DistributedDataParallel, or leave out group when you hold it"
        )
    return [(int(length), int(size)) for length, size in zip(lengths, sizes, strict=True)]


def _packed(folds: Folds, places: Sequence[int], problems: list[Problem], device: torch.device) -> tuple[bytes, Tensor]:
    """What was folded here: notes in few words, and the notes and all tensors as bytes."""
    numbers, layout, tensors = [], [], []
    for place in places:
        coordinate, move = folds[place]
        outcome = {"": move.weight.data, **coordinate.outcome(move)}
        numbers.append((place, {key: value for key, value in outcome.items() if not isinstance(value, Tensor)}))
        for key, value in outcome.items():
            if isinstance(value, Tensor):
                layout.append((place, key, tuple(value.shape), value.dtype))
                tensors.append(value)
    notes = pickle.dumps((numbers, layout, problems))
    notes += b" " * (-len(notes) % ALIGNED)
    words = torch.frombuffer(bytearray(notes), dtype=torch.uint8).to(device)
    return notes, torch.cat([words, *(part for each in tensors for part in _bytes(each.to(device)))])


def _bytes(value: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor's bytes, and as many zeros as bring them to a multiple of `ALIGNED`."""
    content = value.contiguous().flatten().view(torch.uint8)
    return content, content.new_zeros(-len(content) % ALIGNED)


@torch.no_grad()
def _adopt_(folds: Folds, parcel: Tensor, length: int) -> list[Problem]:
    """Take over what another rank has folded; its problems."""
    numbers, layout, problems = pickle.loads(parcel[:length].cpu().numpy().tobytes())
    for place, found in numbers:
        folds[place][1].memory.update(found)
    begin = length
    for place, key, shape, kind in layout:
        move, size = folds[place][1], math.prod(shape) * kind.itemsize
        value = parcel[begin : begin + size].view(kind).view(shape)
        begin += size + -size % ALIGNED
        known = move.memory.get(key) if key else move.weight
        if isinstance(known, Tensor) and (known.shape, known.dtype) == (value.shape, kind):
            known.copy_(value)
        else:
            move.memory[key] = value.to(move.weight.device, copy=True)
    _forget_failed_(folds, problems)
    return problems  # type: ignore[no-any-return]
