"""Networks of images with a proven constant, as plain ``nn.Sequential``s: stages of convolutions, and a dense head.

Each stage begins with a convolution whose kernel is its stride, a matrix on patches, which lowers the resolution; those
after it keep it. Orthonormal layers that do not widen keep the norm of gradients, but for the edges of zero padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .activations import MaxMin
from .constraints import Constraint, Hold, Orthonormal, lifted
from .errors import TightlipError
from .layers import Scale
from .networks import checked_sizes, made
from .shift import Shift

Block = Callable[[int, int], list[nn.Module]]
"""The layers between two activations of a stage, by its channels and their number in the stage."""


def convnet(
    image: Sequence[int],
    classes: int,
    channels: Sequence[int] = (64, 128),
    patch: int = 4,
    kernel: int = 3,
    depth: int = 0,
    hidden: Sequence[int] = (512, 512),
    padding_mode: str = "zeros",
    constraint: Constraint | None = None,
    activation: Callable[[], nn.Module] = partial(MaxMin, dim=1, contiguous=False),
    K: float = 1.0,
    hold: Hold = "step",
    bias: bool = True,
) -> nn.Sequential:
    """A convolutional network of 1-Lipschitz layers; its last layer is `Scale(K)`.

    A stage is a convolution of patches (2×2 after the first), and ``depth`` convolutions that keep height and width.
    Each has an activation after it, and so have the dense layers of the head but for the last. By default there are
    patches alone, which are matrices: that trained in half the time of one kernel a stage, and certified more
    (docs/guides/accuracy.md).

    Args:
        image: Channels, height and width of the inputs (batch, channels, height, width).
        classes: How many outputs.
        channels: Of each stage.
        patch: Height and width of the first patches.
        kernel: Height and width of the kernels that keep the resolution; an odd number.
        depth: How many of these each stage has.
        hidden: Widths of the dense layers before the last; may be empty.
        padding_mode: "zeros"; or "circular", with which these kernels keep all norms, and the edges are neighbors.
        constraint: Of all layers; default `Orthonormal()`.
        activation: Makes the activations; they act along axis 1.
        K: The Lipschitz constant, in the constraint's norms.
        hold: How the constraint is held, see `constrain`.
        bias: Whether layers have (unconstrained) biases.

    Raises:
        TightlipError: for impossible sizes; an activation that makes no layer, or that a width does not fit.

    >>> network = convnet((1, 28, 28), 10, channels=(8, 16), hidden=(32,))
    >>> network(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    (size,) = checked_sizes("kernel", kernel, "one odd integer ≥ 1", fewest=1, most=1)
    if size % 2 == 0:
        raise TightlipError(f"kernel must be one odd integer ≥ 1, or images would change their size, got {kernel}")
    stack = _Stack(image, constraint or Orthonormal(), activation, hold, bias)

    def block(width: int, number: int) -> list[nn.Module]:
        options: Any = {"padding_mode": padding_mode}
        return [nn.Conv2d(width, width, size, padding=size // 2, bias=bias, **options)]

    return stack.made(channels, patch, depth, block, hidden, classes, K)


def mixer(
    image: Sequence[int],
    classes: int,
    channels: Sequence[int] = (64, 128),
    patch: int = 4,
    depth: int = 2,
    hidden: Sequence[int] = (256,),
    part: float = 0.5,
    boundary: str = "bounce",
    constraint: Constraint | None = None,
    activation: Callable[[], nn.Module] = partial(MaxMin, dim=1, contiguous=False),
    K: float = 1.0,
    hold: Hold = "step",
    bias: bool = True,
) -> nn.Sequential:
    """A network of images whose layers are shifts of pixels and matrices on channels; its last layer is `Scale(K)`.

    A stage is a convolution of patches (2×2 after the first), and ``depth`` times a `Shift`, along height and width in
    turn, a 1×1 convolution and an activation. A training step takes a third to a half of one
    with 3×3 kernels of as many channels.

    Args:
        image: Channels, height and width of the inputs (batch, channels, height, width).
        classes: How many outputs.
        channels: Of each stage.
        patch: Height and width of the first patches.
        depth: How many 1×1 convolutions each stage has.
        hidden: Widths of the dense layers before the last; may be empty.
        part: The share of the channels that a `Shift` moves.
        boundary: What becomes of pixels at the edges, see `Shift`.
        constraint: Of all layers; default `Orthonormal()`.
        activation: Makes the activations; they act along axis 1.
        K: The Lipschitz constant, in the constraint's norms.
        hold: How the constraint is held, see `constrain`.
        bias: Whether layers have (unconstrained) biases.

    Raises:
        TightlipError: for impossible sizes; an activation that makes no layer, or that a width does not fit.

    >>> network = mixer((1, 28, 28), 10, channels=(16, 32), depth=2, hidden=())
    >>> network(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    stack = _Stack(image, constraint or Orthonormal(), activation, hold, bias)

    def block(width: int, number: int) -> list[nn.Module]:
        return [Shift(part, 2 + number % 2, boundary), nn.Conv2d(width, width, 1, bias=bias)]

    return stack.made(channels, patch, depth, block, hidden, classes, K)


@dataclass
class _Stack:
    """Layers one after the other, and what comes out of them for one image of zeros."""

    image: Sequence[int]
    constraint: Constraint
    activation: Callable[[], nn.Module]
    hold: Hold
    bias: bool
    layers: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = checked_sizes("image", self.image, "channels, height and width, integers ≥ 1", fewest=3, most=3)
        self.x: Tensor = torch.zeros(1, *shape)

    def made(
        self,
        channels: Sequence[int],
        patch: int,
        depth: int,
        block: Block,
        hidden: Sequence[int],
        classes: int,
        K: float,
    ) -> nn.Sequential:
        """The network: stages, of which the first begins with these patches and others with 2×2, and the head."""
        (patch,) = checked_sizes("patch", patch, "one integer ≥ 1", fewest=1, most=1)
        if type(depth) is not int or depth < 0:
            raise TightlipError(f"depth must be an integer ≥ 0, got {depth!r}")
        if patch > max(self.x.shape[2:]):
            sides = "×".join(map(str, self.x.shape[2:]))
            raise TightlipError(f"patch={patch} is larger than an image of {sides} pixels: give a smaller one")
        for number, width in enumerate(checked_sizes("channels", channels)):
            self._stage(width, 2 if number else patch, depth, block)
        self._head(hidden, classes, K)
        return nn.Sequential(*self.layers)

    def _stage(self, width: int, patch: int, depth: int, block: Block) -> None:
        """Patches of the image, and ``depth`` blocks; an edge that is not a whole patch is filled with zeros."""
        missing = [-side % patch for side in self.x.shape[2:]]
        padding: Any = tuple(-(-side // 2) for side in missing)
        self._add(nn.Conv2d(self.x.shape[1], width, patch, patch, padding, bias=self.bias))
        self._add(made(self.activation))
        for number in range(depth):
            self._add(*block(width, number))
            self._add(made(self.activation))

    def _head(self, hidden: Sequence[int], classes: int, K: float) -> None:
        """Dense layers, and K."""
        self._add(nn.Flatten())
        for width in checked_sizes("hidden", hidden):
            self._add(nn.Linear(self.x.shape[1], width, self.bias))
            self._add(made(self.activation))
        (outputs,) = checked_sizes("classes", classes, "one integer ≥ 1", fewest=1, most=1)
        self._add(nn.Linear(self.x.shape[1], outputs, self.bias), Scale(K))

    def _add(self, *layers: nn.Module) -> None:
        for layer in layers:
            held = isinstance(layer, nn.Linear | nn.Conv2d)
            new = lifted(layer, self.constraint, self.hold) if held else layer  # type: ignore[arg-type, type-var]
            self.layers += new if isinstance(new, nn.Sequential) else [new]
            try:
                with torch.no_grad():
                    self.x = new(self.x)
            except RuntimeError as problem:
                raise TightlipError(
                    f"an image of {list(self.image)} has become {list(self.x.shape[1:])}, which {layer} cannot take "
                    f"({problem}): give fewer stages, a smaller kernel, or padding_mode='zeros'"
                ) from problem
