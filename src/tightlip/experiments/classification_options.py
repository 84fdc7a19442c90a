"""The options of a certified run, as `tightlip train` has them, their defaults, and what they may be."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from ..activations import ACTIVATIONS
from ..choices import chosen
from ..errors import TightlipError
from ..norms import as_norm
from ..options import plain
from .architectures import Sizes, sizes_of


@dataclass(frozen=True)
class Recipe:
    """All options that determine the numbers of a run, except for the seed."""

    data: str = "mnist5k"
    """Data set: mnist5k (ships with the package), mnist, fashion-mnist, cifar10, or a PATH: an .npz file, a
    folder of .npy files, or a folder of images."""
    norm: Literal["2", "inf"] = "2"
    """Norm of the perturbations to be certified against."""
    network: str = "mlp"
    """Kind of network: mlp, or for images convnet or mixer."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense hidden layers (default: 512 512 512 for the mlp, 256 for the others)."""
    channels: tuple[int, ...] | None = None
    """convnet and mixer only: channels of each stage (default: 64 128)."""
    depth: int | None = None
    """convnet and mixer only: convolutions of a stage after its first (default: 1 for the convnet, 2 for the mixer)."""
    activation: str = "maxmin"
    """Activation after each hidden layer: maxmin, groupsort4, fullsort, abs, maxout, relu or tanh."""
    k: float | None = None
    """Lipschitz constant of the network (default: 1 for the 2-norm, 1000 for the inf-norm)."""
    offset: float | None = None
    """2-norm only: margin that the cross-entropy asks for, in units of K (default: 0.8)."""
    temperature: float | None = None
    """2-norm only: temperature of the cross-entropy, in units of K (default: 0.25)."""
    a: float | None = None
    """inf-norm only: the hinge asks for the margin K·a, which certifies the radius a/2 (default: 0.1)."""
    patch: int | None = None
    """convnet and mixer only: height and width of the patches that the first stage begins with (default: 4)."""
    epochs: int = 50
    """Passes over the training data."""
    batch_size: int = 128
    """Examples per step."""
    learning_rate: float | None = None
    """Of Adam, falling to zero along a cosine (default: 0.002 for the 2-norm, 0.01 for the inf-norm)."""
    shift: int | None = None
    """Images are moved by up to this many pixels at random in training (default: 1; other data are not moved)."""
    eps: float | None = None
    """Radius of the headline (default: 0.3 for the 2-norm, a/2 for the inf-norm), in units of the inputs."""
    attack_images: int = 1000
    """Test inputs that the attack tries."""
    attack_steps: int = 50
    """Gradient steps per restart of the attack."""
    attack_restarts: int = 2
    """Starting points of the attack."""

    @property
    def p(self) -> float:
        """The norm as a number."""
        return as_norm(self.norm)

    @property
    def constant(self) -> float:
        """The Lipschitz constant asked for."""
        return (1.0 if self.p == 2 else 1000.0) if self.k is None else self.k

    @property
    def rate(self) -> float:
        """The initial learning rate."""
        return (2e-3 if self.p == 2 else 1e-2) if self.learning_rate is None else self.learning_rate

    @property
    def margin(self) -> float:
        """The margin that the loss asks for, in units of K."""
        given, default = (self.offset, 0.8) if self.p == 2 else (self.a, 0.1)
        return default if given is None else given

    @property
    def softness(self) -> float:
        """The temperature of the cross-entropy, in units of K."""
        return 0.25 if self.temperature is None else self.temperature

    @property
    def pixels(self) -> int:
        """How far images are moved in training."""
        return 1 if self.shift is None else self.shift

    @property
    def radius(self) -> float:
        """The radius of the headline."""
        return (0.3 if self.p == 2 else self.margin / 2) if self.eps is None else self.eps

    @property
    def sizes(self) -> Sizes:
        """Of the network."""
        return sizes_of(self.network, self.hidden, self.channels, self.depth, self.patch)

    @property
    def resolved(self) -> dict[str, Any]:
        """The options as JSON has them, with their defaults; None where the norm's loss has no such option."""
        loss = (self.margin, self.softness, None) if self.p == 2 else (None, None, self.margin)
        values = asdict(self) | {"k": self.constant, "learning_rate": self.rate}
        return (
            values
            | plain(asdict(self.sizes))
            | {"eps": self.radius, "shift": self.pixels}
            | dict(zip(("offset", "temperature", "a"), loss, strict=True))
        )


@dataclass(frozen=True)
class Config(Recipe):
    """Options of `tightlip train`."""

    seed: int = 0
    """Of the split, the initialization, the order of the examples and the attack."""


def check(config: Config) -> None:
    """Refuse impossible options before anything is computed."""
    limits = {
        "epochs": (config.epochs, 1),
        "batch_size": (config.batch_size, 1),
        "shift": (config.pixels, 0),
        "seed": (config.seed, 0),
        "attack_images": (config.attack_images, 1),
        "attack_steps": (config.attack_steps, 1),
        "attack_restarts": (config.attack_restarts, 1),
        "eps": (config.radius, 0),
        "a" if config.p == math.inf else "offset": (config.margin, 0),
        "depth": (config.sizes.depth or 0, 0),
        "patch": (1 if config.sizes.patch is None else config.sizes.patch, 1),
        "temperature": (config.softness, 1e-12),
        "learning_rate": (config.rate, 1e-12),
        "k": (config.constant, 1e-30),
    }
    for name, norm in {"offset": "2", "temperature": "2", "a": "inf"}.items():
        if getattr(config, name) is not None and config.norm != norm:
            raise TightlipError(f"{name} belongs to the loss of the {norm}-norm: leave it out, or choose norm={norm}")
    for name, (value, least) in limits.items():
        if not least <= value <= 2**31:
            wanted = "positive" if 0 < least < 1 else f"at least {least}"
            flag = name.replace("_", "-")
            raise TightlipError(f"{name}={value} (--{flag}) is impossible: it must be {wanted}, and at most 2³¹")
    for name, widths in (("hidden", config.sizes.hidden), ("channels", config.sizes.channels or ())):
        _check_widths(name, widths, config.activation)


def _check_widths(name: str, widths: tuple[int, ...], activation: str) -> None:
    """Refuse widths that are no widths, or that the activation cannot group."""
    given = f"{name}={' '.join(map(str, widths))} (--{name})"
    make = chosen("activation", activation, ACTIVATIONS)
    if any(not 1 <= width <= 100_000 for width in widths):
        raise TightlipError(f"{given} is impossible: widths lie between 1 and 100000")
    for width in widths:
        try:
            make()(torch.zeros(1, width))
        except TightlipError as error:
            raise TightlipError(f"{given} does not suit activation={activation}: {error}") from error
