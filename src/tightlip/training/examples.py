"""Where examples come from: whatever holds inputs and targets becomes batches of one dtype on one device.

`Tensors` are held in memory, checked whole before training, and shuffled here. A `Stream` is drawn through a
``DataLoader`` and checked batch by batch. Neither changes what the caller has given.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from ..data import Dataset, Part, Splits
from ..errors import TightlipError
from ..tensors import as_tensor, refuse_non_finite
from .identity import batching

Batch = tuple[Tensor, Tensor]

BATCH_SIZE = 128
"""Where none is given."""


@dataclass(frozen=True)
class Entry:
    """How examples enter a network: floating-point numbers in its dtype, class labels as int64, all on its device."""

    device: torch.device
    dtype: torch.dtype

    def __call__(self, pair: Any, name: str) -> Batch:
        """Inputs and targets of a pair of tensors or arrays.

        Raises:
            TightlipError: if it is not a pair, not equally many or none, or something is NaN or infinite.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            kind = f"a {type(pair).__name__}" + (f" of {len(pair)}" if isinstance(pair, tuple | list) else "")
            raise TightlipError(
                f"the {name} part is {kind}: give (inputs, targets) as tensors or numpy arrays, a Part, a Dataset of "
                "torch or a DataLoader"
            )
        x, y = (as_tensor(t, f"the {name} {word}") for t, word in zip(pair, ("inputs", "targets"), strict=True))
        if x.dim() == 0 or y.dim() == 0 or len(x) != len(y) or len(x) == 0:
            inputs, targets = (tuple(t.shape) for t in (x, y))
            raise TightlipError(
                f"the {name} part has inputs of shape {inputs} and targets of shape {targets}: give equally many, "
                "not none"
            )
        x = x.to(self.device, self.dtype if x.is_floating_point() else x.dtype)
        y = y.to(self.device, self.dtype if y.is_floating_point() else torch.int64)
        for values, word in ((x, "inputs"), (y, "targets")):
            refuse_non_finite(values, f"{name} {word}")
        return x, y


def entry(network: nn.Module, device: str | torch.device) -> Entry:
    """The dtype of a network's weights, and where it is trained."""
    floating = (t.dtype for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
    return Entry(torch.device(device), next(floating, torch.get_default_dtype()))


@dataclass(frozen=True)
class Tensors:
    """All examples at once."""

    inputs: Tensor
    targets: Tensor
    batch_size: int

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.inputs) // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Copies of all examples, shuffled."""
        order = torch.randperm(len(self.inputs), generator=generator).to(self.inputs.device)
        for index in order.split(self.batch_size):
            yield self.inputs[index], self.targets[index]

    def rows(self, batch: Tensor) -> int:
        """How many examples there are."""
        return len(self.inputs)

    def first(self, count: int) -> Batch:
        """Copies of some examples."""
        return self.inputs[:count].clone(), self.targets[:count].clone()

    def identity(self) -> Any:
        """What a checkpoint remembers of them."""
        return self.inputs, self.targets

    def generators(self) -> list[torch.Generator]:
        """None: each epoch has one of its own."""
        return []


