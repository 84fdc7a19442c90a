"""What training does to images, so that a network sees each of them in several ways."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(images, generator) → images, as many."""


def is_image(inputs: Tensor) -> bool:
    """Whether these are (n, channels, height, width)."""
    return inputs.dim() == 4


def random_shift(images: Tensor, generator: torch.Generator, pixels: int) -> Tensor:
    """Each image (N, C, H, W) moved by up to ``pixels`` in both directions, zeros entering at the border."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (pixels,) * 4)
    offsets = torch.randint(0, 2 * pixels + 1, (2, len(images), 1), generator=generator)
    rows = (offsets[0] + torch.arange(height)).to(images.device)
    columns = (offsets[1] + torch.arange(width)).to(images.device)
    index = torch.arange(len(images), device=images.device)
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) as it is, or mirrored left to right, with equal chances."""
    mirrored = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).bool()
    return torch.where(mirrored.to(images.device), images.flip(-1), images)


def augmentation(pixels: int, flip: bool) -> Augment | None:
    """`random_shift` by up to ``pixels``, then `random_flip` where ``flip`` is true; None where there is neither."""
    steps: list[Augment] = [partial(random_shift, pixels=pixels)] if pixels else []
    steps += [random_flip] if flip else []
    return partial(_in_turn, steps=tuple(steps)) if len(steps) > 1 else next(iter(steps), None)


def _in_turn(images: Tensor, generator: torch.Generator, steps: tuple[Augment, ...]) -> Tensor:
    for step in steps:
        images = step(images, generator)
    return images
