"""Images as PNG data URIs: the input as it is, its gradient in red (raises the margin) and blue, white at zero."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

Pixels = NDArray[np.float64]


def picture(image: Pixels) -> str:
    """An image (C, H, W) in [0, 1]: in color for three channels, else the channels' mean in gray."""
    image = np.clip(np.nan_to_num(image), 0, 1)
    channels = image if len(image) == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return _png(np.moveaxis(channels, 0, -1))


def diverging(gradient: Pixels, largest: float | None = None) -> str:
    """A gradient (C, H, W), summed over channels: blue below zero, white at it, red above; full at ``largest``."""
    scale = (extent(gradient) if largest is None else largest) or 1.0
    return _png(matplotlib.colormaps["RdBu_r"]((np.clip(_total(gradient) / scale, -1, 1) + 1) / 2)[..., :3])


def extent(gradient: Pixels) -> float:
    """The largest size of a gradient (C, H, W), summed over channels."""
    return float(np.abs(_total(gradient)).max())


def _total(gradient: Pixels) -> Pixels:
    total: Pixels = np.nan_to_num(gradient, posinf=0, neginf=0).sum(axis=0)
    return total


def gradient_norm(gradient: Pixels, norm: str) -> float:
    """The norm of a gradient over all its entries, in its own units: '1', '2' or 'inf'."""
    return float(np.linalg.norm(gradient.ravel(), {"1": 1, "2": 2, "inf": np.inf}[norm]))


def _png(colors: Pixels) -> str:
    """RGB colors (H, W, 3) in [0, 1] as the data URI of a PNG file without metadata."""
    buffer = io.BytesIO()
    imsave(buffer, np.round(255 * colors).astype(np.uint8), format="png", metadata={"Software": "tightlip"})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