@dataclass(frozen=True)
class Stream:
    """Examples that a ``DataLoader`` of the caller gives, or that are drawn from a Dataset through one of ours."""

    source: "DataLoader[Any] | TorchDataset[Any]"
    batch_size: int
    enter: Entry

    def __len__(self) -> int:
        """Batches per epoch."""
        if isinstance(self.source, DataLoader):
            return len(self.source)
        return -(-len(self.source) // self.batch_size)  # type: ignore[arg-type]

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """What the loader gives, or all items, shuffled; copies."""
        loader = self.source
        if not isinstance(loader, DataLoader):
            order = torch.randperm(len(loader), generator=generator)  # type: ignore[arg-type]
            loader = DataLoader(loader, batch_sampler=[part.tolist() for part in order.split(self.batch_size)])
        for pair in loader:
            x, y = self.enter(pair, "training")
            yield x.clone(), y.clone()

    def rows(self, batch: Tensor) -> int:
        """How many examples there are, or in a batch where a loader draws batches itself."""
        items = self.source.dataset if isinstance(self.source, DataLoader) else self.source
        batches = isinstance(self.source, DataLoader) and self.source.batch_sampler is None
        return len(items) if hasattr(items, "__len__") and not batches else len(batch)

    def first(self, count: int) -> Batch:
        """Some examples."""
        with _undrawn(self.source):
            batch = next(self.epoch(torch.Generator().manual_seed(0)), None)
        if batch is None:
            raise TightlipError("the DataLoader gives no batch: give one that does")
        return batch[0][:count], batch[1][:count]

    def identity(self) -> Any:
        """What a checkpoint remembers of them."""
        if not isinstance(self.source, DataLoader):
            return self.source
        return batching(self.source), len(self.source)

    def generators(self) -> list[torch.Generator]:
        """What the order is drawn from and goes on from one epoch to the next."""
        return generators(self.source)


def examples(part: Any, batch_size: int | None, enter: Entry) -> Tensors | Stream:
    """The training part in any of its forms.

    Raises:
        TightlipError: for other forms, bad values, a batch size beside a ``DataLoader``, or one without a length.
    """
    pair = _pair(part, "training")
    if isinstance(pair, DataLoader):
        if batch_size is not None:
            raise TightlipError("a DataLoader has batches of its own: leave batch_size out")
        if _length(pair) == 0:
            raise TightlipError("the DataLoader gives no batch: give one that does")
        return Stream(pair, 0, enter)
    size = BATCH_SIZE if batch_size is None else batch_size
    if isinstance(pair, TorchDataset):
        if _length(pair) == 0:
            raise TightlipError("the training Dataset is empty: give at least one example")
        return Stream(pair, size, enter)
    return Tensors(*enter(pair, "training"), size)


def whole(part: Any, enter: Entry) -> Batch:
    """The validation part in any of its forms, read once into memory."""
    pair = _pair(part, "validation")
    if not isinstance(pair, TorchDataset | DataLoader):
        return enter(pair, "validation")
    _length(pair)
    loader = pair if isinstance(pair, DataLoader) else DataLoader(pair, batch_size=1024)
    with _undrawn(loader):
        torch.manual_seed(0)  # a loader that shuffles gives one order
        batches = [enter(batch, "validation") for batch in loader]
    if not batches:
        raise TightlipError("the validation part is empty: give at least one example, or validation=None")
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def generators(source: Any) -> list[torch.Generator]:
    """Those of a ``DataLoader`` and its samplers."""
    batches = getattr(source, "batch_sampler", None)
    owners = source, getattr(source, "sampler", None), batches, getattr(batches, "sampler", None)
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(own): own for own in found if isinstance(own, torch.Generator)}.values())


@contextlib.contextmanager
def _undrawn(source: Any) -> Iterator[None]:
    """Afterwards all generators are where they were before, torch's own included."""
    own = generators(source)
    states = [generator.get_state() for generator in own]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)


def _pair(part: Any, name: str) -> Any:
    """A Part and a TensorDataset as their tensors; all else as it is."""
    if isinstance(part, Dataset | Splits):
        whole = "tightlip.data.split(dataset, seed).train" if isinstance(part, Dataset) else "its train or validation"
        raise TightlipError(f"the {name} part is a whole {type(part).__name__}: give one Part, {whole}")
    if isinstance(part, Part):
        return part.images, part.labels
    if type(part) is TensorDataset:
        return part.tensors
    return part


def _length(source: Any) -> int:
    try:
        return len(source)
    except (TypeError, NotImplementedError) as problem:
        kind = type(source).__name__
        raise TightlipError(
            f"a {kind} without a length has no epochs: give one with __len__, or set the steps in a loop of your own"
        ) from problem
