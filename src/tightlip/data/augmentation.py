"""What training does to images, so that a network sees each of them in several ways."""

import torch
from torch import Tensor
from torch.nn import functional


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
