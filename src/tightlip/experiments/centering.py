"""Inputs and layers whose values have mean 0 in training: a translation is free, and sorting has more to choose from.

The mean of each channel of the training images is taken off by a first layer, that of what each layer but the last
makes by `MeanShift`. When training is over those means do not change any more, so they become a part of biases.
"""

import torch
from torch import nn

from ..data import Part
from ..data.augmentation import is_image
from ..data.standardization import centering
from ..mean_shift import MeanShift
from ..prototypes import Prototypes
from .method_layers import followed

WITH_BIAS = (nn.Linear, nn.Conv2d)
"""What a mean can become a part of."""


def centered(network: nn.Sequential, train: Part, what: str | None) -> nn.Sequential:
    """The network with what takes means off: that of the inputs, if they are images, and those of its layers.

    Args:
        network: Of rows, or of images that its first layers flatten or convolve.
        train: Examples; their mean is taken off.
        what: "inputs"; "layers", which is both; anything else leaves the network as it is.
    """
    if what == "layers":
        last = [layer for layer in network.modules() if isinstance(layer, nn.Linear | Prototypes)][-1]

        def behind(layer: nn.Module) -> list[nn.Module]:
            return [MeanShift(len(layer.weight))] if isinstance(layer, WITH_BIAS) and layer is not last else []

        network = followed(network, behind)
    if what in ("inputs", "layers") and is_image(train.images):
        network = nn.Sequential(centering(train.images), *network)
    return network


@torch.no_grad()
def means_in_biases(network: nn.Module) -> nn.Module:
    """A frozen network of `centered` in which Wx + b − mean has become Wx + (b − mean), in place.

    Layers are not shared in such a network, and its matrices take rows; of others it would make another function.
    """
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(sequence) - 1, 0, -1):
            layer, shift = sequence[place - 1], sequence[place]
            if isinstance(shift, MeanShift) and isinstance(layer, WITH_BIAS) and layer.bias is not None:
                layer.bias.copy_(layer.bias.double() - shift.mean.double())
                del sequence[place]
    return network
