"""What tells a run from others, in words that are the same in another process."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ..constraints import constraint_of
from ..errors import TightlipError
from .bytecode import is_installed
from .description import Describer, attributes, hooks


def identity(
    thing: Any,
    name: str,
    network: nn.Module | None = None,
    tag: str | None = None,
    moved: Iterable[torch.Generator] = (),
) -> str:
    """A description of ``thing``, hashed where it is long.

    Args:
        thing: Any value.
        name: What to call it in errors.
        network: The one that is trained, which may be referred to and whose weights do not count.
        tag: Stands for what has no description.
        moved: Generators of random numbers that are put back where they were by other means, known by their seeds.

    Raises:
        TightlipError: if there is no description and no tag.
    """
    try:
        words = "".join(Describer(name, network, tag, moved).words(thing))
    except RecursionError as problem:
        raise TightlipError(f"{name} is nested too deeply to be told from others: flatten it") from problem
    return words if len(words) < 200 else f"{words[:100]}… {hashlib.sha256(words.encode()).hexdigest()}"


def structure(network: nn.Module, tag: str | None = None) -> str:
    """Layers, options, shapes, constraints, hooks and what trains: everything of a network but its stored numbers."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    stored = network.state_dict()
    shapes = [(name, tuple(value.shape), value.dtype) for name, value in stored.items()]
    others = {name: value.detach() for name, value in network.named_buffers() if name not in stored}
    held = [repr(constraint_of(module)) for module in network.modules()]
    trains = [name for name, weight in network.named_parameters() if weight.requires_grad]
    options = [(type(module), attributes(module), hooks(module)) for module in network.modules()]
    return identity((text, shapes, others, held, trains, options), "the network", network, tag)


def recipe(optimizer: Optimizer, network: nn.Module, tag: str | None = None) -> str:
    """The class of an optimizer, its options and its weights' names, group by group, before a schedule changes them."""
    names = {id(weight): name for name, weight in network.named_parameters()}
    groups = [
        group | {"params": [names.get(id(weight), tuple(weight.shape)) for weight in group["params"]]}
        for group in optimizer.param_groups
    ]
    every = {*vars(Optimizer([torch.zeros(1)], {})), "step"}  # which may have been wrapped
    own = {name: value for name, value in vars(optimizer).items() if name not in every}
    if is_installed(type(optimizer)):
        own = {name: value for name, value in own.items() if not name.startswith("_")}
    return identity((type(optimizer), groups, own), "its optimizer", network, tag)


def batching(loader: "DataLoader[Any]") -> tuple[Any, ...]:
    """What a loader draws from, in which order, and how it makes batches of it."""
    batches = loader.sampler, loader.batch_sampler, loader.batch_size, loader.drop_last
    return type(loader), loader.dataset, *batches, loader.collate_fn, loader.worker_init_fn, loader.generator
