"""The networks that `tightlip train` can train: for each name its sizes, and what builds it.

A network is added by one entry in `ARCHITECTURES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ..choices import chosen
from ..constraints import Constraint, freeze
from ..errors import TightlipError
from ..image_networks import convnet, mixer
from ..networks import mlp

Builder = Callable[..., nn.Sequential]
"""Takes the shape of an input, the number of classes and `Sizes`, and a constraint, an activation and K by name."""


@dataclass(frozen=True)
class Sizes:
    """Of a network: widths of its dense hidden layers, channels of each stage, layers of a stage, first patches."""

    hidden: tuple[int, ...]
    channels: tuple[int, ...] | None = None
    depth: int | None = None
    patch: int | None = None


@dataclass(frozen=True)
class Architecture:
    """What there is to know of a kind of network."""

    default: Sizes
    build: Builder

    @property
    def of_images(self) -> bool:
        """Whether it takes images only."""
        return self.default.channels is not None


def _dense(shape: Sequence[int], classes: int, sizes: Sizes, **options: Any) -> nn.Sequential:
    widths = [torch.Size(shape).numel(), *sizes.hidden, classes]
    return nn.Sequential(nn.Flatten(), mlp(widths, **options))


def _convolutional(
    make: Builder, shape: Sequence[int], classes: int, sizes: Sizes, activation: Any, **options: Any
) -> nn.Sequential:
    of_channels = partial(activation, dim=1) if hasattr(activation(), "dim") else activation
    vary: Any = {"channels": sizes.channels, "patch": sizes.patch, "depth": sizes.depth, "hidden": sizes.hidden}
    return make(shape, classes, activation=of_channels, **vary, **options)


ARCHITECTURES = {
    "mlp": Architecture(Sizes((512, 512, 512)), _dense),
    "convnet": Architecture(Sizes((512, 512), (64, 128), 0, 4), partial(_convolutional, convnet)),
    "mixer": Architecture(Sizes((256,), (64, 128), 2, 4), partial(_convolutional, mixer)),
}


def sizes_of(
    network: str,
    hidden: tuple[int, ...] | None,
    channels: tuple[int, ...] | None,
    depth: int | None,
    patch: int | None,
) -> Sizes:
    """The sizes of a network, with its defaults where nothing is given.

    Raises:
        TightlipError: for a network that there is not, or sizes that it does not have.
    """
    known = chosen("network", network, ARCHITECTURES)
    if not known.of_images and (channels, depth, patch) != (None, None, None):
        raise TightlipError(
            f"channels, depth and patch belong to networks of images: leave them out, or choose another network than "
            f"{network}"
        )
    default = known.default
    return Sizes(
        default.hidden if hidden is None else hidden,
        default.channels if channels is None else channels,
        default.depth if depth is None else depth,
        default.patch if patch is None else patch,
    )


def build(
    network: str,
    shape: Sequence[int],
    classes: int,
    sizes: Sizes,
    constraint: Constraint,
    activation: Callable[[], nn.Module],
    K: float,
) -> nn.Sequential:
    """A network for inputs of this shape.

    Raises:
        TightlipError: for inputs that it does not take, and sizes that nothing can be made of.
    """
    known = chosen("network", network, ARCHITECTURES)
    if known.of_images and len(shape) != 3:
        raise TightlipError(
            f"network={network} (--network) takes images (channels, height, width), and these inputs have shape "
            f"{tuple(shape)}: choose network=mlp"
        )
    return known.build(shape, classes, sizes, constraint=constraint, activation=activation, K=K)


def unconstrained(
    network: nn.Sequential, begin: Callable[[Any], object] = lambda layer: layer.reset_parameters()
) -> nn.Sequential:
    """A copy of the network with ordinary layers, which ``begin`` draws anew, as torch does if none is given."""
    plain = cast(nn.Sequential, freeze(network).requires_grad_(True).train())
    for layer in plain.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            begin(layer)
    return plain
