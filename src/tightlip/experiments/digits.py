"""Dense classifiers of images (paper §7.1, §7.4): the data, networks with a constant or without, training, numbers.

The epoch with the best *validation* accuracy is kept, and the test part is looked at once, by `scored`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..activations import ACTIVATIONS
from ..arguments import integer
from ..audit import lipschitz
from ..choices import chosen
from ..constraints import freeze
from ..data import Part, Splits, load, split
from ..data.augmentation import random_shift
from ..data.dataset import words_for
from ..errors import TightlipError
from ..networks import mlp
from ..records import Metric
from ..training import accuracy, fit
from . import certified_run
from .architectures import unconstrained
from .classification_options import Config as Options

SCORED = {
    "constant": Metric("The audited Lipschitz constant of the frozen network, in the 2-norm.", "up"),
    "accuracy": Metric("On the test part, the share of inputs that are classified right.", "down"),
    "cpu_seconds": "Of all processor threads, in training.",
}
"""What `scored` returns."""


def _orthogonal(layer: nn.Linear) -> None:
    nn.init.orthogonal_(layer.weight, gain=layer.in_features**-0.5)


STARTS: dict[str, Callable[[nn.Linear], None]] = {"torch": nn.Linear.reset_parameters, "orthogonal": _orthogonal}
"""How weights without a constraint begin: as torch has it, or orthogonal with the gain 1/√fan_in."""


@dataclass(frozen=True)
class Material:
    """A data set, split: its three parts, the number of classes, and what `Outcome.data` says of it."""

    parts: Splits
    classes: int
    source: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.parts.train.images.shape[1:])


@dataclass(frozen=True)
class Trained:
    """A frozen network, and the processor seconds that training it took."""

    network: nn.Module
    cpu_seconds: float


def material(name: str, seed: int) -> Material:
    """A data set by the name or the path that `load` takes, split by ``seed``.

    Raises:
        TightlipError: as `load`.
    """
    dataset = load(name)
    return Material(split(dataset, seed), dataset.classes, {"name": dataset.name, "sha256": dataset.sha256})


def classifier(
    material: Material, hidden: Sequence[int], activation: str, K: float | None, start: str = "torch", **options: Any
) -> nn.Sequential:
    """A dense network for these inputs and classes.

    Args:
        material: What is to be classified.
        hidden: Widths of the hidden layers, before the activation.
        activation: A name of `activations.ACTIVATIONS`.
        K: The constant of orthonormal layers and a scale; None for a network without constraints.
        start: Of weights without a constraint: torch's own, or orthogonal with the gain 1/√fan_in, as in the paper's
            original code.
        options: Of `mlp`, where there is a constant.

    Raises:
        TightlipError: for an unknown activation or start, and as `mlp`.
    """
    layer, begin = chosen("activation", activation, ACTIVATIONS), chosen("start", start, STARTS)
    widths = [torch.Size(material.shape).numel(), *hidden, material.classes]
    network = mlp(widths, activation=layer, K=1.0 if K is None else K, **options)
    return nn.Sequential(nn.Flatten(), *(network if K is not None else list(unconstrained(network, begin))[:-1]))


def trained(
    network: nn.Module,
    material: Material,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    shift: int = 0,
    **options: Any,
) -> Trained:
    """Train with Adam, whose rate falls to zero along a cosine; keep the epoch of the best validation accuracy; freeze.

    Args:
        network: Trained in place.
        material: Trained on its train part, chosen on its validation part.
        loss: (logits, labels) → a scalar.
        seed: Of the order of the examples and of the shifts.
        epochs: Passes over the train part.
        batch_size: Examples per step.
        learning_rate: Of Adam.
        shift: Images are moved by up to this many pixels at random; 0 leaves them where they are.
        options: Of `fit`.

    Raises:
        TightlipError: for a shift of what is no image, and as `fit`.
    """
    train, validation = material.parts.train, material.parts.validation
    if shift:
        refuse_rows(material, "a shift moves them")
        options["augment"] = partial(random_shift, pixels=shift)
    began = time.process_time()
    fit(
        network,
        loss,
        (train.images, train.labels),
        (validation.images, validation.labels),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        seed=seed,
        **options,
    )
    return Trained(freeze(network), round(time.process_time() - began, 3))


def trained_as(options: Options, material: Material) -> Trained:
    """Train as `tightlip train --center no` does with these options, on the parts of this material; freeze.

    Raises:
        TightlipError: as `certified_run.trained`.
    """
    began = time.process_time()
    network, _ = certified_run.trained(options, material.parts.train, material.parts.validation, material.classes)
    return Trained(freeze(network), round(time.process_time() - began, 3))


def refuse_rows(material: Material, why: str) -> None:
    """Raise unless the inputs are images (channels, height, width)."""
    if len(material.shape) != 3:
        inputs = words_for(material.shape)[0]
        raise TightlipError(f"images are needed, as {why}, and these data are {inputs} of shape {material.shape}")


def batches(part: Part, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """As many batches (inputs, labels) as steps, in a new order in each pass; all batches are full.

    Raises:
        TightlipError: unless a batch has one example at least, and no more than there are.
    """
    integer("batch_size", batch_size, most=len(part))
    generator = torch.Generator().manual_seed(seed)
    order: Tensor = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(part), generator=generator)
        index, order = order[:batch_size], order[batch_size:]
        yield part.images[index], part.labels[index]


def scored(result: Trained, material: Material) -> dict[str, float]:
    """The audited constant, the accuracy on the test part, and the processor seconds of training."""
    test = material.parts.test
    return {
        "constant": lipschitz(result.network, 2).constant,
        "accuracy": accuracy(result.network, test.images, test.labels),
        "cpu_seconds": result.cpu_seconds,
    }
