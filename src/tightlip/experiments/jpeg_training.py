"""What training on JPEG costs a dense 2-norm network that is tested on the original images.

CIFAR-10's training part is often at hand as JPEG alone. Here the images of a data set that is at hand lossless are
recompressed, the same network is trained on either, and both are tested and certified on the original test images.
Shown are the distance that compression moves an image, and the accuracies.
"""

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import integer
from ..data import Part
from ..errors import TightlipError
from ..records import Metric
from ..robustness import certify
from .classification_options import Config as Options
from .digits import SCORED, material, refuse_rows, scored, trained_as
from .protocol import Outcome, Preset

LOSSLESS = 0
"""The quality that leaves images as they are."""

HIDDEN_LAYERS = 3


@dataclass(frozen=True)
class Config:
    """One quality."""

    quality: int = 75
    """Of JPEG, from 1 to 100, in training and validation; 0 leaves the images as they are."""
    data: str = "fashion-mnist"
    """Data set of images of 8 bits, in gray or color, by its name or path."""
    eps: float = 0.25
    """Radius that is certified, in the 2-norm, in units of the inputs."""
    width: int = 512
    """Of the three hidden layers."""
    epochs: int = 20
    """Passes over the training data; the best by validation is kept."""
    batch_size: int = 256
    """Examples per step."""


GRID = {"quality": (LOSSLESS, 95, 75, 50)}
SMOKE = Preset({"data": "mnist5k", "width": 32, "epochs": 1}, grid={"quality": (LOSSLESS, 75)})
PAPER = Preset(seeds=3)
METRICS = {
    "moved": "The median 2-norm distance between a training image and its compressed form, pixels in [0, 1].",
    "certified": Metric("The share of the original test part that is proven to stay right within eps.", "down"),
    **SCORED,
}


def run(config: Config, seed: int) -> Outcome:
    """Train on the compressed images; test on the original ones."""
    integer("quality", config.quality, least=0, most=100)
    whole = material(config.data, seed)
    refuse_rows(whole, "JPEG compresses them")
    parts = whole.parts
    train, validation = (compressed(part, config.quality) for part in (parts.train, parts.validation))
    own = replace(whole, parts=replace(parts, train=train, validation=validation))
    result = trained_as(options(config, seed), own)
    moved = (train.images - parts.train.images).flatten(1).norm(dim=1).median()
    certificate = certify(result.network, parts.test.images, parts.test.labels, 2)
    metrics = {"moved": float(moved), "certified": certificate.accuracy(config.eps)}
    return Outcome(metrics | scored(result, whole), data=whole.source)


def options(config: Config, seed: int) -> Options:
    """Those of `tightlip train`; no means are taken off."""
    size: Any = {"hidden": (config.width,) * HIDDEN_LAYERS, "epochs": config.epochs, "batch_size": config.batch_size}
    return Options(data=config.data, norm="2", eps=config.eps, seed=seed, **size)


def compressed(part: Part, quality: int) -> Part:
    """The part as JPEG of this quality has it; quality 0 leaves it alone.

    Raises:
        TightlipError: unless images have one channel or three, with values in [0, 1].
    """
    if quality == LOSSLESS:
        return part
    channels, least, most = part.images.shape[1], float(part.images.min()), float(part.images.max())
    if channels not in (1, 3) or least < 0 or most > 1:
        found = f"these images have {channels}, from {least:g} to {most:g}"
        raise TightlipError(f"JPEG takes 1 or 3 channels with values in [0, 1], and {found}: choose other data")
    return replace(part, images=torch.stack([_again(image, quality) for image in part.images]))


def _again(image: Tensor, quality: int) -> Tensor:
    """One image (C, H, W), written as JPEG and read again."""
    from PIL import Image

    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(file), dtype=np.float32).reshape(pixels.shape)
    return torch.from_numpy(back).permute(2, 0, 1).contiguous() / 255
