"""What generative adversarial networks are made of: a generator of images, and critics with a constant or without.

Generator and critic have the shapes of InfoGAN (paper appendix H.2, H.3), for images of any size and at any width; the
paper's width is 64. Images lie in [−1, 1].
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..activations import MaxMin
from ..constraints import lifted
from ..networks import mlp

LATENT = 62
"""Numbers that a generator makes an image of, each uniform in [0, 1]."""

SPREAD = 0.02
"""The standard deviation of weights that nothing constrains, at the start; their biases are zero."""

CLIP = 0.01
"""The largest entry of a clipped critic's weights."""

PENALTY = 10.0
"""What a gradient penalty is multiplied by."""


@dataclass(frozen=True)
class Kind:
    """A way to train a critic.

    ``make`` takes the shape of an image and the width. ``rate`` is the usual one of Adam for this critic; ``clipped``
    and ``penalized`` are what keeps a critic near 1-Lipschitz that nothing constrains.
    """

    make: Callable[[Sequence[int], int], nn.Module]
    rate: float
    clipped: bool = False
    penalized: bool = False

    @property
    def constrained(self) -> bool:
        """Whether the critic is 1-Lipschitz at every step."""
        return not (self.clipped or self.penalized)


def generator(shape: Sequence[int], width: int) -> nn.Sequential:
    """Latent numbers (n, 62) → images (n, *shape) in [−1, 1], by two transposed convolutions.

    Args:
        shape: Channels, height and width.
        width: Channels between the convolutions; the dense layers have 16 and 2·height·width/16 times as many.
    """
    channels, *sides = shape
    small = [math.ceil(side / 4) for side in sides]
    dense, deep = 16 * width, 2 * width * math.prod(small)
    cut = [-(4 * few - side) for few, side in zip(small, sides, strict=True)]
    return _drawn(
        nn.Sequential(
            nn.Linear(LATENT, dense),
            nn.BatchNorm1d(dense),
            nn.ReLU(),
            nn.Linear(dense, deep),
            nn.BatchNorm1d(deep),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, *small)),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, 2, 1),
            nn.Tanh(),
            nn.ZeroPad2d((0, cut[1], 0, cut[0])),
        )
    )


def latent(count: int, random: torch.Generator) -> Tensor:
    """What a generator takes: (count, 62), uniform in [0, 1]."""
    return torch.rand(count, LATENT, generator=random)


@torch.no_grad()
def images_of(network: nn.Module, count: int, seed: int, batch: int = 500) -> Tensor:
    """Images (count, *shape) of a generator in eval mode, which stays in the mode that it is in."""
    random, training = torch.Generator().manual_seed(seed), network.training
    network.eval()
    made = [network(part) for part in latent(count, random).split(batch)]
    network.train(training)
    return torch.cat(made)


def plain_critic(shape: Sequence[int], width: int) -> nn.Sequential:
    """Two convolutions of 4×4 pixels at stride 2 and two dense layers with LeakyReLU, which nothing constrains."""
    channels, *sides = shape
    features = 2 * width * math.prod(_halved(_halved(side)) for side in sides)
    return _drawn(
        nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(features, 16 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(16 * width, 1),
        )
    )


def convolutional_critic(shape: Sequence[int], width: int) -> nn.Sequential:
    """Up to three such convolutions and one dense layer, orthonormal, with MaxMin: 1-Lipschitz at every step.

    A third convolution stands where the plain critic has its wide dense layer: from so many inputs to so few outputs an
    orthonormal weight would take longer to move than all the others together.
    """
    widths, sides = [shape[0], width], [_halved(side) for side in shape[1:]]
    while len(widths) < 4 and min(sides) >= 2:
        widths, sides = [*widths, 2 * widths[-1]], [_halved(side) for side in sides]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        held = lifted(nn.Conv2d(inputs, outputs, 4, 2, 1))
        layers += [*(held if isinstance(held, nn.Sequential) else [held]), MaxMin(dim=1, contiguous=False)]
    return nn.Sequential(*layers, nn.Flatten(), lifted(nn.Linear(widths[-1] * math.prod(sides), 1)))


def dense_critic(shape: Sequence[int], width: int) -> nn.Sequential:
    """Two hidden layers of 8 · width units, orthonormal, with MaxMin; the cheap form."""
    return nn.Sequential(nn.Flatten(), *mlp([math.prod(shape), 8 * width, 8 * width, 1]))


CRITICS = {
    "clip": Kind(plain_critic, 2e-4, clipped=True),
    "gradient penalty": Kind(plain_critic, 2e-4, penalized=True),
    "orthonormal dense": Kind(dense_critic, 2e-3),
    "orthonormal conv": Kind(convolutional_critic, 2e-3),
}
"""Ways to train a critic, by name."""


def _halved(side: int) -> int:
    """What a convolution of 4 pixels at stride 2, padded by 1, leaves of a side."""
    return (side + 2 - 4) // 2 + 1


def _drawn(network: nn.Sequential) -> nn.Sequential:
    """Weights normal with `SPREAD`, biases zero; normalizations stay as torch has them."""
    for layer in network:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=SPREAD)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network
